use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{BeadStore, Convoy, MergeRequest, Polecat, Refinery, Rig, Witness};

/// The definitions of all kinds, as they are installed.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let all = [Rig::crd(), Polecat::crd(), Convoy::crd(), Witness::crd(), Refinery::crd(), BeadStore::crd(), MergeRequest::crd()];
    all.into_iter().map(tidy).collect()
}

/// Makes a derived definition say what the API server should do with what is absent: a null counts as absent (then a
/// default applies), and a zero value is not written into objects that do not have it.
fn tidy(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let Ok(mut value) = serde_json::to_value(&crd) else { return crd };
    if let Some(schema) = value.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        tidy_schema(schema);
    }
    serde_json::from_value(value).unwrap_or(crd)
}

fn tidy_schema(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.remove("nullable");
            if object.get("default").is_some_and(is_zero) && object.contains_key("type") {
                object.remove("default");
            }
            object.values_mut().for_each(tidy_schema);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy_schema),
        _ => {}
    }
}

fn is_zero(default: &Value) -> bool {
    match default {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty() || o.values().all(is_zero),
    }
}
