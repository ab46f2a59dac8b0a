use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Beads that belong together and are followed until all are done.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gastown.gastown.io",
    version = "v1alpha1",
    kind = "Convoy",
    plural = "convoys",
    shortname = "cv",
    category = "gastown",
    namespaced,
    status = "ConvoyStatus",
    derive = "PartialEq",
    doc = "Convoy is a set of beads that is followed until all of them are done.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ConvoySpec {
    /// What it is for.
    #[schemars(length(min = 1, max = 4096))]
    pub description: String,
    /// The beads that it follows.
    #[schemars(schema_with = "schema::bead_ids")]
    pub tracked_beads: Vec<String>,
    /// How many of them may be worked on at a time; 0 is without a limit.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub parallelism: i32,
    /// The rig that they belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub rig_ref: Option<String>,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConvoyStatus {
    /// The convoy as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Pending"))]
    pub phase: Option<ConvoyPhase>,
    /// `done/total`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub progress: Option<String>,
    /// Beads that are done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 255)))]
    pub completed_beads: Vec<String>,
    /// Beads that are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 255)))]
    pub pending_beads: Vec<String>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<Time>,
    /// When the last bead was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub completed_at: Option<Time>,
    /// Details, one of a type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A convoy as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConvoyPhase {
    /// Not looked at yet.
    Pending,
    /// Some beads are not done.
    InProgress,
    /// All beads are done.
    Complete,
    /// Nothing can move any more.
    Failed,
}
