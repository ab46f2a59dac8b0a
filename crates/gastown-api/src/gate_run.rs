use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// One run of a Refinery's gate on one commit. refinery-ctl alone writes it: a commit counts as
/// tested when a GateRun of it, with the gate's present digest, passed.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gastown.gastown.io",
    version = "v1alpha1",
    kind = "GateRun",
    plural = "gateruns",
    shortname = "gr",
    category = "gastown",
    namespaced,
    status = "GateRunStatus",
    derive = "PartialEq",
    doc = "GateRun is one run of a Refinery's gate on one commit. refinery-ctl writes it; people read it.",
    printcolumn(name = "Refinery", type_ = "string", json_path = ".spec.refineryRef"),
    printcolumn(name = "Candidate", type_ = "string", json_path = ".spec.candidate"),
    printcolumn(name = "Purpose", type_ = "string", json_path = ".spec.purpose"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Members", type_ = "string", json_path = ".spec.members[*].name"),
    printcolumn(name = "Seconds", type_ = "integer", json_path = ".status.runningSeconds"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
    "self == oldSelf",
    "a run is about one commit and one gate: its spec is immutable",
)])))]
pub struct GateRunSpec {
    /// Name of the Refinery, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub refinery_ref: String,
    /// The commit that is tested: 40 or 64 hexadecimal digits.
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::commit()))]
    pub candidate: String,
    /// The tip of the target branch that it was built on. Equal to `candidate` where the target
    /// branch is tested alone.
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::commit()))]
    pub base: String,
    /// Name of the gate.
    #[schemars(length(min = 1, max = 63))]
    pub gate: String,
    /// Digest of all that decides what the gate does. A run with another digest than the Refinery's
    /// present gate has proves nothing.
    #[schemars(length(min = 1, max = 64))]
    pub gate_digest: String,
    /// Why the gate runs.
    pub purpose: GateRunPurpose,
    /// Number of the run among those of its first member, from 1.
    #[schemars(range(min = 1))]
    pub run: i32,
    /// The requests whose commits are in the candidate, or for which the target branch is tested.
    #[schemars(length(min = 1, max = 64))]
    pub members: Vec<GateRunMember>,
}

/// Why a gate runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum GateRunPurpose {
    /// To test a candidate for the first time.
    Test,
    /// To test the target branch alone, after a failure: whether the candidate is to blame.
    Control,
    /// To test a candidate once more, after a failure that may have come by chance.
    Retry,
    /// A purpose of a later version. The run's verdict counts, and the run counts as no retry.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// A request in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GateRunMember {
    /// Namespace of the MergeRequest.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the MergeRequest.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Uid of the MergeRequest: a later one of the same name is another request.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
    /// Commit of the request.
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::commit()))]
    pub commit: String,
}

/// The outcome of a run. Written once, when the run has ended; its Job is deleted after that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateRunStatus {
    /// Whether the run has ended, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<GateRunPhase>,
    /// Exit code of the gate's command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The end of the gate's output, or what broke the run; at most 8 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub evidence: Option<String>,
    /// Name of the run's Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub job: Option<String>,
    /// Name of the Job's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod: Option<String>,
    /// Time at which the gate's command started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<Time>,
    /// Time at which the end of the run was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finished_at: Option<Time>,
    /// Seconds from the beginning of the run to the start of the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_seconds: Option<i64>,
    /// Seconds that the command ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_seconds: Option<i64>,
    /// Conditions, keyed by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

impl GateRunStatus {
    /// How many bytes of evidence a run keeps.
    pub const MAX_EVIDENCE: usize = 8192;
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum GateRunPhase {
    /// It has not ended. No controller writes this: it is what the API server shows of a run
    /// without a status. The MergeRequest states what a run waits for.
    Running,
    /// The command ended with exit code 0.
    Passed,
    /// The command ended with another exit code, or took too long.
    Failed,
    /// Infrastructure ended the run, which blames nobody.
    Broken,
    /// A value of a later version. It is read, and never written.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl GateRun {
    /// How the run ended, if it has.
    pub fn end(&self) -> Option<GateRunPhase> {
        let phase = self.status.as_ref()?.phase?;
        (phase != GateRunPhase::Running).then_some(phase)
    }
}
