use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::shared::{ObjectName, main_branch, yes};

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
    /// The rig whose work it lands.
    #[schemars(length(min = 1, max = 253))]
    pub rig_ref: String,
    /// The branch that work lands on.
    #[serde(default = "main_branch")]
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub target_branch: String,
    /// The gate: a command for `sh -c` in the repository. Without one everything lands untested and
    /// `Gated` is False.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384))]
    pub test_command: Option<String>,
    /// How many gates may run at a time.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub parallelism: i32,
    /// Credentials for fetching and pushing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_secret_ref: Option<ObjectName>,
    /// Delete a work branch from the remote when it has landed.
    #[serde(default = "yes")]
    pub delete_merged_branches: bool,
    /// A ConfigMap whose key `known_hosts` holds further host keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_known_hosts_config_map_ref: Option<ObjectName>,
    /// What a gate's pod is like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate_template: Option<GateTemplate>,
}

/// A [`RefinerySpec`] without its rig and without defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefineryTemplate {
    /// The branch that work lands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 244), extend("x-kubernetes-validations" = schema::branch()))]
    pub target_branch: Option<String>,
    /// The gate: a command for `sh -c` in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384))]
    pub test_command: Option<String>,
    /// How many gates may run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub parallelism: Option<i32>,
    /// Credentials for fetching and pushing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_secret_ref: Option<ObjectName>,
    /// Delete a work branch from the remote when it has landed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_merged_branches: Option<bool>,
    /// A ConfigMap whose key `known_hosts` holds further host keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_known_hosts_config_map_ref: Option<ObjectName>,
    /// What a gate's pod is like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate_template: Option<GateTemplate>,
}

impl RefinerySpec {
    /// The Refinery of a rig that asks for nothing special.
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
            gate_template: self.gate_template.clone(),
        }
    }
}

fn one() -> i32 {
    1
}

/// What a gate's pod is like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateTemplate {
    /// The image that the gate's command runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub image: Option<String>,
    /// Requests and limits of the gate's container.
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
    /// Secrets to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<ObjectName>,
}

/// What refinery-ctl does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefineryStatus {
    /// What it is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RefineryPhase>,
    /// How many requests wait or are tested.
    #[serde(default)]
    pub queue_length: i32,
    /// Whose work is tested now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub current_merge: Option<String>,
    /// When it last landed something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_merge_time: Option<Time>,
    /// Requests by what became of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merges_summary: Option<MergesSummary>,
    /// Where the target branch was seen last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub target_commit: Option<String>,
    /// The last commit that it landed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_landed_commit: Option<String>,
    /// Details, one of a type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Requests by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MergesSummary {
    /// Ended ones, well or not.
    pub total: i32,
    /// Landed.
    pub succeeded: i32,
    /// Sent back or rejected.
    pub failed: i32,
    /// Waiting or under test.
    pub pending: i32,
}

/// What a Refinery is at.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum RefineryPhase {
    /// Nothing waits.
    Idle,
    /// Something is tested or landed.
    Processing,
    /// It cannot work; the conditions say why.
    Error,
}
