use k8s_openapi::api::core::v1::{ResourceRequirements, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::schema;
use crate::shared::JsonObject;

/// A volume of a pod. Only kinds that give no access to the node are allowed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
    "[has(self.emptyDir), has(self.configMap), has(self.secret), has(self.projected), has(self.persistentVolumeClaim)].filter(k, k).size() == 1",
    "volumes[] must have exactly one of emptyDir, configMap, secret, projected, persistentVolumeClaim; other kinds, such as hostPath, are not allowed",
)])))]
pub struct PodVolume {
    /// Name of the volume, for `volumeMounts`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// An empty directory that lives as long as the pod, as in a pod's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub empty_dir: Option<JsonObject>,
    /// The files of a ConfigMap, as in a pod's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub config_map: Option<JsonObject>,
    /// The files of a Secret, as in a pod's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub secret: Option<JsonObject>,
    /// Files of several ConfigMaps, Secrets and fields of the pod. Service-account tokens are not
    /// allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projected: Option<ProjectedVolume>,
    /// A PersistentVolumeClaim in the same namespace, as in a pod's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub persistent_volume_claim: Option<JsonObject>,
}

/// A projected volume. A service-account token is not among its sources, because it would
/// authenticate the pod, not the agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProjectedVolume {
    /// Mode bits of the files, as a decimal number. By default 420 (0644).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 511))]
    pub default_mode: Option<i32>,
    /// The ConfigMaps, Secrets and fields of the pod that the files come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub sources: Vec<ProjectedSource>,
}

/// One source of a projected volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
    "[has(self.configMap), has(self.secret), has(self.downwardAPI)].filter(k, k).size() == 1",
    "projected.sources[] must have exactly one of configMap, secret, downwardAPI; service-account tokens are not allowed",
)])))]
pub struct ProjectedSource {
    /// Keys of a ConfigMap, as in a pod's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub config_map: Option<JsonObject>,
    /// Keys of a Secret, as in a pod's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub secret: Option<JsonObject>,
    /// Fields of the pod, as in a pod's spec.
    #[serde(default, rename = "downwardAPI", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub downward_api: Option<JsonObject>,
}

impl PodVolume {
    /// The volume for a pod's spec; an error when what the user wrote is not a valid volume.
    pub fn to_volume(&self) -> Result<Volume, serde_json::Error> {
        serde_json::to_value(self).and_then(serde_json::from_value)
    }
}

/// Reads requests and limits whose quantities may be written as numbers, which the API server keeps
/// as they are and the ordinary type does not read.
pub fn resources<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<ResourceRequirements>, D::Error> {
    let Some(mut object) = Option::<JsonObject>::deserialize(from)? else { return Ok(None) };
    for list in ["requests", "limits"] {
        for quantity in object
            .get_mut(list)
            .and_then(Value::as_object_mut)
            .into_iter()
            .flat_map(|m| m.values_mut())
        {
            if let Value::Number(n) = quantity {
                *quantity = Value::String(Quantity(n.to_string()).0);
            }
        }
    }
    serde_json::from_value(Value::Object(object)).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_written_as_numbers_read_as_text() {
        let read = resources(json!({ "requests": { "cpu": 1, "memory": 4_294_967_296_u64 }, "limits": { "cpu": "2" } })).unwrap().unwrap();
        assert_eq!(read.requests.unwrap()["memory"].0, "4294967296");
        assert_eq!(read.limits.unwrap()["cpu"].0, "2");
        assert!(resources(json!(null)).unwrap().is_none());
    }

    #[test]
    fn a_volume_becomes_a_pods_volume_or_an_error() {
        let good: PodVolume = serde_json::from_value(
            json!({ "name": "c", "configMap": { "name": "x", "optional": true } }),
        )
        .unwrap();
        assert_eq!(good.to_volume().unwrap().config_map.unwrap().name, "x");
        let bad: PodVolume =
            serde_json::from_value(json!({ "name": "c", "configMap": { "items": 7 } })).unwrap();
        assert!(bad.to_volume().is_err());
    }
}
