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
    /// The Rig that it works for.
    #[schemars(length(min = 1, max = 253))]
    pub rig: String,
    /// What is wanted of it; what is, is `status.phase`.
    #[serde(default)]
    pub desired_state: DesiredState,
    /// The bead that it works on.
    #[serde(default, rename = "beadID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255), extend("x-kubernetes-validations" = schema::bead_id()))]
    pub bead_id: Option<String>,
    /// What is to be done, in words for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 131_072))]
    pub task_description: Option<String>,
    /// Where the agent runs.
    #[serde(default)]
    pub execution_mode: ExecutionMode,
    /// The repository, the credentials and the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesSpec>,
    /// Which agent does it.
    #[serde(default)]
    pub agent: AgentKind,
    /// How the agent is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_config: Option<AgentConfig>,
    /// Requests and limits of the agent's container; `kubernetes.resources` wins.
    #[serde(
        default,
        deserialize_with = "crate::pod::resources",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::resources")]
    pub resources: Option<ResourceRequirements>,
    /// Seconds after which a finished Polecat is deleted; kept when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Seconds that it may be idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_idle_seconds: Option<i32>,
    /// Order of admission and in the merge queue: 0 is the most urgent, 4 the least; 2 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4))]
    pub priority: Option<i32>,
    /// Finishing without a commit is a failure; false makes it a success.
    #[serde(default = "yes")]
    pub expect_changes: bool,
    /// Limits of one attempt; at one of them the agent is stopped and its work saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// How often the agent is started again after a fault.
    #[serde(default = "default_retries")]
    #[schemars(range(min = 0, max = 100))]
    pub max_retries: i32,
    /// How many attempts there are in all, restarts after faults and reworks together.
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

/// What is wanted of a Polecat.
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
    /// No pod; work that was under way is saved.
    #[default]
    Idle,
    /// Do the task.
    Working,
    /// No pod any more; work that was under way is saved.
    Terminated,
}

/// Where an agent runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ExecutionMode {
    /// In a pod of its own.
    #[default]
    Kubernetes,
}

/// The agents that there are adapters for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AgentKind {
    /// Claude Code.
    #[default]
    ClaudeCode,
    /// Any program: `agentConfig.command`.
    Generic,
}

/// How an agent is run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentConfig {
    /// Who serves the model.
    #[serde(default)]
    pub provider: Provider,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub model: Option<String>,
    /// Where the model is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_provider: Option<ModelProvider>,
    /// The agent's image; `kubernetes.image` wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub image: Option<String>,
    /// The program and its first arguments, instead of the agent's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 16_384)))]
    pub command: Vec<String>,
    /// Further arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 16_384)))]
    pub args: Vec<String>,
    /// A ConfigMap whose keys become environment variables of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ObjectName>,
    /// Environment variables of the agent; `kubernetes.env` wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::env")]
    pub env: Vec<EnvVar>,
}

/// Who serves the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// A LiteLLM proxy.
    #[default]
    Litellm,
    /// The Messages API.
    Anthropic,
    /// The API of OpenAI.
    Openai,
    /// A local Ollama.
    Ollama,
}

/// Where the model is served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelProvider {
    /// The API's base URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub endpoint: Option<String>,
    /// The key for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,
}

/// Limits of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("!has(self.maxCostUSD) || self.maxCostUSD > 0.0", "budget.maxCostUSD must be more than 0: leave it out for no limit"),
])))]
pub struct Budget {
    /// US dollars, as the agent reckons them.
    #[serde(default, rename = "maxCostUSD", skip_serializing_if = "Option::is_none")]
    pub max_cost_usd: Option<f64>,
    /// Tokens, input and output together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<i64>,
    /// Turns of the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_turns: Option<i64>,
}
