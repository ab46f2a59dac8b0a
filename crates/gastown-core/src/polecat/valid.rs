//! A Polecat's spec, parsed once: after this nobody reads the raw one. It decides what has
//! precedence among `kubernetes.*`, `agentConfig.*` and `resources`.

use std::collections::BTreeMap;

use gastown_api::names::reason;
use gastown_api::{
    AgentKind, Budget, CaConfigMapRef, DesiredState, ExecutionMode, KubernetesSpec, Polecat,
    PolecatSpec, Provider, SecretKeyRef, StrictHostKeyChecking, duration,
};
use gastown_types::{BranchName, GitUrl};
use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, ResourceRequirements, Toleration, Volume, VolumeMount,
};

use super::ledger::sanitize;
pub(super) use super::task::is_other_task;
use super::task::task_hash;

/// How long a pod may take to start when `startTimeout` is not set, in seconds.
pub const START_TIMEOUT_SECONDS: i64 = 600;

/// Names of the pod's own volumes.
pub const OWN_VOLUMES: [&str; 17] = [
    "private",
    "upstream",
    "workspace",
    "git-keys",
    "claude-login",
    "run",
    "tools",
    "podinfo",
    "prompt",
    "git-creds",
    "git-ca",
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
    /// The task; may be empty when there is a bead.
    pub task: String,
    /// The repository.
    pub repository: GitUrl,
    /// The branch that the work starts from and lands on.
    pub target: BranchName,
    /// The branch of the work.
    pub work: BranchName,
    /// The user declares that a work branch on the remote belongs to this Polecat.
    pub resume_branch: bool,
    /// 0 (first) to 4.
    pub priority: u8,
    /// Ending without a commit is a failure.
    pub expect_changes: bool,
    /// How many respawns are allowed.
    pub max_retries: u32,
    /// How many attempts are allowed.
    pub max_attempts: u32,
    /// The hash of the spec, without what only decides when and how often it runs.
    pub hash: String,
    /// How many seconds a pod that cannot start is waited for.
    pub start_timeout: i64,
    /// What the pod is made of.
    pub pod: PodSettings,
}

/// Everything of the pod that a user may set.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSettings {
    /// The agent.
    pub agent: AgentKind,
    /// The model.
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
    /// The ConfigMap and its key with certificates of further authorities.
    pub ca: Option<CaConfigMapRef>,
    /// The size limit of the workspace, as Kubernetes writes it.
    pub workspace_size: Option<String>,
    /// The ConfigMap whose keys become variables.
    pub env_from: Option<String>,
    /// Further variables; a later one of the same name wins.
    pub env: Vec<EnvVar>,
    /// The agent container's resources.
    pub resources: Option<ResourceRequirements>,
    /// The time limit of one attempt, in seconds.
    pub deadline_seconds: i64,
    /// The limits of one attempt.
    pub budget: Budget,
    /// The pod's service account, where it is not `default`.
    pub service_account: Option<String>,
    /// Secrets to pull images with.
    pub pull_secrets: Vec<String>,
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pod tolerates.
    pub tolerations: Vec<Toleration>,
    /// Further annotations of the pod.
    pub annotations: BTreeMap<String, String>,
    /// Further labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// The pod's affinity.
    pub affinity: Option<Affinity>,
    /// The pod's priority class.
    pub priority_class: Option<String>,
    /// The pod's runtime class.
    pub runtime_class: Option<String>,
    /// The user's volumes.
    pub volumes: Vec<Volume>,
    /// Where the agent's container mounts them.
    pub mounts: Vec<VolumeMount>,
}

/// Why no pod can be made of a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct InvalidSpec {
    /// The reason for conditions, in CamelCase.
    pub reason: &'static str,
    /// One sentence that names the field and what to do.
    pub message: String,
}

fn invalid(message: impl Into<String>) -> InvalidSpec {
    InvalidSpec { reason: "InvalidSpec", message: sanitize(&message.into()) }
}

impl TryFrom<&Polecat> for ValidPolecat {
    type Error = InvalidSpec;

    fn try_from(polecat: &Polecat) -> Result<Self, InvalidSpec> {
        Self::with_hash(polecat, || task_hash(&polecat.spec))
    }
}

