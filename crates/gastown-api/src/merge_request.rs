use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// One commit that waits to be tested and landed.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gastown.gastown.io",
    version = "v1alpha1",
    kind = "MergeRequest",
    plural = "mergerequests",
    shortname = "mr",
    category = "gastown",
    namespaced,
    status = "MergeRequestStatus",
    derive = "PartialEq",
    doc = "MergeRequest is one commit that waits to be tested and landed.",
    selectable = ".spec.rigRef",
    selectable = ".spec.beadID",
    printcolumn(name = "Rig", type_ = "string", json_path = ".spec.rigRef"),
    printcolumn(name = "Branch", type_ = "string", json_path = ".spec.sourceBranch"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Pos", type_ = "integer", json_path = ".status.position"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = immutable()))]
pub struct MergeRequestSpec {
    /// Name of the rig whose Refinery lands the commit. Immutable.
    #[schemars(length(min = 1, max = 253))]
    pub rig_ref: String,
    /// Branch on the remote that contains the commit. Immutable.
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub source_branch: String,
    /// The commit that is to land: 40 or 64 hexadecimal digits. Immutable.
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::commit()))]
    pub commit: String,
    /// Branch that the commit is to land on. Immutable.
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub target_branch: String,
    /// The Polecat that made the commit. A failed request goes back to it as a rework. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polecat_ref: Option<PolecatReference>,
    /// Number of the attempt of the Polecat that made the commit, from 1. Immutable. Defaults to 1.
    #[serde(default = "first")]
    #[schemars(range(min = 1))]
    pub attempt: i32,
    /// Name of the MergeRequest that this one replaces. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub previous: Option<String>,
    /// Id of the bead that the landing closes. Immutable.
    #[serde(default, rename = "beadID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255), extend("x-kubernetes-validations" = schema::bead_id()))]
    pub bead_id: Option<String>,
    /// Order in the queue, from 0 (first) to 4 (last). Age counts too. Defaults to 2.
    #[serde(default = "default_priority")]
    #[schemars(range(min = 0, max = 4))]
    pub priority: i32,
    /// Set by a person: whether the request is held back. It stays in the queue and is neither
    /// tested nor landed. Defaults to false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// Set by a person: add 1 to test a request again that went back to its author or was rejected.
    /// Defaults to 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub retry: i32,
    /// Set by a person: who rejects the request, and why. It is not landed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejection>,
}

fn first() -> i32 {
    1
}

fn default_priority() -> i32 {
    2
}

/// A request is about one commit: another commit is another request.
fn immutable() -> serde_json::Value {
    let fields = [
        "rigRef",
        "sourceBranch",
        "commit",
        "targetBranch",
        "polecatRef",
        "attempt",
        "previous",
        "beadID",
    ];
    let rule = |f: &&str| {
        serde_json::json!({
            "rule": format!("has(self.{f}) == has(oldSelf.{f}) && (!has(self.{f}) || self.{f} == oldSelf.{f})"),
            "message": format!("spec.{f} is immutable: make a new MergeRequest"),
        })
    };
    fields.iter().map(rule).collect()
}

/// The Polecat that made a request's commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolecatReference {
    /// Name of the Polecat, in the request's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Uid of the Polecat: a later Polecat of the same name is another author.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// Who rejects a request, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejection {
    /// Name of the person who rejects the request.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
    /// Why the request is rejected, as text for people.
    #[schemars(length(max = 4096))]
    pub reason: String,
}

/// The observed state of a MergeRequest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MergeRequestStatus {
    /// Where the request is on its way to the target branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MergePhase>,
    /// Why the request is in this phase, as one CamelCase word. The condition `Ready` has the
    /// sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// Place in the queue, from 1. Absent when the request does not wait. It is at least the true
    /// place and at most twice that, so that a queue that moves up by one does not rewrite every
    /// request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<i32>,
    /// The commit that passed the gate. Absent when there is no gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub tested_commit: Option<String>,
    /// The commit that the target branch was moved to. When a gate ran, it equals `testedCommit`.
    /// With reason `AlreadyInTarget` it is the target branch's tip, which has all of the changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub landed_commit: Option<String>,
    /// Time at which the request entered the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub queued_at: Option<Time>,
    /// Time at which the last run of the gate was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_testing_at: Option<Time>,
    /// Time at which the commit was seen on the target branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub landed_at: Option<Time>,
    /// Time at which the request landed, went back to its author, was rejected or was superseded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finished_at: Option<Time>,
    /// Id of the OpenTelemetry trace that the request belongs to, that of its author's life: 32
    /// hexadecimal digits.
    #[serde(default, rename = "traceID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub trace_id: Option<String>,
    /// The last 8 runs of the gate and tries to land, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub attempts: Vec<MergeAttempt>,
    /// Conditions, keyed by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

impl MergeRequestStatus {
    /// How many [`MergeAttempt`]s a status lists.
    pub const MAX_ATTEMPTS: usize = 8;
}

impl MergeAttempt {
    /// How many characters of evidence an attempt keeps.
    pub const MAX_EVIDENCE: usize = 4096;
}

/// Where a request is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum MergePhase {
    /// The request waits for its turn or for something that is missing.
    Queued,
    /// The gate runs on the request's commit, or has passed and the landing follows.
    Testing,
    /// The commit is on the target branch.
    Landed,
    /// The request went back to its author, with the evidence in `attempts`.
    Rework,
    /// The request will not land.
    Rejected,
    /// A newer commit of the same branch replaces this one.
    Superseded,
    /// A value of a later version. It is read, and never written.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// One run of the gate on a request, or one try to land it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MergeAttempt {
    /// Number of this attempt, from 1.
    #[schemars(range(min = 1))]
    pub number: i32,
    /// Commit of the request at that time.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub commit: String,
    /// The tip of the target branch that the candidate was built on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub base: String,
    /// The commit that was built and tested. It equals `base` when the target branch was tested
    /// alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub candidate: Option<String>,
    /// The result: `Passed`, `Failed`, `Broken` (the cluster broke the run, nobody is blamed) or
    /// the reason of a rework such as `Conflict`. Absent while the gate runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub result: Option<String>,
    /// Why, as one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// Name of the gate that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub gate: Option<String>,
    /// The end of the gate's output, or the paths in conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub evidence: Option<String>,
    /// Name of the gate's Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub job: Option<String>,
    /// Time at which the attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<Time>,
    /// Time at which the attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finished_at: Option<Time>,
}
