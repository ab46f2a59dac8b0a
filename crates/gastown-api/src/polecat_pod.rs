use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements, Toleration, VolumeMount};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pod::PodVolume;
use crate::schema;
use crate::shared::{JsonObject, ObjectName, SecretKeyRef, main_branch};

/// The repository, the credentials and the pod of a Polecat.
///
/// A user's volume never gets the name of one of ours, and a mount names a user's volume only:
/// otherwise the agent could mount the git credentials that are kept from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = volume_rules()))]
pub struct KubernetesSpec {
    /// The repository to work on: the rig's.
    #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = schema::git_url()))]
    pub git_repository: String,
    /// The branch that the work starts from and lands on.
    #[serde(default = "main_branch")]
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub git_branch: String,
    /// The branch of the work; `feature/<bead>` or `polecat/<name>` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub work_branch: Option<String>,
    /// The work branch is on the remote already and is ours to continue.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resume_branch: bool,
    /// A Secret with `ssh-privatekey` (or `id_rsa`, `id_ed25519`, `identity`), or with `username`
    /// and `password` or `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_secret_ref: Option<ObjectName>,
    /// A Secret with `.credentials.json` for Claude Code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claude_creds_secret_ref: Option<ObjectName>,
    /// The key for the model's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,
    /// The image that the agent runs in; it must hold git, a shell, CA certificates and the
    /// project's tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub image: Option<String>,
    /// Requests and limits of the agent's container.
    #[serde(
        default,
        deserialize_with = "crate::pod::resources",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::resources")]
    pub resources: Option<ResourceRequirements>,
    /// The time of one attempt; the work is saved before it is up.
    #[serde(default = "default_deadline")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: i64,
    /// A ConfigMap whose key `known_hosts` holds further host keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_known_hosts_config_map_ref: Option<ObjectName>,
    /// Host keys are always checked.
    #[serde(default)]
    pub ssh_strict_host_key_checking: StrictHostKeyChecking,
    /// Secrets to pull the images with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<ObjectName>,
    /// Labels that the pod's node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pod bears.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// The pod's affinity, as in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub affinity: Option<JsonObject>,
    /// The pod's priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// The pod's runtime class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub runtime_class_name: Option<String>,
    /// Further volumes of the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<PodVolume>,
    /// Where the agent's container has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::volume_mounts")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Further environment variables of the agent's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::env")]
    pub env: Vec<EnvVar>,
}

/// Rules for volumes and their mounts.
pub fn volume_rules() -> serde_json::Value {
    schema::rules(&[
        (
            "!has(self.volumes) || self.volumes.all(v, !(v.name in ['private', 'upstream', 'workspace', 'run', 'tools', 'podinfo', 'prompt', 'git-creds', 'ssh-known-hosts', 'claude-creds', 'home', 'tmp', 'token', 'ca']))",
            "kubernetes.volumes[].name is one that the operator uses itself: choose another",
        ),
        (
            "!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name))",
            "kubernetes.volumeMounts[].name must be one of kubernetes.volumes: add the volume",
        ),
        (
            "!has(self.volumeMounts) || self.volumeMounts.all(m, m.mountPath.matches('^/[^:]*$') && !m.mountPath.matches('/[.][.]?(/|$)|//') && !m.mountPath.matches('^/((gastown|workspace|git-creds|claude-creds|ssh-known-hosts|tmp|proc|sys|dev|var/run/gastown)(/.*)?|home/nonroot/?|home/?)?$'))",
            "kubernetes.volumeMounts[].mountPath must be an absolute path outside the operator's own (/gastown, /workspace, /git-creds, /claude-creds, /ssh-known-hosts, /tmp, /home/nonroot) and the system's",
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
            git_secret_ref: None,
            claude_creds_secret_ref: None,
            api_key_secret_ref: None,
            image: None,
            resources: None,
            active_deadline_seconds: default_deadline(),
            ssh_known_hosts_config_map_ref: None,
            ssh_strict_host_key_checking: StrictHostKeyChecking::Yes,
            image_pull_secrets: Vec::new(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
            priority_class_name: None,
            runtime_class_name: None,
            volumes: Vec::new(),
            volume_mounts: Vec::new(),
            env: Vec::new(),
        }
    }
}

/// Whether an ssh host's key is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StrictHostKeyChecking {
    /// Always.
    #[default]
    Yes,
}
