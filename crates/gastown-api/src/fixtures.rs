//! Fixtures for this crate's unit tests: the manifests of `tests/fixtures`, read and kept whole.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    BeadStore, Convoy, Escalation, GateRun, MergeRequest, Polecat, Refinery, Rig, Witness, crds,
};

const MANIFESTS: [&str; 2] = [
    include_str!("../tests/fixtures/go-operator.yaml"),
    include_str!("../tests/fixtures/additions.yaml"),
];
const STATUSES: &str = include_str!("../tests/fixtures/statuses.yaml");

fn manifests() -> Vec<Value> {
    MANIFESTS.iter().flat_map(|text| documents(text)).collect()
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

/// The typed object written again.
fn again(object: &Value) -> Value {
    fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(object.clone()).unwrap()).unwrap()
    }
    match object["kind"].as_str().unwrap() {
        "Rig" => through::<Rig>(object),
        "Polecat" => through::<Polecat>(object),
        "Convoy" => through::<Convoy>(object),
        "Witness" => through::<Witness>(object),
        "Refinery" => through::<Refinery>(object),
        "BeadStore" => through::<BeadStore>(object),
        "GateRun" => through::<GateRun>(object),
        "MergeRequest" => through::<MergeRequest>(object),
        "Escalation" => through::<Escalation>(object),
        other => panic!("no kind {other}"),
    }
}

/// Where something of `before` is missing or different in `after`; more is allowed, since defaults are
/// filled in, and so is a quantity written as text instead of a number.
fn lost(before: &Value, after: &Value, path: &str) -> Vec<String> {
    match (before, after) {
        (Value::Object(b), Value::Object(a)) => b
            .iter()
            .flat_map(|(k, v)| {
                a.get(k).map_or_else(
                    || vec![format!("{path}/{k} is gone")],
                    |w| lost(v, w, &format!("{path}/{k}")),
                )
            })
            .collect(),
        (Value::Array(b), Value::Array(a)) if a.len() == b.len() => b
            .iter()
            .zip(a)
            .enumerate()
            .flat_map(|(i, (v, w))| lost(v, w, &format!("{path}/{i}")))
            .collect(),
        (Value::Number(n), Value::String(s)) if n.to_string() == *s => Vec::new(),
        (b, a) if a == b => Vec::new(),
        (b, a) => vec![format!("{path}: {b} became {a}")],
    }
}

/// Paths of all fields in a schema or an object; a list's items are one place.
fn schema_paths(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{path}/{name}");
        found.insert(at.clone());
        schema_paths(if field["items"].is_object() { &field["items"] } else { field }, &at, found);
    }
}

