//! Manifests and statuses with every field, through the API server and our types and back.

use futures::future::join_all;
use gastown_api::{
    BeadStore, Convoy, Escalation, GateRun, MergeRequest, Polecat, Refinery, Rig, Witness,
};
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::fixture::{Fixture, polecat, with};

const MANIFESTS: [&str; 2] =
    [include_str!("../fixtures/go-operator.yaml"), include_str!("../fixtures/additions.yaml")];
const STATUSES: &str = include_str!("../fixtures/statuses.yaml");

fn manifests() -> Vec<Value> {
    MANIFESTS.iter().flat_map(|text| serde_saphyr::from_multiple::<Value>(text).unwrap()).collect()
}

/// The object as our types write it again.
fn again(object: &Value) -> Value {
    fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(object.clone()).unwrap()).unwrap()
    }
    match object["kind"].as_str().unwrap() {
        "Rig" => through::<Rig>(object),
        "Polecat" => through::<Polecat>(object),
        "Convoy" => through::<Convoy>(object),
        "Escalation" => through::<Escalation>(object),
        "Witness" => through::<Witness>(object),
        "Refinery" => through::<Refinery>(object),
        "BeadStore" => through::<BeadStore>(object),
        "GateRun" => through::<GateRun>(object),
        "MergeRequest" => through::<MergeRequest>(object),
        other => panic!("no kind {other}"),
    }
}

/// Quantities may be written as numbers; our types write them as texts, which mean the same.
fn quantities_as_text(value: &mut Value) {
    let Value::Object(object) = value else {
        value.as_array_mut().into_iter().flatten().for_each(quantities_as_text);
        return;
    };
    for (name, part) in object {
        if ["requests", "limits"].contains(&name.as_str()) {
            part.as_object_mut().into_iter().flatten().for_each(|(_, q)| {
                if q.is_number() {
                    *q = json!(q.to_string());
                }
            });
        } else {
            quantities_as_text(part);
        }
    }
}

#[tokio::test]
async fn every_field_of_every_kind_is_stored_and_read_back() {
    let fixture = Fixture::new().await;
    let statuses: Value = serde_saphyr::from_str(STATUSES).unwrap();
    join_all(manifests().iter().map(|manifest| one_goes_round(&fixture, manifest, &statuses)))
        .await;
}

async fn one_goes_round(fixture: &Fixture, manifest: &Value, statuses: &Value) {
    let mut stored = fixture.apply(manifest).await;
    // Applied again as our types write it, defaults and all, nothing changes.
    let mut same = again(&stored);
    same.as_object_mut().unwrap().remove("status");
    same["metadata"] = json!({ "name": manifest["metadata"]["name"] });
    quantities_as_text(&mut stored["spec"]);
    assert_eq!(
        fixture.apply(&same).await["spec"],
        stored["spec"],
        "{}",
        manifest["metadata"]["name"]
    );
    let wanted = &statuses[manifest["kind"].as_str().unwrap()];
    let written = fixture.apply_status(manifest, wanted).await;
    assert_eq!(&written["status"], wanted);
    assert_eq!(&again(&written)["status"], wanted);
}

#[tokio::test]
async fn another_managers_condition_stays() {
    let fixture = Fixture::new().await;
    let made = fixture.apply(&polecat()).await;
    let condition = |type_: &str| json!({ "type": type_, "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-02T03:04:05Z" });
    fixture.apply_status(&made, &json!({ "conditions": [condition("Ready")] })).await;
    let api: Api<Polecat> = Api::namespaced(fixture.client(), fixture.namespace());
    let body = json!({
        "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "Polecat", "status": { "conditions": [condition("Merged")] },
    });
    let params = kube::api::PatchParams::apply("another-controller");
    let both =
        api.patch_status("x-polecat", &params, &kube::api::Patch::Apply(&body)).await.unwrap();
    let types: Vec<_> = both.status.unwrap().conditions.into_iter().map(|c| c.type_).collect();
    assert_eq!(types, ["Ready", "Merged"]);
}

#[tokio::test]
async fn whatever_the_schema_takes_the_types_read() {
    let fixture = Fixture::new().await;
    let odd = [
        with(
            polecat(),
            "spec/kubernetes/affinity",
            json!({ "nodeAffinity": 7, "x": [1, "a", null] }),
        ),
        with(
            polecat(),
            "spec/kubernetes/volumes",
            json!([{ "name": "v", "configMap": { "name": 5, "items": "no" } }]),
        ),
        with(
            polecat(),
            "spec/resources",
            json!({ "requests": { "memory": 4_294_967_296_u64 }, "limits": {} }),
        ),
        with(polecat(), "spec/kubernetes/tolerations", json!([{}])),
        with(polecat(), "spec/budget", json!({ "maxCostUSD": 5, "maxTokens": i64::MAX })),
    ];
    for (i, object) in odd.into_iter().enumerate() {
        fixture.apply(&with(object, "metadata/name", json!(format!("odd-{i}")))).await;
    }
    let api: Api<DeserializeGuard<Polecat>> =
        Api::namespaced(fixture.client(), fixture.namespace());
    let all = api.list(&ListParams::default()).await.unwrap();
    assert_eq!(all.items.len(), 5);
    for read in all {
        assert!(read.0.is_ok(), "{:?}", read.0.err());
    }
}
