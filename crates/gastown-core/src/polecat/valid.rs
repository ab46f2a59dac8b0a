//! A Polecat's spec, read once: after this nobody reads the raw one. Precedence between
//! `kubernetes.*`, `agentConfig.*` and `resources` is settled here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gastown_api::names::reason;
use gastown_api::{
    AgentKind, Budget, DesiredState, KubernetesSpec, Polecat, PolecatSpec, Provider, SecretKeyRef,
};
use gastown_types::{BranchName, GitUrl};
use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, ResourceRequirements, Toleration, Volume, VolumeMount,
};
use sha2::{Digest, Sha256};

use super::facts::Desired;
use super::ledger::tame;

/// Names of the pod's own volumes.
pub const OWN_VOLUMES: [&str; 14] = [
    "private",
    "upstream",
    "workspace",
    "run",
    "tools",
    "podinfo",
    "prompt",
    "git-creds",
    "ssh-known-hosts",
    "claude-creds",
    "home",
    "tmp",
    "token",
    "ca",
];

/// A spec that a pod can be made of.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidPolecat {
    /// The rig's name.
    pub rig: String,
    /// The bead's id.
    pub bead: Option<String>,
    /// What is to be done; may be empty when there is a bead.
    pub task: String,
    /// The repository.
    pub repository: GitUrl,
    /// The branch that the work starts from and lands on.
    pub target: BranchName,
    /// The branch of the work.
    pub work: BranchName,
    /// A work branch on the remote is ours by the user's word.
    pub resume_branch: bool,
    /// 0 (first) to 4.
    pub priority: u8,
    /// Finishing without a commit is a failure.
    pub expect_changes: bool,
    /// Respawns by fault.
    pub max_retries: u32,
    /// All attempts.
    pub max_attempts: u32,
    /// Hash of what the agent is asked to do, and with what.
    pub hash: String,
    /// How the pod looks.
    pub pod: PodSettings,
}

/// Everything of the pod that a user may say.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSettings {
    /// Which adapter.
    pub agent: AgentKind,
    /// The model wanted.
    pub model: Option<String>,
    /// The user's image.
    pub image: Option<String>,
    /// The agent's program instead of its own.
    pub command: Vec<String>,
    /// Further arguments.
    pub args: Vec<String>,
    /// Who serves the model.
    pub provider: Provider,
    /// The API's base URL.
    pub endpoint: Option<String>,
    /// The key for it.
    pub api_key: Option<SecretKeyRef>,
    /// The Secret with `.credentials.json`.
    pub claude_creds: Option<String>,
    /// The Secret with the git credentials.
    pub git_secret: Option<String>,
    /// The ConfigMap with further host keys.
    pub known_hosts: Option<String>,
    /// The ConfigMap whose keys become variables.
    pub env_from: Option<String>,
    /// Further variables; a later one of the same name wins.
    pub env: Vec<EnvVar>,
    /// The agent container's resources.
    pub resources: Option<ResourceRequirements>,
    /// One attempt's time.
    pub deadline_seconds: i64,
    /// Limits of one attempt.
    pub budget: Budget,
    /// Secrets to pull images with.
    pub pull_secrets: Vec<String>,
    /// Labels of the node.
    pub node_selector: BTreeMap<String, String>,
    /// Taints borne.
    pub tolerations: Vec<Toleration>,
    /// Affinity.
    pub affinity: Option<Affinity>,
    /// Priority class.
    pub priority_class: Option<String>,
    /// Runtime class.
    pub runtime_class: Option<String>,
    /// The user's volumes.
    pub volumes: Vec<Volume>,
    /// Where the agent has them.
    pub mounts: Vec<VolumeMount>,
}

/// Why no pod can be made of a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct InvalidSpec {
    /// One word for conditions.
    pub reason: &'static str,
    /// Names the field and the fix.
    pub message: String,
}

fn invalid(message: impl Into<String>) -> InvalidSpec {
    InvalidSpec { reason: "InvalidSpec", message: tame(&message.into()) }
}

impl From<DesiredState> for Desired {
    fn from(state: DesiredState) -> Self {
        match state {
            DesiredState::Idle => Self::Idle,
            DesiredState::Working => Self::Working,
            DesiredState::Terminated => Self::Terminated,
        }
    }
}

impl TryFrom<&Polecat> for ValidPolecat {
    type Error = InvalidSpec;

    fn try_from(polecat: &Polecat) -> Result<Self, InvalidSpec> {
        let spec = &polecat.spec;
        let kubernetes = spec.kubernetes.as_ref().ok_or_else(|| InvalidSpec {
            reason: reason::MISSING_KUBERNETES_SPEC,
            message: "spec.kubernetes is missing: it names the repository".to_owned(),
        })?;
        let bead = spec.bead_id.clone().filter(|b| !b.is_empty());
        let task = spec.task_description.clone().unwrap_or_default();
        if bead.is_none() && task.trim().is_empty() {
            return Err(invalid(
                "spec.taskDescription and spec.beadID are both empty: say what is to be done",
            ));
        }
        let repository = kubernetes
            .git_repository
            .parse()
            .map_err(|e| invalid(format!("spec.kubernetes.gitRepository: {e}")))?;
        let target: BranchName = kubernetes
            .git_branch
            .parse()
            .map_err(|e| invalid(format!("spec.kubernetes.gitBranch: {e}")))?;
        let name = polecat.metadata.name.as_deref().unwrap_or_default();
        let work = work_branch(kubernetes, bead.as_deref(), name)?;
        if work == target {
            return Err(invalid(
                "spec.kubernetes.workBranch is the target branch itself: name another",
            ));
        }
        Ok(Self {
            rig: spec.rig.clone(),
            bead,
            task,
            repository,
            target,
            work,
            resume_branch: kubernetes.resume_branch,
            priority: u8::try_from(
                spec.priority.unwrap_or(PolecatSpec::DEFAULT_PRIORITY).clamp(0, 4),
            )
            .unwrap_or(2),
            expect_changes: spec.expect_changes,
            max_retries: u32::try_from(spec.max_retries).unwrap_or(0),
            max_attempts: u32::try_from(spec.max_attempts).unwrap_or(1).max(1),
            hash: hash(spec),
            pod: settings(spec, kubernetes)?,
        })
    }
}