fn object_paths(object: &Value, path: &str, found: &mut BTreeSet<String>) {
    match object {
        Value::Object(fields) => {
            for (name, field) in fields {
                let at = format!("{path}/{name}");
                found.insert(at.clone());
                object_paths(field, &at, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| object_paths(item, path, found)),
        _ => {}
    }
}

/// What of a kind's schema the given objects do not use.
fn unused(kind: &str, part: &str, objects: &[Value]) -> Vec<String> {
    let crd = crds().into_iter().find(|c| c.spec.names.kind == kind).unwrap();
    let schema = serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap()).unwrap();
    let mut wanted = BTreeSet::new();
    schema_paths(&schema["openAPIV3Schema"]["properties"][part], "", &mut wanted);
    let mut used = BTreeSet::new();
    for object in objects {
        object_paths(object, "", &mut used);
    }
    wanted.difference(&used).cloned().collect()
}

#[test]
fn a_manifest_goes_through_the_types_and_loses_nothing() {
    for manifest in manifests() {
        let written = again(&manifest);
        assert_eq!(
            lost(&manifest, &written, ""),
            Vec::<String>::new(),
            "{}",
            manifest["metadata"]["name"]
        );
        assert_eq!(again(&written), written, "a second time changes nothing");
    }
}

#[test]
fn the_manifests_use_every_field_of_every_spec() {
    for crd in crds() {
        let kind = crd.spec.names.kind;
        let specs: Vec<Value> = manifests()
            .into_iter()
            .filter(|m| m["kind"] == *kind)
            .map(|m| m["spec"].clone())
            .collect();
        assert_eq!(unused(&kind, "spec", &specs), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn a_whole_status_goes_through_the_types_and_the_fixtures_use_every_field() {
    let statuses: Value = serde_saphyr::from_str(STATUSES).unwrap();
    for mut manifest in manifests() {
        let kind = manifest["kind"].as_str().unwrap().to_owned();
        let status = statuses[&kind].clone();
        assert_eq!(
            unused(&kind, "status", std::slice::from_ref(&status)),
            Vec::<String>::new(),
            "{kind}"
        );
        manifest["status"] = status.clone();
        assert_eq!(again(&manifest)["status"], status, "{kind}");
    }
}

/// The object with each value that has an `enum` in the schema replaced by one that nobody knows, one
/// at a time, with the value's path.
fn with_later_values(object: &Value, schema: &Value, path: &str) -> Vec<(String, Value)> {
    if schema["enum"].is_array() && object.is_string() {
        return vec![(path.to_owned(), "FromALaterVersion".into())];
    }
    let mut all = Vec::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let Some(value) = object.get(name).filter(|_| name != "conditions") else { continue };
        for (at, changed) in with_later_values(value, field, &format!("{path}.{name}")) {
            let mut whole = object.clone();
            whole[name.as_str()] = changed;
            all.push((at, whole));
        }
    }
    for (index, item) in object.as_array().into_iter().flatten().enumerate() {
        for (at, changed) in with_later_values(item, &schema["items"], &format!("{path}[{index}]"))
        {
            let mut whole = object.clone();
            whole[index] = changed;
            all.push((at, whole));
        }
    }
    all
}

/// After a rollback the definitions are those of the later version, and objects may hold its values.
#[test]
fn a_value_of_a_later_version_makes_no_object_unreadable() {
    let statuses: Value = serde_saphyr::from_str(STATUSES).unwrap();
    let mut seen = BTreeSet::new();
    for mut manifest in manifests() {
        let kind = manifest["kind"].as_str().unwrap().to_owned();
        manifest["status"] = statuses[&kind].clone();
        let crd = crds().into_iter().find(|c| c.spec.names.kind == kind).unwrap();
        let schema = serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap()).unwrap();
        let later = with_later_values(&manifest, &schema["openAPIV3Schema"], &kind);
        for (at, mut object) in later {
            let written = again(&object);
            // Everything else is read as it was, and the value itself where it is text to us.
            object["metadata"] = manifest["metadata"].clone();
            let lost = lost(&object, &written, "");
            assert!(lost.len() <= 1, "{at}: {lost:?}");
            seen.insert(at);
        }
    }
    for at in ["Polecat.status.phase", "Polecat.spec.desiredState", "MergeRequest.status.phase"] {
        assert!(seen.contains(at), "{seen:?}");
    }
}

#[test]
fn no_definition_lets_anybody_write_that_a_value_is_unknown() {
    fn values(schema: &Value, path: &str, found: &mut Vec<String>) {
        if schema["enum"].as_array().is_some_and(|all| all.iter().any(|v| v == "Unknown")) {
            found.push(path.to_owned());
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            values(field, &format!("{path}.{name}"), found);
        }
        if schema["items"].is_object() {
            values(&schema["items"], &format!("{path}[]"), found);
        }
    }
    let mut found = Vec::new();
    for crd in crds() {
        let schema = serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap()).unwrap();
        values(&schema["openAPIV3Schema"], &crd.spec.names.kind, &mut found);
    }
    found.retain(|path| !path.contains(".conditions[]"));
    // A bead that the store does not hold.
    assert_eq!(found, ["Convoy.status.beads[].phase"]);
}

#[test]
fn what_an_older_schema_let_in_still_reads() {
    let polecat = serde_json::json!({
        "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "Polecat", "metadata": { "name": "x".repeat(200) },
        "spec": {
            "rig": "", "beadID": "a b/c", "ttlSecondsAfterFinished": -1, "maxIdleSeconds": -1, "agentConfig": {},
            "resources": { "requests": { "cpu": 3 }, "limits": { "cpu": 1 } },
            "kubernetes": { "gitRepository": "nonsense", "gitBranch": "-x", "activeDeadlineSeconds": 0, "gitSecretRef": { "name": "" } },
        },
    });
    let read: Polecat = serde_json::from_value(polecat).unwrap();
    assert_eq!(read.spec.resources.unwrap().requests.unwrap()["cpu"].0, "3");
    let witness = serde_json::json!({
        "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "Witness", "metadata": { "name": "w" },
        "spec": { "rigRef": "", "stuckThreshold": "soon" },
    });
    let read: Witness = serde_json::from_value(witness).unwrap();
    assert_eq!(crate::duration::parse(&read.spec.stuck_threshold), None);
}

#[test]
fn an_empty_status_writes_nothing_that_another_controller_owns() {
    assert_eq!(
        serde_json::to_value(crate::PolecatStatus::default()).unwrap(),
        serde_json::json!({})
    );
    assert_eq!(
        serde_json::to_value(crate::MergeRequestStatus::default()).unwrap(),
        serde_json::json!({})
    );
}

#[test]
fn a_spec_made_in_code_has_the_defaults_of_the_schema() {
    let read: Polecat = serde_json::from_value(serde_json::json!({
        "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "Polecat", "metadata": {},
        "spec": { "rig": "r", "kubernetes": { "gitRepository": "u" } },
    }))
    .unwrap();
    let made = crate::PolecatSpec {
        kubernetes: Some(crate::KubernetesSpec::of_repository("u")),
        ..crate::PolecatSpec::of_rig("r")
    };
    assert_eq!(read.spec, made);
    let refinery: crate::RefinerySpec =
        serde_json::from_value(serde_json::json!({ "rigRef": "r" })).unwrap();
    assert_eq!(refinery, crate::RefinerySpec::of_rig("r"));
    let witness: crate::WitnessSpec =
        serde_json::from_value(serde_json::json!({ "rigRef": "r" })).unwrap();
    assert_eq!(witness, crate::WitnessSpec::of_rig("r"));
    let beads: crate::BeadStoreSpec =
        serde_json::from_value(serde_json::json!({"rigRef": "r", "prefix": "gt"})).unwrap();
    assert_eq!(beads, crate::BeadStoreSpec::of_rig("r", "gt"));
}

#[test]
fn the_columns_are_those_that_people_know() {
    let columns = |kind: &str| {
        let crd = crds().into_iter().find(|c| c.spec.names.kind == kind).unwrap();
        let columns = crd.spec.versions[0].additional_printer_columns.clone().unwrap();
        columns.into_iter().map(|c| c.name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(columns("Rig"), "Phase Polecats Convoys Age Reason Message");
    assert_eq!(columns("Polecat"), "Rig Phase Bead Pod Active Model Age Reason Message");
    assert_eq!(columns("Convoy"), "Phase Progress Age Reason Message");
    assert_eq!(columns("Witness"), "Rig Phase Running Stuck Age Reason Message");
    assert_eq!(columns("Refinery"), "Rig Phase Queue Current Age Reason Message");
    assert_eq!(columns("BeadStore"), "Rig Prefix Phase Issues Ready Writable Age Reason Message");
    assert_eq!(columns("MergeRequest"), "Rig Branch Phase Pos Reason Age Message");
    assert_eq!(columns("Escalation"), "Severity Phase Rig Raises Summary Age Reason Message");
}

/// Strings, lists and maps of a schema that have no end, by path.
fn endless(schema: &Value, path: &str, found: &mut Vec<String>) {
    let bounded = |limit: &str| schema[limit].is_number();
    let open = match schema["type"].as_str() {
        Some("string") => schema["enum"].is_null() && !bounded("maxLength"),
        Some("array") => !bounded("maxItems"),
        Some("object") => schema["additionalProperties"].is_object() && !bounded("maxProperties"),
        _ => schema["x-kubernetes-int-or-string"] == true && !bounded("maxLength"),
    };
    if open {
        found.push(path.to_owned());
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        endless(field, &format!("{path}.{name}"), found);
    }
    for part in ["items", "additionalProperties"] {
        if schema[part].is_object() {
            endless(&schema[part], &format!("{path}[]"), found);
        }
    }
}

#[test]
fn every_string_list_and_map_has_an_end() {
    for crd in crds() {
        let schema = serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap()).unwrap();
        let mut found = Vec::new();
        for part in ["spec", "status"] {
            endless(&schema["openAPIV3Schema"]["properties"][part], part, &mut found);
        }
        assert_eq!(found, Vec::<String>::new(), "{}", crd.spec.names.kind);
    }
}

#[test]
fn no_field_may_be_null_and_no_number_has_a_format_that_kubernetes_does_not_know() {
    for crd in crds() {
        let text = serde_json::to_string(&crd).unwrap();
        for bad in ["nullable", "uint", "\"format\":\"float\""] {
            assert!(!text.contains(bad), "{bad} in {}", crd.spec.names.kind);
        }
    }
}
