use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::polecat_pod::KubernetesSpec;
use crate::polecat_status::PolecatStatus;
use crate::schema;
use crate::shared::{ObjectName, SecretKeyRef, yes};

/// One task and the agent that does it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gastown.gastown.io",
    version = "v1alpha1",
    kind = "Polecat",
    plural = "polecats",
    shortname = "pc",
    category = "gastown",
    namespaced,
    status = "PolecatStatus",
    derive = "PartialEq",
    doc = "Polecat is one task and the agent that does it in a pod of its own.",
    printcolumn(name = "Rig", type_ = "string", json_path = ".spec.rig"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Bead", type_ = "string", json_path = ".status.assignedBead"),
    printcolumn(name = "Pod", type_ = "string", json_path = ".status.podName"),
    printcolumn(name = "Active", type_ = "boolean", json_path = ".status.podActive"),
    printcolumn(name = "Model", type_ = "string", json_path = ".status.agentModel", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("oldSelf.hasValue() || self.metadata.name.size() <= 55").optional_old_self(true)
        .message("metadata.name must be at most 55 characters, so that its pod's name fits: shorten it")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("self.rig == oldSelf.rig", "spec.rig is immutable: make a new Polecat for another rig"),
    ("!has(oldSelf.executionMode) || (has(self.executionMode) && self.executionMode == oldSelf.executionMode)",
     "spec.executionMode is immutable: make a new Polecat for another mode"),
    ("!has(oldSelf.beadID) || oldSelf.beadID == '' || (has(self.beadID) && self.beadID == oldSelf.beadID)",
     "spec.beadID is immutable once set: make a new Polecat for another bead"),
    ("!has(self.agent) || self.agent != 'generic' || (has(self.agentConfig) && has(self.agentConfig.command) && self.agentConfig.command.size() > 0)",
     "spec.agentConfig.command is required when spec.agent is generic: name the program to run"),
])))]
pub struct PolecatSpec {
    /// Name of the Rig whose repository and merge queue this Polecat uses. Immutable.
    #[schemars(length(min = 1, max = 253))]
    pub rig: String,
    /// What the Polecat should be doing. `status.phase` shows what it is doing. Defaults to `Idle`.
    #[serde(default)]
    pub desired_state: DesiredState,
    /// Id of the bead to work on, such as `gt-a1b2`. The Polecat claims the bead before it starts,
    /// and the landing closes it. Immutable once set. Without it, `taskDescription` is the task.
    #[serde(default, rename = "beadID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255), extend("x-kubernetes-validations" = schema::bead_id()))]
    pub bead_id: Option<String>,
    /// The task, as text for the agent. Required when `beadID` is empty; with a bead it is added to
    /// the bead's own text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 131_072))]
    pub task_description: Option<String>,
    /// Where the agent runs. Immutable. Defaults to `kubernetes`.
    #[serde(default)]
    pub execution_mode: ExecutionMode,
    /// The repository, the credentials and the pod's settings. Without it the Polecat is Stuck with
    /// reason `MissingKubernetesSpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesSpec>,
    /// The agent that does the task. Defaults to `claude-code`.
    #[serde(default)]
    pub agent: AgentKind,
    /// The agent's model, command, arguments and environment. By default the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_config: Option<AgentConfig>,
    /// Requests and limits of the agent's container. `kubernetes.resources` takes precedence. By
    /// default requests of 500m CPU and 1Gi memory, limits of 2 CPU and 4Gi.
    #[serde(
        default,
        deserialize_with = "crate::pod::resources",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::resources")]
    pub resources: Option<ResourceRequirements>,
    /// Seconds from the end until the Polecat is deleted. The end is the landing, or the end of the
    /// work when there is nothing to merge. A Stuck Polecat is never deleted. By default it is
    /// kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,
    /// How long a Polecat with `desiredState: Idle` stays in phase Idle, in seconds from the end of
    /// its last attempt, or from its creation. After that its phase is Terminated with reason
    /// `IdleTooLong`; the spec is not changed, and `desiredState: Working` has it work again. By
    /// default there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_idle_seconds: Option<i32>,
    /// Order of admission to the rig and in the merge queue, from 0 (first) to 4 (last). Equal
    /// priorities go by age. By default the bead's own priority, else 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4))]
    pub priority: Option<i32>,
    /// Whether finishing without a commit is a failure (`Stuck` with reason `NoChanges`). Set it to
    /// false for tasks that may change nothing. Defaults to true.
    #[serde(default = "yes")]
    pub expect_changes: bool,
    /// Limits of one attempt. At the first limit that is reached the agent is stopped, its work is
    /// saved and the Polecat is Stuck with reason `BudgetExceeded`. By default there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// How many times the agent is started again after a fault of the agent or of the cluster.
    /// Defaults to 3.
    #[serde(default = "default_retries")]
    #[schemars(range(min = 0, max = 100))]
    pub max_retries: i32,
    /// How many attempts there may be in all: first start, restarts after faults and reworks.
    /// Defaults to 8.
    #[serde(default = "default_attempts")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: i32,
}

