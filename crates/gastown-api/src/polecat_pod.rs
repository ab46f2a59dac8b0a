use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements, Toleration, VolumeMount};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pod::PodVolume;
use crate::schema;
use crate::shared::{CaConfigMapRef, JsonObject, ObjectName, SecretKeyRef, main_branch};

/// The repository, the credentials and the pod of a Polecat.
///
/// A user's volume never gets the name of one of ours, and a mount names a user's volume only:
/// otherwise the agent could mount the git credentials that are kept from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = volume_rules()))]
pub struct KubernetesSpec {
    /// URL of the repository to work on. Work on another repository than the rig's is not begun
    /// (`WrongRepository`).
    #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = schema::git_url()))]
    pub git_repository: String,
    /// Branch that the work starts from and lands on. Work for a branch that no Refinery of the rig
    /// lands on is not begun (`WrongBranch`). Defaults to `main`.
    #[serde(default = "main_branch")]
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub git_branch: String,
    /// Branch that the agent's commits go to. By default `feature/<bead>`, or `polecat/<name>`
    /// without a bead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub work_branch: Option<String>,
    /// Whether an existing work branch on the remote is continued. By default a work branch that
    /// this Polecat did not push makes it wait with reason `BranchExists`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resume_branch: bool,
    /// Longest time of one attempt, in seconds. The agent is stopped early enough to save its work,
    /// and the Polecat is Stuck with reason `Deadline`. Defaults to 3600.
    #[serde(default = "default_deadline")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: i64,
    /// Whether ssh host keys are checked. They always are; the field is kept for manifests of the
    /// Go operator. Defaults to `yes`.
    #[serde(default)]
    pub ssh_strict_host_key_checking: StrictHostKeyChecking,
    /// The credentials and the pod's settings.
    #[serde(flatten)]
    pub pod: PolecatPod,
}

/// What a Polecat's spec and the rig's template of it have in common: the credentials, and the
/// settings of the pod. None of it has a default of its own in the schema.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolecatPod {
    /// A Secret in the Polecat's namespace with the git credentials. For ssh the key
    /// `ssh-privatekey` (or `id_rsa`, `id_ed25519`, `identity`), and optionally `known_hosts`; for
    /// http(s) the keys `username` and `password` or `token`. By default the repository is used
    /// anonymously.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_secret_ref: Option<ObjectName>,
    /// A Secret in the Polecat's namespace with the key `.credentials.json`: a login of Claude
    /// Code. `apiKeySecretRef` is the other way to authenticate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claude_creds_secret_ref: Option<ObjectName>,
    /// Secret and key, in the Polecat's namespace, that hold the API key for the model. The agent
    /// does not start before they exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,
    /// Image of the agent's container. It must contain git, a shell, CA certificates and the
    /// project's tools, see docs/agent-image.md. By default the operator's agent image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub image: Option<String>,
    /// Requests and limits of the agent's container. By default requests of 500m CPU and 1Gi
    /// memory, limits of 2 CPU and 4Gi.
    #[serde(
        default,
        deserialize_with = "crate::pod::resources",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::resources")]
    pub resources: Option<ResourceRequirements>,
    /// A ConfigMap in the Polecat's namespace whose key `known_hosts` holds ssh host keys, beside
    /// the built-in ones of github.com, gitlab.com and bitbucket.org.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_known_hosts_config_map_ref: Option<ObjectName>,
    /// A ConfigMap in the Polecat's namespace with the certificates of further authorities
    /// that are accepted when the repository is reached over https, beside those of the image. The
    /// key `ca.crt` of the Secret with the git credentials serves as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
    /// Size limit of the workspace, such as `80Gi`: the clone, what the agent builds in it, and its
    /// commits. Above it the kubelet evicts the pod. By default the chart's `agent.workspaceSize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = schema::quantity()))]
    pub workspace_size: Option<String>,
    /// Service account of the pod, for what a cluster grants by it: images to pull, an identity at a
    /// cloud's API. Its token is not mounted. By default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Secrets in the Polecat's namespace to pull the images with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<ObjectName>,
    /// Labels that the pod's node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pod tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// Affinity of the pod, as in a pod's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub affinity: Option<JsonObject>,
    /// Priority class of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// Runtime class of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub runtime_class_name: Option<String>,
    /// Annotations of the pod, such as one that keeps a service mesh from injecting its sidecar.
    /// Those of the operator itself take precedence.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::pod_annotations")]
    pub pod_annotations: BTreeMap<String, String>,
    /// Labels of the pod. Those of the operator itself take precedence.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::pod_labels")]
    pub pod_labels: BTreeMap<String, String>,
    /// How long a pod that cannot start (no node, no image, a missing Secret) keeps its slot of the
    /// rig, such as `30s` or `15m`. After it the pod is deleted, and another one is tried later. By
    /// default 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub start_timeout: Option<String>,
    /// Further volumes of the pod, for `volumeMounts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<PodVolume>,
    /// Mounts of `volumes` in the agent's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::volume_mounts")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Environment variables of the agent. They take precedence over `agentConfig.env`. Names that
    /// begin with `GASTOWN_` or `GT_` are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::env")]
    pub env: Vec<EnvVar>,
}

/// Rules for volumes and their mounts.
pub fn volume_rules() -> serde_json::Value {
    schema::rules(&[
        (
            "!has(self.volumes) || self.volumes.all(v, !(v.name in ['private', 'upstream', 'workspace', 'git-keys', 'claude-login', 'run', 'tools', 'podinfo', 'prompt', 'git-creds', 'git-ca', 'ssh-known-hosts', 'claude-creds', 'home', 'tmp', 'token', 'ca']))",
            "kubernetes.volumes[].name is one that the operator uses itself: choose another",
        ),
        (
            "!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name))",
            "kubernetes.volumeMounts[].name must be one of kubernetes.volumes: add the volume",
        ),
        (
            "!has(self.volumeMounts) || self.volumeMounts.all(m, m.mountPath.matches('^/[^:]*$') && !m.mountPath.matches('/[.][.]?(/|$)|//') && !m.mountPath.matches('^/((gastown|workspace|git-creds|git-ca|claude-creds|ssh-known-hosts|tmp|proc|sys|dev|var/run/gastown)(/.*)?|home/nonroot/?|home/?)?$'))",
            "kubernetes.volumeMounts[].mountPath must be an absolute path outside the operator's own (/gastown, /workspace, /git-creds, /git-ca, /claude-creds, /ssh-known-hosts, /tmp, /home/nonroot) and the system's",
        ),
    ])
}

fn default_deadline() -> i64 {
    3600
}

impl KubernetesSpec {
    /// Work on a repository, everything else as the schema's defaults have it.
    pub fn of_repository(url: impl Into<String>) -> Self {
        Self {
            git_repository: url.into(),
            git_branch: main_branch(),
            work_branch: None,
            resume_branch: false,
            active_deadline_seconds: default_deadline(),
            ssh_strict_host_key_checking: StrictHostKeyChecking::Yes,
            pod: PolecatPod::default(),
        }
    }
}

/// Whether an ssh host's key is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StrictHostKeyChecking {
    /// A host whose key is unknown or different is refused.
    #[default]
    Yes,
    /// A value of a later version. Nothing is begun because of it, and a condition names it.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}
