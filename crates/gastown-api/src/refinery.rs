use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements};
use k8s_openapi::api::networking::v1::NetworkPolicyEgressRule;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::shared::{CaConfigMapRef, ObjectName, main_branch, yes};

/// Tests what a rig's polecats finished and lands it on a branch.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gastown.gastown.io",
    version = "v1alpha1",
    kind = "Refinery",
    plural = "refineries",
    shortname = "rf",
    category = "gastown",
    namespaced,
    status = "RefineryStatus",
    derive = "PartialEq",
    doc = "Refinery tests what a rig's polecats finished and lands it on the target branch.",
    printcolumn(name = "Rig", type_ = "string", json_path = ".spec.rigRef"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Queue", type_ = "integer", json_path = ".status.queueLength"),
    printcolumn(name = "Current", type_ = "string", json_path = ".status.currentMerge"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct RefinerySpec {
    /// Name of the rig whose work is tested and landed. The oldest Refinery of a rig and target
    /// branch is the active one.
    #[schemars(length(min = 1, max = 253))]
    pub rig_ref: String,
    /// Branch that work lands on. Defaults to `main`.
    #[serde(default = "main_branch")]
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub target_branch: String,
    /// The gate: a command for `sh -c` in the root of the repository. Exit code 0 passes. Without
    /// it work lands untested, and the condition `Gated` is False.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384))]
    pub test_command: Option<String>,
    /// Kept for manifests of the Go operator; this version runs one gate at a time. Defaults to 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub parallelism: i32,
    /// A Secret in the Refinery's namespace with the credentials for fetching and pushing. For ssh
    /// the key `ssh-privatekey` (or `id_rsa`, `id_ed25519`, `identity`), and optionally
    /// `known_hosts`; for http(s) the keys `username` and `password` or `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_secret_ref: Option<ObjectName>,
    /// Whether a work branch is deleted from the remote after its landing. Defaults to true.
    #[serde(default = "yes")]
    pub delete_merged_branches: bool,
    /// A ConfigMap in the Refinery's namespace whose key `known_hosts` holds ssh host keys, beside
    /// the built-in ones of github.com, gitlab.com and bitbucket.org.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_known_hosts_config_map_ref: Option<ObjectName>,
    /// A ConfigMap in the Refinery's namespace with the certificates of further authorities
    /// that are accepted when the repository is reached over https, beside those of the image. The
    /// key `ca.crt` of the Secret with the git credentials serves as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
    /// Committer of the commits that land, as `Name <mail>`; their authors stay. A branch that
    /// descends from the target lands as it is only if its commits have this committer already. By
    /// default such a branch lands as it is, and commits that are made anew have `Gastown Refinery
    /// <refinery@gastown.io>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 256), extend("x-kubernetes-validations" = schema::identity(
        "committer",
        "Acme Bot <bot@example.org>"
    )))]
    pub committer: Option<String>,
    /// Whether each commit that lands has the trailer `Signed-off-by` of the committer (Developer
    /// Certificate of Origin). Defaults to false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sign_off: bool,
    /// Image, resources, environment and network of the gate's pod. By default the operator's agent
    /// image, without a network beside the cluster's DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate_template: Option<GateTemplate>,
}

/// A [`RefinerySpec`] without its rig and without defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefineryTemplate {
    /// Branch that work lands on. By default `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub target_branch: Option<String>,
    /// The gate: a command for `sh -c` in the root of the repository. Exit code 0 passes. Without
    /// it work lands untested, and the Refinery's condition `Gated` is False.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384))]
    pub test_command: Option<String>,
    /// Kept for manifests of the Go operator; this version runs one gate at a time. By default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub parallelism: Option<i32>,
    /// A Secret in the release's namespace with the credentials for fetching and pushing. For ssh
    /// the key `ssh-privatekey` (or `id_rsa`, `id_ed25519`, `identity`), and optionally
    /// `known_hosts`; for http(s) the keys `username` and `password` or `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_secret_ref: Option<ObjectName>,
    /// Whether a work branch is deleted from the remote after its landing. By default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_merged_branches: Option<bool>,
    /// A ConfigMap in the release's namespace whose key `known_hosts` holds ssh host keys, beside
    /// the built-in ones of github.com, gitlab.com and bitbucket.org.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_known_hosts_config_map_ref: Option<ObjectName>,
    /// A ConfigMap in the release's namespace with the certificates of further authorities
    /// that are accepted when the repository is reached over https, beside those of the image. The
    /// key `ca.crt` of the Secret with the git credentials serves as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
    /// Committer of the commits that land, as `Name <mail>`; their authors stay. A branch that
    /// descends from the target lands as it is only if its commits have this committer already. By
    /// default such a branch lands as it is, and commits that are made anew have `Gastown Refinery
    /// <refinery@gastown.io>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 256), extend("x-kubernetes-validations" = schema::identity(
        "committer",
        "Acme Bot <bot@example.org>"
    )))]
    pub committer: Option<String>,
    /// Whether each commit that lands has the trailer `Signed-off-by` of the committer (Developer
    /// Certificate of Origin). By default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_off: Option<bool>,
    /// Image, resources, environment and network of the gate's pod. By default the operator's agent
    /// image, without a network beside the cluster's DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate_template: Option<GateTemplate>,
}

