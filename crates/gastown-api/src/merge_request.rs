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
    /// The rig that it belongs to.
    #[schemars(length(min = 1, max = 253))]
    pub rig_ref: String,
    /// The branch that holds the commit.
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub source_branch: String,
    /// What is to land: 40 or 64 hexadecimal digits.
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::commit()))]
    pub commit: String,
    /// Where it is to land.
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub target_branch: String,
    /// Its author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polecat_ref: Option<PolecatReference>,
    /// Which attempt of its author it is, from 1.
    #[serde(default = "first")]
    #[schemars(range(min = 1))]
    pub attempt: i32,
    /// The request that this one replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub previous: Option<String>,
    /// The bead that it closes.
    #[serde(default, rename = "beadID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255), extend("x-kubernetes-validations" = schema::bead_id()))]
    pub bead_id: Option<String>,
    /// 0 is the most urgent, 4 the least.
    #[serde(default = "default_priority")]
    #[schemars(range(min = 0, max = 4))]
    pub priority: i32,
    /// A person asks to wait with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// A person counts this up to have it tried again.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub retry: i32,
    /// A person does not want it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejection>,
}

fn first() -> i32 {
    1
}

fn default_priority() -> i32 {
    2
}

/// A request is one commit and one story: another commit is another request.
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

/// The Polecat that wrote a request's commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolecatReference {
    /// Its name, in the request's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its uid: a later Polecat of the same name is another author.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// Who does not want a request, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejection {
    /// Who.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
    /// Why.
    #[schemars(length(max = 4096))]
    pub reason: String,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MergeRequestStatus {
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MergePhase>,
    /// Why, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// Its place in the queue, from 1; absent when it does not wait. Never less than the true place
    /// and at most twice it: a queue that moves up by one does not rewrite everyone behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<i32>,
    /// The commit that passed the gates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub tested_commit: Option<String>,
    /// The commit that the target branch was moved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub landed_commit: Option<String>,
    /// When it was queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub queued_at: Option<Time>,
    /// When its last gate was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_testing_at: Option<Time>,
    /// When it landed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub landed_at: Option<Time>,
    /// The last tries to test or land it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub attempts: Vec<MergeAttempt>,
    /// Details, one of a type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

impl MergeRequestStatus {
    /// How many [`MergeAttempt`]s a status holds.
    pub const MAX_ATTEMPTS: usize = 8;
}

impl MergeAttempt {
    /// How many characters of evidence an attempt holds.
    pub const MAX_EVIDENCE: usize = 4096;
}

/// Where a request is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum MergePhase {
    /// It waits.
    Queued,
    /// A gate runs on it.
    Testing,
    /// It is on the target branch.
    Landed,
    /// It went back to its author with the evidence.
    Rework,
    /// It will not land.
    Rejected,
    /// A newer commit of its branch took its place.
    Superseded,
}

/// One try to test or land a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MergeAttempt {
    /// From 1.
    #[schemars(range(min = 1))]
    pub number: i32,
    /// The request's commit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub commit: String,
    /// The tip of the target branch that it was built on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub base: String,
    /// The commit that was built and tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub candidate: Option<String>,
    /// What came out, in one word; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub result: Option<String>,
    /// Why, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// The gate that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub gate: Option<String>,
    /// The end of the gate's output, or the paths in conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub evidence: Option<String>,
    /// The gate's Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub job: Option<String>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finished_at: Option<Time>,
}
