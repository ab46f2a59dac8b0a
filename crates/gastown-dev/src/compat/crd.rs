//! Changes of a CustomResourceDefinition that break objects which are stored already, or a controller
//! of the earlier version: that one reads and writes objects under the newer definition.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::found::Break;

/// Keywords that only people read.
const FOR_PEOPLE: [&str; 4] = ["description", "title", "example", "externalDocs"];
/// Bounds that may be raised or dropped, but not lowered or introduced.
const UPPER: [&str; 4] = ["maximum", "maxLength", "maxItems", "maxProperties"];
/// Bounds that may be lowered or dropped, but not raised or introduced.
const LOWER: [&str; 4] = ["minimum", "minLength", "minItems", "minProperties"];

/// What of the definition `old` is not as it was among today's.
pub fn breaks<'a>(old: &Value, today: impl Iterator<Item = &'a Value>) -> Vec<Break> {
    let name = |crd: &Value| crd["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let kind = old["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
    let Some(new) = today.into_iter().find(|crd| name(crd) == name(old)) else {
        return vec![Break::new(name(old), "the definition is gone")];
    };
    let mut found = Vec::new();
    let (before, after) = (&old["spec"], &new["spec"]);
    for field in ["group", "scope", "preserveUnknownFields", "conversion"] {
        if before[field] != after[field] {
            let what = format!("{field} was {} and is {}", before[field], after[field]);
            found.push(Break::new(&kind, what));
        }
    }
    names(&kind, &before["names"], &after["names"], &mut found);
    for version in list(&before["versions"]) {
        let name = version["name"].as_str().unwrap_or_default();
        let at = format!("{kind} {name}");
        match list(&after["versions"]).iter().find(|v| v["name"] == *name) {
            Some(now) => served(&at, version, now, &mut found),
            None => found.push(Break::new(at, "the version is gone")),
        }
    }
    found
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn names(kind: &str, old: &Value, new: &Value, found: &mut Vec<Break>) {
    for field in ["kind", "plural", "singular", "listKind"] {
        if old[field] != new[field] {
            let what = format!("names.{field} was {} and is {}", old[field], new[field]);
            found.push(Break::new(kind, what));
        }
    }
    for field in ["shortNames", "categories"] {
        for name in list(&old[field]).iter().filter(|name| !list(&new[field]).contains(name)) {
            found.push(Break::new(kind, format!("names.{field} has no {name} any more")));
        }
    }
}

fn served(at: &str, old: &Value, new: &Value, found: &mut Vec<Break>) {
    if old["served"] == true && new["served"] != true {
        found.push(Break::new(at, "the version is not served any more"));
    }
    if old["storage"] != new["storage"] {
        found.push(Break::new(at, "objects are stored in another version"));
    }
    for subresource in old["subresources"].as_object().into_iter().flatten().map(|(name, _)| name) {
        if old["subresources"][subresource] != new["subresources"][subresource] {
            found.push(Break::new(at, format!("the subresource {subresource} has changed")));
        }
    }
    for field in list(&old["selectableFields"]) {
        if !list(&new["selectableFields"]).contains(field) {
            let what = format!("objects cannot be selected by {} any more", field["jsonPath"]);
            found.push(Break::new(at, what));
        }
    }
    let path = |crd: &Value| crd["schema"]["openAPIV3Schema"].clone();
    schema(&format!("{at} "), &path(old), &path(new), found);
}

/// Compares two schemas, keyword by keyword; one that this code does not know must be the same.
fn schema(at: &str, old: &Value, new: &Value, found: &mut Vec<Break>) {
    let empty = Map::new();
    let (before, after) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let keywords: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let place = at.trim_end();
    for keyword in keywords {
        let (was, is) = (&old[keyword.as_str()], &new[keyword.as_str()]);
        if was == is || FOR_PEOPLE.contains(&keyword.as_str()) {
            continue;
        }
        match keyword.as_str() {
            "properties" => properties(at, was, is, new, found),
            "required" => required(at, was, is, &old["properties"], &new["properties"], found),
            "items" => schema(&format!("{at}[]"), was, is, found),
            "additionalProperties" if was.is_object() && is.is_object() => {
                schema(&format!("{at}.*"), was, is, found);
            }
            "enum" => values(place, was, is, found),
            "x-kubernetes-validations" => rules(place, was, is, found),
            bound if UPPER.contains(&bound) || LOWER.contains(&bound) => {
                let order = |value: &Value| value.as_f64();
                let is_narrower = match (order(was), order(is)) {
                    (_, None) => false,
                    (None, Some(_)) => true,
                    (Some(was), Some(is)) => (is < was) == UPPER.contains(&bound),
                };
                if is_narrower {
                    found.push(Break::new(place, changed(bound, was, is)));
                }
            }
            // Dropped, it refuses less.
            "pattern" if is.is_null() => {}
            other => found.push(Break::new(place, changed(other, was, is))),
        }
    }
}

fn changed(keyword: &str, was: &Value, is: &Value) -> String {
    match (was, is) {
        (Value::Null, is) => format!("{keyword} is new: {is}"),
        (was, Value::Null) => format!("{keyword} {was} is gone"),
        (was, is) => format!("{keyword} was {was} and is {is}"),
    }
}

fn properties(at: &str, old: &Value, new: &Value, parent: &Value, found: &mut Vec<Break>) {
    let keeps_all = parent["x-kubernetes-preserve-unknown-fields"] == true;
    for (name, was) in old.as_object().into_iter().flatten() {
        let path = format!("{at}.{name}");
        match new.get(name) {
            Some(is) => schema(&path, was, is, found),
            None if keeps_all => {}
            None => found.push(Break::new(path, "the field is gone")),
        }
    }
}

/// A field that is newly required must have a default, which old objects and old controllers get. One
/// that is required no more may be missing for a controller that cannot do without it.
fn required(
    at: &str,
    old: &Value,
    new: &Value,
    old_fields: &Value,
    new_fields: &Value,
    found: &mut Vec<Break>,
) {
    for name in list(new).iter().filter(|name| !list(old).contains(name)) {
        let name = name.as_str().unwrap_or_default();
        if new_fields[name].get("default").is_none() {
            found.push(Break::new(format!("{at}.{name}"), "the field is newly required"));
        }
    }
    for name in list(old).iter().filter(|name| !list(new).contains(name)) {
        let name = name.as_str().unwrap_or_default();
        if old_fields[name].get("default").is_none() {
            found.push(Break::new(format!("{at}.{name}"), "the field is not required any more"));
        }
    }
}

fn values(at: &str, old: &Value, new: &Value, found: &mut Vec<Break>) {
    if old.is_null() {
        found.push(Break::new(at, format!("enum is new: {new}")));
    }
    if !new.is_null() {
        for value in list(old).iter().filter(|value| !list(new).contains(value)) {
            found.push(Break::new(at, format!("the value {value} is gone")));
        }
    }
}

/// A rule that an object may break which was valid before. Messages may change.
fn rules(at: &str, old: &Value, new: &Value, found: &mut Vec<Break>) {
    let rule = |entry: &Value| {
        let mut entry = entry.clone();
        if let Some(fields) = entry.as_object_mut() {
            for field in ["message", "messageExpression", "reason", "fieldPath"] {
                fields.remove(field);
            }
        }
        entry
    };
    let before: Vec<Value> = list(old).iter().map(rule).collect();
    for entry in list(new).iter().map(rule).filter(|entry| !before.contains(entry)) {
        let text = entry["rule"].as_str().unwrap_or_default();
        found.push(Break::new(at, format!("the rule is new: {text}")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn before() -> Value {
        json!({ "metadata": { "name": "pumps.t" }, "spec": {
            "group": "t", "scope": "Namespaced",
            "names": { "kind": "Pump", "plural": "pumps", "singular": "pump", "shortNames": ["pu"], "categories": ["all"] },
            "versions": [{ "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "selectableFields": [{ "jsonPath": ".spec.rig" }],
                "schema": { "openAPIV3Schema": { "type": "object", "required": ["spec"], "properties": {
                    "spec": { "type": "object", "required": ["rig"],
                        "x-kubernetes-validations": [{ "rule": "self.a == oldSelf.a", "message": "m" }],
                        "properties": {
                            "rig": { "type": "string", "maxLength": 10, "minLength": 1, "pattern": "^a", "description": "d" },
                            "size": { "type": "integer", "minimum": 1, "maximum": 9, "default": 2 },
                            "mode": { "type": "string", "enum": ["A", "B"] },
                            "tags": { "type": "array", "maxItems": 4, "x-kubernetes-list-type": "set", "items": { "type": "string" } },
                            "map": { "type": "object", "additionalProperties": { "type": "integer" } }
                        } },
                    "status": { "type": "object", "properties": { "phase": { "type": "string", "enum": ["A"] } } }
                } } } }]
        } })
    }

    const SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";

    fn found(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut after = before();
        change(&mut after);
        breaks(&before(), [&after].into_iter()).iter().map(ToString::to_string).collect()
    }

    /// The breaks after the value at a pointer below `spec` became another; null removes it.
    fn set(pointer: &str, value: Value) -> Vec<String> {
        found(|crd| {
            let pointer = if pointer.starts_with("/spec/") {
                pointer.to_owned()
            } else {
                format!("{SPEC}{pointer}")
            };
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            match crd.pointer_mut(parent).unwrap() {
                Value::Object(fields) if value.is_null() => drop(fields.remove(key)),
                Value::Object(fields) => drop(fields.insert(key.to_owned(), value)),
                Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
                _ => panic!("{pointer}"),
            }
        })
    }

    #[test]
    fn what_is_added_or_widened_breaks_nothing() {
        let none = Vec::<String>::new();
        assert_eq!(found(|_| ()), none);
        assert_eq!(set("/properties/more", json!({ "type": "string", "maxLength": 3 })), none);
        assert_eq!(set("/properties/rig/maxLength", json!(20)), none);
        assert_eq!(set("/properties/rig/minLength", json!(0)), none);
        assert_eq!(set("/properties/rig/pattern", Value::Null), none);
        assert_eq!(set("/properties/rig/description", json!("other")), none);
        assert_eq!(set("/properties/size/maximum", Value::Null), none);
        assert_eq!(set("/properties/mode/enum", json!(["B", "C", "A"])), none);
        assert_eq!(set("/x-kubernetes-validations/0/message", json!("better")), none);
        assert_eq!(set("/x-kubernetes-validations", Value::Null), none);
        assert_eq!(set("/required", json!(["rig", "size"])), none, "it has a default");
        assert_eq!(set("/spec/names/shortNames", json!(["pu", "pp"])), none);
    }

    #[test]
    fn each_kind_of_break_is_found() {
        let table = [
            ("/spec/group", json!("u"), r#"Pump: group was "t" and is "u""#),
            ("/spec/scope", json!("Cluster"), r#"Pump: scope was "Namespaced" and is "Cluster""#),
            ("/spec/names/singular", json!("p"), r#"Pump: names.singular was "pump" and is "p""#),
            ("/spec/names/shortNames", json!([]), r#"Pump: names.shortNames has no "pu" any more"#),
            ("/spec/versions/0/name", json!("v2"), "Pump v1: the version is gone"),
            (
                "/spec/versions/0/served",
                json!(false),
                "Pump v1: the version is not served any more",
            ),
            (
                "/spec/versions/0/storage",
                json!(false),
                "Pump v1: objects are stored in another version",
            ),
            (
                "/spec/versions/0/subresources",
                Value::Null,
                "Pump v1: the subresource status has changed",
            ),
            (
                "/spec/versions/0/selectableFields",
                json!([]),
                r#"Pump v1: objects cannot be selected by ".spec.rig" any more"#,
            ),
            ("/properties/size", Value::Null, "Pump v1 .spec.size: the field is gone"),
            (
                "/properties/size/type",
                json!("string"),
                r#"Pump v1 .spec.size: type was "integer" and is "string""#,
            ),
            (
                "/required",
                json!(["rig", "mode"]),
                "Pump v1 .spec.mode: the field is newly required",
            ),
            ("/required", json!([]), "Pump v1 .spec.rig: the field is not required any more"),
            ("/properties/mode/enum", json!(["A"]), r#"Pump v1 .spec.mode: the value "B" is gone"#),
            ("/properties/rig/enum", json!(["a"]), r#"Pump v1 .spec.rig: enum is new: ["a"]"#),
            (
                "/properties/rig/pattern",
                json!("^b"),
                r#"Pump v1 .spec.rig: pattern was "^a" and is "^b""#,
            ),
            (
                "/properties/mode/pattern",
                json!("^b"),
                r#"Pump v1 .spec.mode: pattern is new: "^b""#,
            ),
            ("/properties/rig/maxLength", json!(9), "Pump v1 .spec.rig: maxLength was 10 and is 9"),
            ("/properties/rig/minLength", json!(2), "Pump v1 .spec.rig: minLength was 1 and is 2"),
            ("/properties/mode/maxLength", json!(9), "Pump v1 .spec.mode: maxLength is new: 9"),
            ("/properties/size/minimum", json!(2), "Pump v1 .spec.size: minimum was 1 and is 2"),
            ("/properties/size/maximum", json!(8), "Pump v1 .spec.size: maximum was 9 and is 8"),
            ("/properties/size/default", json!(3), "Pump v1 .spec.size: default was 2 and is 3"),
            ("/properties/rig/default", json!("a"), r#"Pump v1 .spec.rig: default is new: "a""#),
            ("/properties/tags/maxItems", json!(3), "Pump v1 .spec.tags: maxItems was 4 and is 3"),
            (
                "/properties/tags/items/maxLength",
                json!(3),
                "Pump v1 .spec.tags[]: maxLength is new: 3",
            ),
            (
                "/properties/tags/x-kubernetes-list-type",
                json!("atomic"),
                r#"Pump v1 .spec.tags: x-kubernetes-list-type was "set" and is "atomic""#,
            ),
            (
                "/properties/tags/x-kubernetes-list-map-keys",
                json!(["a"]),
                r#"Pump v1 .spec.tags: x-kubernetes-list-map-keys is new: ["a"]"#,
            ),
            (
                "/properties/map/additionalProperties/type",
                json!("string"),
                r#"Pump v1 .spec.map.*: type was "integer" and is "string""#,
            ),
            (
                "/properties/map/additionalProperties",
                Value::Null,
                r#"Pump v1 .spec.map: additionalProperties {"type":"integer"} is gone"#,
            ),
            ("/properties/rig/format", json!("uri"), r#"Pump v1 .spec.rig: format is new: "uri""#),
            (
                "/x-kubernetes-validations/0/rule",
                json!("self.b"),
                "Pump v1 .spec: the rule is new: self.b",
            ),
            (
                "/properties/rig/x-kubernetes-validations",
                json!([{ "rule": "self != ''" }]),
                "Pump v1 .spec.rig: the rule is new: self != ''",
            ),
            (
                "/properties/rig/futureKeyword",
                json!(1),
                "Pump v1 .spec.rig: futureKeyword is new: 1",
            ),
        ];
        for (pointer, value, wanted) in table {
            let found = set(pointer, value);
            assert!(found.iter().any(|f| f == wanted), "{pointer}: {found:?}");
        }
        let status = found(|crd| {
            let at = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
            crd.pointer_mut(at).unwrap().as_object_mut().unwrap().remove("phase");
        });
        assert_eq!(status, ["Pump v1 .status.phase: the field is gone"]);
        let gone = breaks(&before(), std::iter::empty());
        assert_eq!(gone, [Break::new("pumps.t", "the definition is gone")]);
    }
}
