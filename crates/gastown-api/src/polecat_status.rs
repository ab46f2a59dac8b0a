use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// The observed state of a Polecat. Every field is absent until its value is known, so that each
/// controller applies its own fields only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolecatStatus {
    /// The observed phase. `spec.desiredState` is the wanted one. Defaults to `Idle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Idle"))]
    pub phase: Option<PolecatPhase>,
    /// The bead that the Polecat works on. Absent while `spec.desiredState` is `Idle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub assigned_bead: Option<String>,
    /// Work branch of the Polecat, once it is on the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 244))]
    pub branch: Option<String>,
    /// The last commit of the work branch that was verified on the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub commit: Option<String>,
    /// The commit of the target branch that the work starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub base_commit: Option<String>,
    /// Name of the pod of the newest attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod_name: Option<String>,
    /// Whether that pod is running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_active: Option<bool>,
    /// Start or end of the newest pod. For the agent's activity while it works see `activity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_activity: Option<Time>,
    /// What the agent is doing, as observed by witness-ctl. Absent when no agent is at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<Activity>,
    /// The agent of the last attempt, such as `claude-code`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub agent: Option<String>,
    /// Image of the agent's container in the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub agent_image: Option<String>,
    /// The model that answered in the last attempt, or the one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub agent_model: Option<String>,
    /// How the last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Work that is saved on the remote beside the work branch, newest first. It is kept until
    /// `settings.wipRetention` of the Rig has passed since the landing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub saved: Vec<SavedWork>,
    /// Number of the newest attempt, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub attempts: Option<i32>,
    /// Name of the MergeRequest of the last finished attempt, in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub merge_request: Option<String>,
    /// Turns, tokens and cost of all attempts together, as the agent reports them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Time at which the first attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<Time>,
    /// Time at which the Polecat became Done, Stuck or Terminated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finished_at: Option<Time>,
    /// Id of the OpenTelemetry trace of the Polecat's life: 32 hexadecimal digits.
    #[serde(default, rename = "traceID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub trace_id: Option<String>,
    /// Conditions, keyed by type. `Merged` is set by refinery-ctl, `Healthy` and `Saved` by
    /// witness-ctl, all others by polecat-ctl.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// The observed phase of a Polecat.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum PolecatPhase {
    /// No pod is running: `Idle` is wanted, or the Polecat waits. The condition `Admitted` has the reason.
    Idle,
    /// A pod is pending, running or being stopped.
    Working,
    /// The work is finished and on the remote. The condition `Merged` shows whether it has landed.
    Done,
    /// The work has stopped and needs a person or a change. The condition `Ready` has the reason.
    Stuck,
    /// The task was ended by `spec.desiredState`.
    Terminated,
    /// A value of a later version. It is read, and never written.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// What an agent is doing.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Activity {
    /// Events arrive from the agent.
    Working,
    /// The agent sends no events, but computes or is inside one tool call.
    Quiet,
    /// The agent has ended its turn or asked a question, and waits for a person.
    WaitingForHuman,
    /// The agent has done nothing for longer than the Witness's `stuckThreshold`.
    Wedged,
    /// No heartbeats arrive from the pod, while those of other pods do.
    Dead,
    /// A value of a later version. It is read, and never written.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// How an attempt ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// What follows: `Completed`, `Waiting` (tried again when something outside has changed),
    /// `Drained` (stopped in order), `Failed` (tried again as a retry) or `Stuck`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub exit: String,
    /// Why, as one CamelCase word, such as `NoChanges` or `OOMKilled`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why, as one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub message: String,
    /// Time at which the attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finished_at: Option<Time>,
}

/// Work on a ref of the remote that is not the work branch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SavedWork {
    /// The ref, such as `refs/gastown/wip/team/toast/1`. `git fetch <repository> <ref>` fetches it.
    #[schemars(length(max = 512))]
    pub r#ref: String,
    /// The commit to fetch, in full.
    #[schemars(length(max = 64))]
    pub commit: String,
    /// What it was in the pod, such as `branch side` or `uncommitted files`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub of: String,
    /// Number of files that could not be saved with it.
    #[serde(default)]
    pub skipped: i32,
}

/// Turns, tokens and cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Number of turns of the conversation with the model.
    pub turns: i64,
    /// Number of input tokens.
    pub input_tokens: i64,
    /// Number of output tokens.
    pub output_tokens: i64,
    /// Number of tokens read from the prompt cache.
    pub cache_read_tokens: i64,
    /// Number of tokens written to the prompt cache.
    pub cache_write_tokens: i64,
    /// Cost in US dollars, as the agent computes it.
    #[serde(rename = "costUSD")]
    pub cost_usd: f64,
}
