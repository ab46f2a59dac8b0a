use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::shared::ObjectName;

/// Where a rig's beads are kept.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gastown.gastown.io",
    version = "v1alpha1",
    kind = "BeadStore",
    plural = "beadstores",
    shortname = "bs",
    category = "gastown",
    namespaced,
    status = "BeadStoreStatus",
    derive = "PartialEq",
    doc = "BeadStore is where a rig's beads are kept.",
    printcolumn(name = "Rig", type_ = "string", json_path = ".spec.rigRef"),
    printcolumn(name = "Prefix", type_ = "string", json_path = ".spec.prefix"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Issues", type_ = "integer", json_path = ".status.issueCount"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BeadStoreSpec {
    /// The rig whose beads it keeps.
    #[schemars(length(min = 1, max = 253))]
    pub rig_ref: String,
    /// What its ids begin with, with or without the hyphen that follows.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^[a-z][a-z0-9_.-]*-?$')",
        "prefix must begin with a lowercase letter and hold lowercase letters, digits, `_`, `.` and `-`, such as gt-",
    )])))]
    pub prefix: String,
    /// Credentials for the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_secret_ref: Option<ObjectName>,
    /// How often it is read again.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub sync_interval: String,
}

fn default_interval() -> String {
    "5m".to_owned()
}

/// What was read last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BeadStoreStatus {
    /// The store as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BeadStorePhase>,
    /// When it was read last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_sync_time: Option<Time>,
    /// How many beads it holds.
    #[serde(default)]
    pub issue_count: i32,
    /// Details, one of a type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A store as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BeadStorePhase {
    /// Not read yet.
    Pending,
    /// Read.
    Synced,
    /// Reading failed.
    Error,
}