fn default_retries() -> i32 {
    3
}

fn default_attempts() -> i32 {
    8
}

impl PolecatSpec {
    /// The priority when none is given.
    pub const DEFAULT_PRIORITY: i32 = 2;

    /// An idle Polecat of a rig, everything else as the schema's defaults have it.
    pub fn of_rig(rig: impl Into<String>) -> Self {
        Self {
            rig: rig.into(),
            desired_state: DesiredState::Idle,
            bead_id: None,
            task_description: None,
            execution_mode: ExecutionMode::Kubernetes,
            kubernetes: None,
            agent: AgentKind::ClaudeCode,
            agent_config: None,
            resources: None,
            ttl_seconds_after_finished: None,
            max_idle_seconds: None,
            priority: None,
            expect_changes: true,
            budget: None,
            max_retries: default_retries(),
            max_attempts: default_attempts(),
        }
    }
}

/// What a Polecat should be doing.
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
pub enum DesiredState {
    /// The agent does not run. A running one is stopped and its work is saved; nothing new starts.
    #[default]
    Idle,
    /// The agent does the task. Its pod starts as soon as the rig has a free slot.
    Working,
    /// The task is ended. A running agent is stopped, its work is saved and its bead becomes free.
    Terminated,
    /// A value of a later version. Nothing is begun because of it, and a condition names it.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Where an agent runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ExecutionMode {
    /// In a pod of its own in the Polecat's namespace.
    #[default]
    Kubernetes,
    /// A value of a later version. Nothing is begun because of it, and a condition names it.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// The agents that the operator can run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AgentKind {
    /// Claude Code, which comes with the operator's agent image.
    #[default]
    ClaudeCode,
    /// Any program. `agentConfig.command` names it, and the image must contain it.
    Generic,
    /// A value of a later version. Nothing is begun because of it, and a condition names it.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// How an agent is run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentConfig {
    /// Which API serves the model. It decides which environment variables get the endpoint and the
    /// key. `claude-code` works with `anthropic` and `litellm`. Defaults to `litellm`.
    #[serde(default)]
    pub provider: Provider,
    /// Name of the model, as the provider knows it. By default the agent's own choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub model: Option<String>,
    /// Endpoint and key of the model's API. By default the agent's own endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_provider: Option<ModelProvider>,
    /// Image of the agent's container. `kubernetes.image` takes precedence. By default the
    /// operator's agent image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub image: Option<String>,
    /// Program and first arguments, in place of the agent's own. Required for the agent `generic`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 16_384)))]
    pub command: Vec<String>,
    /// Arguments that follow those of `command` or of the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 16_384)))]
    pub args: Vec<String>,
    /// A ConfigMap in the Polecat's namespace whose keys become environment variables of the agent.
    /// The pod does not start before it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ObjectName>,
    /// Environment variables of the agent. `kubernetes.env` takes precedence. Names that begin with
    /// `GASTOWN_` or `GT_` are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::env")]
    pub env: Vec<EnvVar>,
}

/// Which API serves the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// A LiteLLM proxy. Sets `ANTHROPIC_BASE_URL` and `ANTHROPIC_API_KEY`.
    #[default]
    Litellm,
    /// The Anthropic Messages API. Sets `ANTHROPIC_BASE_URL` and `ANTHROPIC_API_KEY`.
    Anthropic,
    /// The OpenAI API. Sets `OPENAI_BASE_URL` and `OPENAI_API_KEY`.
    Openai,
    /// An Ollama server. Sets `OLLAMA_HOST` and `OLLAMA_API_KEY`.
    Ollama,
    /// A value of a later version. Nothing is begun because of it, and a condition names it.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Endpoint and key of a model's API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelProvider {
    /// Base URL of the model's API, such as `http://litellm.ai.svc:4000`. By default the agent's
    /// own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub endpoint: Option<String>,
    /// Secret and key that hold the API key. `kubernetes.apiKeySecretRef` takes precedence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,
}

/// Limits of one attempt, beside its time (`kubernetes.activeDeadlineSeconds`). They are compared
/// with what the agent reports; one of kind `generic` prints it as docs/agent-image.md states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("!has(self.maxCostUSD) || self.maxCostUSD > 0.0", "budget.maxCostUSD must be more than 0: leave it out for no limit"),
])))]
pub struct Budget {
    /// Cost in US dollars, as the agent computes it. More than 0. By default there is no limit.
    #[serde(default, rename = "maxCostUSD", skip_serializing_if = "Option::is_none")]
    pub max_cost_usd: Option<f64>,
    /// Number of tokens, input and output together. By default there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<i64>,
    /// Number of turns of the conversation with the model. By default there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_turns: Option<i64>,
}
