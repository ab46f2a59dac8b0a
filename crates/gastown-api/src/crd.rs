use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{BeadStore, Convoy, Escalation, MergeRequest, Polecat, Refinery, Rig, Witness};

/// The definitions of all kinds, as they are installed.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let all = [
        Rig::crd(),
        Polecat::crd(),
        Convoy::crd(),
        Witness::crd(),
        Refinery::crd(),
        BeadStore::crd(),
        MergeRequest::crd(),
        Escalation::crd(),
    ];
    all.into_iter().map(tidy).collect()
}

/// Makes a derived definition say what the API server should do with what is absent: a null counts
/// as absent (then a default applies), and false, an empty list or an empty text is not written
/// into objects that do not have it.
fn tidy(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let Ok(mut value) = serde_json::to_value(&crd) else { return crd };
    if let Some(schema) = value.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        tidy_schema(schema);
        if let Some(status) = schema.pointer_mut("/properties/status") {
            drop_zeros(status);
        }
    }
    serde_json::from_value(value).unwrap_or(crd)
}

fn tidy_schema(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.remove("nullable");
            if object.get("default").is_some_and(is_nothing) && object.contains_key("type") {
                object.remove("default");
            }
            object.values_mut().for_each(tidy_schema);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy_schema),
        _ => {}
    }
}

/// A counter of a status that nobody wrote is not 0 but unknown.
fn drop_zeros(schema: &mut Value) {
    if let Value::Object(object) = schema {
        if object.get("default").and_then(Value::as_f64) == Some(0.0) {
            object.remove("default");
        }
        object.values_mut().for_each(drop_zeros);
    }
}

fn is_nothing(default: &Value) -> bool {
    match default {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}