impl RefinerySpec {
    /// The Refinery of a rig with the schema's defaults.
    pub fn of_rig(rig: impl Into<String>) -> Self {
        RefineryTemplate::default().for_rig(rig)
    }
}

impl RefineryTemplate {
    /// The spec of a rig's Refinery, the schema's defaults filled in.
    pub fn for_rig(&self, rig: impl Into<String>) -> RefinerySpec {
        RefinerySpec {
            rig_ref: rig.into(),
            target_branch: self.target_branch.clone().unwrap_or_else(main_branch),
            test_command: self.test_command.clone(),
            parallelism: self.parallelism.unwrap_or_else(one),
            git_secret_ref: self.git_secret_ref.clone(),
            delete_merged_branches: self.delete_merged_branches.unwrap_or_else(yes),
            ssh_known_hosts_config_map_ref: self.ssh_known_hosts_config_map_ref.clone(),
            ca_config_map_ref: self.ca_config_map_ref.clone(),
            committer: self.committer.clone(),
            sign_off: self.sign_off.unwrap_or_default(),
            gate_template: self.gate_template.clone(),
        }
    }
}

fn one() -> i32 {
    1
}

/// Image, resources, environment and network of a gate's pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateTemplate {
    /// Image that the gate's command runs in. By default the operator's agent image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub image: Option<String>,
    /// Requests and limits of the gate's container. By default there are none.
    #[serde(
        default,
        deserialize_with = "crate::pod::resources",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::resources")]
    pub resources: Option<ResourceRequirements>,
    /// Labels that the pod's node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::node_selector")]
    pub node_selector: BTreeMap<String, String>,
    /// Environment variables of the gate's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::env")]
    pub env: Vec<EnvVar>,
    /// Secrets in the Refinery's namespace to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<ObjectName>,
    /// How many commits of the candidate's history the gate's pod fetches: 1 is the candidate alone,
    /// and no more than its files pass over the network. By default all, as `git describe` and `git
    /// diff origin/main...` need it: with fewer, the tags and `origin/<target>` are there only as far
    /// as their commits are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub fetch_depth: Option<i32>,
    /// What the gate may reach beside the candidate's server and the cluster's DNS, in the form of a
    /// NetworkPolicy's `egress`. By default nothing. It has no effect where the chart's
    /// `networkPolicies.gates.enabled` is false: then a gate may reach everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::egress")]
    pub egress: Vec<NetworkPolicyEgressRule>,
}

/// The observed state of a Refinery.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefineryStatus {
    /// What the Refinery is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RefineryPhase>,
    /// Number of MergeRequests that wait or are being tested.
    #[serde(default)]
    pub queue_length: i32,
    /// Name of the Polecat whose work is being tested, or of the MergeRequest when it has no
    /// Polecat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub current_merge: Option<String>,
    /// Time of the last landing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_merge_time: Option<Time>,
    /// Number of MergeRequests by result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merges_summary: Option<MergesSummary>,
    /// The commit that the target branch had when it was last fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub target_commit: Option<String>,
    /// The last commit that this Refinery landed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_landed_commit: Option<String>,
    /// Conditions, keyed by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Number of MergeRequests by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MergesSummary {
    /// Number of MergeRequests that have ended: `succeeded` and `failed` together.
    pub total: i32,
    /// Number of MergeRequests that have landed.
    pub succeeded: i32,
    /// Number of MergeRequests that went back to their author or were rejected.
    pub failed: i32,
    /// Number of MergeRequests that wait or are being tested.
    pub pending: i32,
}

/// What a Refinery is doing.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum RefineryPhase {
    /// No MergeRequest is being tested.
    Idle,
    /// A MergeRequest is being tested or landed.
    Processing,
    /// The Refinery cannot work. The condition `Ready` has the reason.
    Error,
    /// A value of a later version. It is read, and never written.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}