fn work_branch(
    kubernetes: &KubernetesSpec,
    bead: Option<&str>,
    name: &str,
) -> Result<BranchName, InvalidSpec> {
    let text = match (&kubernetes.work_branch, bead) {
        (Some(branch), _) => branch.clone(),
        (None, Some(bead)) => format!("feature/{bead}"),
        (None, None) => format!("polecat/{name}"),
    };
    text.parse().map_err(|e| invalid(format!("spec.kubernetes.workBranch: {e}")))
}

/// The hash of the spec without what only says when, how often or whether.
fn hash(spec: &PolecatSpec) -> String {
    let mut asked = spec.clone();
    asked.desired_state = DesiredState::Idle;
    asked.ttl_seconds_after_finished = None;
    asked.max_idle_seconds = None;
    asked.priority = None;
    (asked.max_retries, asked.max_attempts) = (0, 0);
    let digest = Sha256::digest(serde_json::to_vec(&asked).unwrap_or_default());
    digest.iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn settings(spec: &PolecatSpec, kubernetes: &KubernetesSpec) -> Result<PodSettings, InvalidSpec> {
    let config = spec.agent_config.clone().unwrap_or_default();
    let model_provider = config.model_provider.unwrap_or_default();
    if spec.agent == AgentKind::ClaudeCode
        && matches!(config.provider, Provider::Openai | Provider::Ollama)
    {
        return Err(InvalidSpec {
            reason: reason::PROVIDER_UNSUPPORTED,
            message: "spec.agentConfig.provider: claude-code speaks the Messages API; use anthropic, or litellm in front of another"
                .to_owned(),
        });
    }
    if spec.agent == AgentKind::Generic && config.command.is_empty() {
        return Err(invalid("spec.agentConfig.command is empty: generic needs the program to run"));
    }
    let affinity = match &kubernetes.affinity {
        Some(object) => Some(
            serde_json::from_value(serde_json::Value::Object(object.clone()))
                .map_err(|e| invalid(format!("spec.kubernetes.affinity: {e}")))?,
        ),
        None => None,
    };
    let env: Vec<EnvVar> = config.env.into_iter().chain(kubernetes.env.iter().cloned()).collect();
    if let Some(own) =
        env.iter().find(|e| e.name.starts_with("GASTOWN_") || e.name.starts_with("GT_"))
    {
        return Err(invalid(format!(
            "variable {} is the operator's own: choose another name",
            own.name
        )));
    }
    Ok(PodSettings {
        agent: spec.agent,
        model: config.model.filter(|m| !m.is_empty()),
        image: kubernetes.image.clone().or(config.image).filter(|i| !i.is_empty()),
        command: config.command,
        args: config.args,
        provider: config.provider,
        endpoint: model_provider.endpoint.filter(|e| !e.is_empty()),
        api_key: kubernetes.api_key_secret_ref.clone().or(model_provider.api_key_secret_ref),
        claude_creds: kubernetes.claude_creds_secret_ref.as_ref().map(|r| r.name.clone()),
        git_secret: kubernetes
            .git_secret_ref
            .as_ref()
            .map(|r| r.name.clone())
            .filter(|n| !n.is_empty()),
        known_hosts: kubernetes.ssh_known_hosts_config_map_ref.as_ref().map(|r| r.name.clone()),
        env_from: config.config_map_ref.map(|r| r.name),
        env,
        resources: kubernetes.resources.clone().or_else(|| spec.resources.clone()),
        deadline_seconds: kubernetes.active_deadline_seconds.max(1),
        budget: spec.budget.unwrap_or_default(),
        pull_secrets: kubernetes.image_pull_secrets.iter().map(|s| s.name.clone()).collect(),
        node_selector: kubernetes.node_selector.clone(),
        tolerations: kubernetes.tolerations.clone(),
        affinity,
        priority_class: kubernetes.priority_class_name.clone(),
        runtime_class: kubernetes.runtime_class_name.clone(),
        volumes: volumes(kubernetes)?,
        mounts: mounts(kubernetes)?,
    })
}

/// The admission rules say the same; an object that was stored before they did gets no credentials
/// either.
fn volumes(kubernetes: &KubernetesSpec) -> Result<Vec<Volume>, InvalidSpec> {
    kubernetes
        .volumes
        .iter()
        .map(|v| {
            if OWN_VOLUMES.contains(&v.name.as_str()) {
                return Err(invalid(format!(
                    "spec.kubernetes.volumes: {} is a name that the operator uses itself",
                    v.name
                )));
            }
            v.to_volume().map_err(|e| invalid(format!("spec.kubernetes.volumes[{}]: {e}", v.name)))
        })
        .collect()
}

fn mounts(kubernetes: &KubernetesSpec) -> Result<Vec<VolumeMount>, InvalidSpec> {
    let known = |m: &VolumeMount| kubernetes.volumes.iter().any(|v| v.name == m.name);
    if let Some(stray) = kubernetes.volume_mounts.iter().find(|m| !known(m)) {
        return Err(invalid(format!(
            "spec.kubernetes.volumeMounts: {} is none of spec.kubernetes.volumes",
            stray.name
        )));
    }
    Ok(kubernetes.volume_mounts.clone())
}
