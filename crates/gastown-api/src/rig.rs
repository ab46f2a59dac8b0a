use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bead_store::BeadStoreTemplate;
use crate::polecat_template::PolecatTemplate;
use crate::refinery::RefineryTemplate;
use crate::schema;
use crate::witness::WitnessTemplate;

/// A repository and the team of agents that works on it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gastown.gastown.io",
    version = "v1alpha1",
    kind = "Rig",
    plural = "rigs",
    shortname = "rg",
    category = "gastown",
    status = "RigStatus",
    derive = "PartialEq",
    doc = "Rig is a repository and the team of agents that works on it.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Polecats", type_ = "integer", json_path = ".status.polecatCount"),
    printcolumn(name = "Convoys", type_ = "integer", json_path = ".status.activeConvoys"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("self.beadsPrefix == oldSelf.beadsPrefix", "spec.beadsPrefix is immutable: make a new Rig for another prefix"),
])))]
pub struct RigSpec {
    /// The repository, such as `git@github.com:org/repo.git` or `https://host/org/repo`.
    #[serde(rename = "gitURL")]
    #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = schema::git_url()))]
    pub git_url: String,
    /// What the ids of this rig's beads begin with: 2 to 10 lowercase letters.
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::rules(&[
        ("self.matches('^[a-z]{2,10}$')", "beadsPrefix must be 2 to 10 lowercase letters"),
        ("!(self in ['hq', 'system', 'default'])", "beadsPrefix must not be one of the reserved hq, system, default: choose another"),
    ])))]
    pub beads_prefix: String,
    /// Limits and tastes.
    #[serde(default)]
    pub settings: RigSettings,
    /// Parked: nothing new starts, running work finishes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Namespaces whose Polecats and MergeRequests may use this rig; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_namespaces: Option<Vec<String>>,
    /// What the Polecats that convoys and `sling` start for this rig are like; it is copied when
    /// one is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polecat_template: Option<PolecatTemplate>,
    /// What the Refinery that this rig creates is like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refinery: Option<RefineryTemplate>,
    /// What the Witness that this rig creates is like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<WitnessTemplate>,
    /// What the BeadStore that this rig creates is like. Without it none is created; one that a
    /// person wrote serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beads: Option<BeadStoreTemplate>,
}

/// Limits and tastes of a rig.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RigSettings {
    /// The pool that names of polecats come from.
    #[serde(default = "default_theme")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::rules(&[
        ("self in ['mad-max', 'minerals', 'wasteland']", "namepoolTheme must be one of mad-max, minerals, wasteland"),
    ])))]
    pub namepool_theme: String,
    /// How many polecats may have a pod at a time.
    #[serde(default = "default_max_polecats")]
    #[schemars(range(min = 1, max = 100))]
    pub max_polecats: i32,
}

impl Default for RigSettings {
    fn default() -> Self {
        Self { namepool_theme: default_theme(), max_polecats: default_max_polecats() }
    }
}

fn default_theme() -> String {
    "mad-max".to_owned()
}

fn default_max_polecats() -> i32 {
    8
}

/// What rig-ctl sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RigStatus {
    /// The rig as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Initializing"))]
    pub phase: Option<RigPhase>,
    /// Polecats of this rig in all namespaces and phases.
    #[serde(default)]
    pub polecat_count: i32,
    /// Polecats by phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polecats: Option<PolecatCounts>,
    /// Convoys of this rig that are in progress.
    #[serde(default)]
    pub active_convoys: i32,
    /// The rig's Witness is there.
    #[serde(default)]
    pub witness_created: bool,
    /// The rig's Refinery is there.
    #[serde(default)]
    pub refinery_created: bool,
    /// Where its children are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub child_namespace: Option<String>,
    /// Details, one of a type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// How many polecats are in which phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolecatCounts {
    /// Idle because that is wanted.
    pub idle: i32,
    /// Wanted to work and waiting for admission or for something that lacks.
    pub queued: i32,
    /// With a pod at work.
    pub working: i32,
    /// Finished.
    pub done: i32,
    /// Stopped, needing a person or a change.
    pub stuck: i32,
}

/// A rig as a whole.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum RigPhase {
    /// Its children are being made.
    Initializing,
    /// Its children are ready.
    Ready,
    /// Something of it does not work; the conditions say what.
    Degraded,
}
