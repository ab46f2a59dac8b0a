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
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("!has(self.dispatch) || !self.dispatch || (has(self.rigRef) && self.rigRef != '')",
     "spec.rigRef is required when spec.dispatch is true: name the rig whose polecats are to do the beads"),
])))]
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
    /// Start a Polecat for each bead when nothing blocks it; otherwise the beads are only followed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dispatch: bool,
    /// What a failed bead means for those that are not started yet.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
    /// Nothing more is started; what runs goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// What a failed bead means for those that are not started yet.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum FailurePolicy {
    /// What does not depend on it is started.
    #[default]
    Continue,
    /// Nothing more is started.
    Stop,
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
    /// Each bead; of a large convoy those that are not done, as many as there is room for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub beads: Vec<ConvoyBead>,
    /// Beads that are set aside because their Polecat stopped or their work was rejected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 255)))]
    pub failed_beads: Vec<String>,
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

impl ConvoyStatus {
    /// How many beads are told of one by one: the object stays far below what the API server takes.
    pub const MAX_BEADS: usize = 200;
}

/// One bead of a convoy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConvoyBead {
    /// Its id.
    #[schemars(length(max = 255))]
    pub id: String,
    /// Where it is.
    pub phase: ConvoyBeadPhase,
    /// The Polecat that works on it: its name, or namespace/name where that is not the convoy's
    /// namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub polecat: Option<String>,
    /// The MergeRequest of its work, named in the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub merge_request: Option<String>,
    /// Why it is there: a word, and what it waits for after a colon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub reason: Option<String>,
}

/// Where a bead of a convoy is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ConvoyBeadPhase {
    /// Nobody could tell: the store was not read, or does not hold it.
    Unknown,
    /// Open, and nobody works on it.
    Open,
    /// It waits for other beads.
    Blocked,
    /// Nothing blocks it; it waits for its turn.
    Ready,
    /// A Polecat has it.
    Working,
    /// Its work is finished and has not landed.
    Submitted,
    /// It counts.
    Done,
    /// It is set aside.
    Failed,
}

/// A convoy as a whole.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
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