impl ValidPolecat {
    /// Parses the spec of a Polecat whose [`task_hash`] is known already: it is what takes longest.
    ///
    /// # Errors
    ///
    /// Why no pod can be made of it.
    pub fn with_hash(
        polecat: &Polecat,
        hash: impl FnOnce() -> String,
    ) -> Result<Self, InvalidSpec> {
        let spec = &polecat.spec;
        if let Some(field) = newer_field(spec) {
            return Err(invalid(format!(
                "{field} has a value that this version of polecat-ctl does not know: update polecat-ctl, or change it"
            )));
        }
        let kubernetes = spec.kubernetes.as_ref().ok_or_else(|| InvalidSpec {
            reason: reason::MISSING_KUBERNETES_SPEC,
            message: "spec.kubernetes is missing: it names the repository".to_owned(),
        })?;
        let bead = spec.bead_id.clone().filter(|b| !b.is_empty());
        let task = spec.task_description.clone().unwrap_or_default();
        if bead.is_none() && task.trim().is_empty() {
            return Err(invalid(
                "spec.taskDescription and spec.beadID are both empty: set one of them",
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
                "spec.kubernetes.workBranch is the target branch: choose another name",
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
            hash: hash(),
            start_timeout: start_timeout(kubernetes)?,
            pod: settings(spec, kubernetes)?,
        })
    }
}

/// The first field whose value is one of a later version.
fn newer_field(spec: &PolecatSpec) -> Option<&'static str> {
    let checking = spec.kubernetes.as_ref().map(|k| k.ssh_strict_host_key_checking);
    let provider = spec.agent_config.as_ref().map(|config| config.provider);
    let fields = [
        (spec.desired_state == DesiredState::Unknown, "spec.desiredState"),
        (spec.execution_mode == ExecutionMode::Unknown, "spec.executionMode"),
        (spec.agent == AgentKind::Unknown, "spec.agent"),
        (provider == Some(Provider::Unknown), "spec.agentConfig.provider"),
        (
            checking == Some(StrictHostKeyChecking::Unknown),
            "spec.kubernetes.sshStrictHostKeyChecking",
        ),
    ];
    fields.into_iter().find_map(|(is_newer, field)| is_newer.then_some(field))
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

fn start_timeout(kubernetes: &KubernetesSpec) -> Result<i64, InvalidSpec> {
    let Some(text) = &kubernetes.pod.start_timeout else { return Ok(START_TIMEOUT_SECONDS) };
    let read = duration::parse(text).and_then(|d| i64::try_from(d.as_secs()).ok());
    read.ok_or_else(|| {
        invalid("spec.kubernetes.startTimeout is not a duration: write it as 30s, 15m or 1h30m")
    })
}

impl PodSettings {
    /// What names the account at the model's service, so that Polecats with the same account share
    /// what it states; none where the spec names no credentials.
    pub fn account(&self) -> Option<String> {
        let key = self.api_key.as_ref().map(|k| format!("{}/{}", k.name, k.key));
        let account = key.or_else(|| self.claude_creds.clone())?;
        Some(format!("{} {}", self.endpoint.as_deref().unwrap_or_default(), account))
    }
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
    let affinity = match &kubernetes.pod.affinity {
        Some(object) => Some(
            serde_json::from_value(serde_json::Value::Object(object.clone()))
                .map_err(|e| invalid(format!("spec.kubernetes.affinity: {e}")))?,
        ),
        None => None,
    };
    let env: Vec<EnvVar> =
        config.env.into_iter().chain(kubernetes.pod.env.iter().cloned()).collect();
    if let Some(own) =
        env.iter().find(|e| e.name.starts_with("GASTOWN_") || e.name.starts_with("GT_"))
    {
        return Err(invalid(format!(
            "variable {} is reserved for the operator: choose another name",
            own.name
        )));
    }
    Ok(PodSettings {
        agent: spec.agent,
        model: config.model.filter(|m| !m.is_empty()),
        image: kubernetes.pod.image.clone().or(config.image).filter(|i| !i.is_empty()),
        command: config.command,
        args: config.args,
        provider: config.provider,
        endpoint: model_provider.endpoint.filter(|e| !e.is_empty()),
        api_key: kubernetes.pod.api_key_secret_ref.clone().or(model_provider.api_key_secret_ref),
        claude_creds: kubernetes.pod.claude_creds_secret_ref.as_ref().map(|r| r.name.clone()),
        git_secret: kubernetes
            .pod
            .git_secret_ref
            .as_ref()
            .map(|r| r.name.clone())
            .filter(|n| !n.is_empty()),
        known_hosts: kubernetes.pod.ssh_known_hosts_config_map_ref.as_ref().map(|r| r.name.clone()),
        ca: kubernetes.pod.ca_config_map_ref.clone(),
        workspace_size: kubernetes.pod.workspace_size.clone(),
        env_from: config.config_map_ref.map(|r| r.name),
        env,
        resources: kubernetes.pod.resources.clone().or_else(|| spec.resources.clone()),
        deadline_seconds: kubernetes.active_deadline_seconds.max(1),
        budget: spec.budget.unwrap_or_default(),
        service_account: kubernetes.pod.service_account_name.clone(),
        pull_secrets: kubernetes.pod.image_pull_secrets.iter().map(|s| s.name.clone()).collect(),
        node_selector: kubernetes.pod.node_selector.clone(),
        tolerations: kubernetes.pod.tolerations.clone(),
        annotations: kubernetes.pod.pod_annotations.clone(),
        labels: kubernetes.pod.pod_labels.clone(),
        affinity,
        priority_class: kubernetes.pod.priority_class_name.clone(),
        runtime_class: kubernetes.pod.runtime_class_name.clone(),
        volumes: volumes(kubernetes)?,
        mounts: mounts(kubernetes)?,
    })
}

/// The CRD's validation rules refuse these volumes too; an object that was stored before it had
/// them gets no credentials either.
fn volumes(kubernetes: &KubernetesSpec) -> Result<Vec<Volume>, InvalidSpec> {
    kubernetes
        .pod
        .volumes
        .iter()
        .map(|v| {
            if OWN_VOLUMES.contains(&v.name.as_str()) {
                return Err(invalid(format!(
                    "spec.kubernetes.volumes: the name {} is reserved for the operator",
                    v.name
                )));
            }
            v.to_volume().map_err(|e| invalid(format!("spec.kubernetes.volumes[{}]: {e}", v.name)))
        })
        .collect()
}

fn mounts(kubernetes: &KubernetesSpec) -> Result<Vec<VolumeMount>, InvalidSpec> {
    let known = |m: &VolumeMount| kubernetes.pod.volumes.iter().any(|v| v.name == m.name);
    if let Some(stray) = kubernetes.pod.volume_mounts.iter().find(|m| !known(m)) {
        return Err(invalid(format!(
            "spec.kubernetes.volumeMounts: {} is not one of spec.kubernetes.volumes",
            stray.name
        )));
    }
    Ok(kubernetes.pod.volume_mounts.clone())
}
