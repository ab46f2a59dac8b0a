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
    /// What the convoy is for, as text for people.
    #[schemars(length(min = 1, max = 4096))]
    pub description: String,
    /// Ids of the beads that the convoy tracks.
    #[schemars(schema_with = "schema::bead_ids")]
    pub tracked_beads: Vec<String>,
    /// How many of the beads may be worked on at the same time, with `dispatch`. 0 means no limit
    /// beside the rig's. Defaults to 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub parallelism: i32,
    /// Name of the rig that the beads belong to. Required with `dispatch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub rig_ref: Option<String>,
    /// Whether the convoy creates a Polecat for each bead as soon as nothing blocks it. Otherwise
    /// it only tracks the beads. Defaults to false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dispatch: bool,
    /// What a failed bead means for beads that have not started. Defaults to `Continue`.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
    /// Whether the convoy is suspended: it starts nothing more, and running work goes on. Defaults
    /// to false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// What a failed bead means for beads that have not started.
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
    /// Beads that do not depend on the failed one are started.
    #[default]
    Continue,
    /// No further bead is started.
    Stop,
    /// A value of a later version. Nothing is begun because of it, and a condition names it.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// The observed state of a Convoy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConvoyStatus {
    /// The convoy as a whole. Defaults to `Pending`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Pending"))]
    pub phase: Option<ConvoyPhase>,
    /// Number of done beads and of all beads, as `done/total`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub progress: Option<String>,
    /// Ids of the beads that are done, in the order of `spec.trackedBeads`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 255)))]
    pub completed_beads: Vec<String>,
    /// Ids of the beads that are not done, failed ones included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 255)))]
    pub pending_beads: Vec<String>,
    /// State of each bead, at most 200. In a larger convoy beads that are not done take precedence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub beads: Vec<ConvoyBead>,
    /// Ids of the beads that are set aside because their Polecat gave up or their work was
    /// rejected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 255)))]
    pub failed_beads: Vec<String>,
    /// Time at which the convoy was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<Time>,
    /// Time at which the last bead was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub completed_at: Option<Time>,
    /// Id of the OpenTelemetry trace of the convoy, whose span links to the lives of its Polecats: 32
    /// hexadecimal digits.
    #[serde(default, rename = "traceID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub trace_id: Option<String>,
    /// Conditions, keyed by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

impl ConvoyStatus {
    /// How many beads the status lists. This keeps the object far below the API server's limit.
    pub const MAX_BEADS: usize = 200;
}

/// The state of one bead of a convoy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConvoyBead {
    /// Id of the bead.
    #[schemars(length(max = 255))]
    pub id: String,
    /// Where the bead is on its way to done.
    pub phase: ConvoyBeadPhase,
    /// The Polecat that works on the bead: its name, or `namespace/name` when that is not in the
    /// convoy's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub polecat: Option<String>,
    /// The MergeRequest of the bead's work: its name, or `namespace/name` when that is not in the
    /// convoy's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub merge_request: Option<String>,
    /// Why the bead is in this phase, as one CamelCase word, and what it waits for after a colon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub reason: Option<String>,
}

/// Where a bead of a convoy is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ConvoyBeadPhase {
    /// Nobody works on the bead, and the convoy does not start it as it is.
    Open,
    /// The bead depends on beads that are not done.
    Blocked,
    /// Nothing blocks the bead. It waits for a free place in the convoy or the rig.
    Ready,
    /// A Polecat works on the bead.
    Working,
    /// The work is finished and has not landed yet.
    Submitted,
    /// The bead is closed or its work has landed. Without `dispatch`, a Done Polecat is enough.
    Done,
    /// The bead is set aside: its Polecat gave up or its work was rejected.
    Failed,
    /// The store could not be read or does not contain the bead.
    // A value of a later version reads as this too.
    #[serde(other)]
    Unknown,
}

/// A convoy as a whole.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ConvoyPhase {
    /// convoy-ctl has not looked at the convoy yet.
    Pending,
    /// Some beads are not done.
    InProgress,
    /// All beads are done.
    Complete,
    /// Some beads failed and no other bead can be started.
    Failed,
    /// A value of a later version. It is read, and never written.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}
