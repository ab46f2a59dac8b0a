use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bead_store::BeadStoreTemplate;
use crate::duration;
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
    /// URL of the repository, such as `git@github.com:org/repo.git` or `https://host/org/repo`.
    #[serde(rename = "gitURL")]
    #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = schema::git_url()))]
    pub git_url: String,
    /// What the ids of this rig's beads begin with: 2 to 10 lowercase letters. Immutable.
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::rules(&[
        ("self.matches('^[a-z]{2,10}$')", "beadsPrefix must be 2 to 10 lowercase letters"),
        ("!(self in ['hq', 'system', 'default'])", "beadsPrefix must not be one of the reserved hq, system, default: choose another"),
    ])))]
    pub beads_prefix: String,
    /// Rig settings: polecat limit and name pool.
    #[serde(default)]
    pub settings: RigSettings,
    /// Whether the rig is suspended: nothing new starts, and running work finishes. Defaults to
    /// false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Namespaces whose Polecats and MergeRequests may use this rig. By default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_namespaces: Option<Vec<String>>,
    /// What Polecats started by convoys for this rig look like. It is copied into each Polecat when
    /// that is created. By default the schema's defaults apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polecat_template: Option<PolecatTemplate>,
    /// Settings of the Refinery that rig-ctl creates for this rig. By default it has the schema's
    /// defaults and no gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refinery: Option<RefineryTemplate>,
    /// Settings of the Witness that rig-ctl creates for this rig. By default it has the schema's
    /// defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<WitnessTemplate>,
    /// Settings of the BeadStore that rig-ctl creates for this rig; `{}` creates one with the
    /// schema's defaults. Without this field none is created, and a BeadStore that a person created
    /// is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beads: Option<BeadStoreTemplate>,
}

/// Rig settings: polecat limit and name pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RigSettings {
    /// What the names of the Polecats that convoys create begin with: `mad-max`, `minerals` or
    /// `wasteland`. A change renames no Polecat. Defaults to `mad-max`.
    #[serde(default = "default_theme")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::rules(&[
        ("self in ['mad-max', 'minerals', 'wasteland']", "namepoolTheme must be one of mad-max, minerals, wasteland"),
    ])))]
    pub namepool_theme: String,
    /// How many Polecats of the rig may have a pod at the same time. Further ones wait with reason
    /// `AtCapacity`. Defaults to 8.
    #[serde(default = "default_max_polecats")]
    #[schemars(range(min = 1, max = 100))]
    pub max_polecats: i32,
    /// How long after the landing is kept what a Polecat saved beside its work branch, such as `72h`.
    /// After that `status.saved` does not name it any longer, and its refs are deleted from the
    /// remote. What a Polecat saved that was deleted before its work landed stays. By default 168h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub wip_retention: Option<String>,
}

/// [`RigSettings::wip_retention`] when it is not set: seven days.
const WIP_RETENTION: Duration = Duration::from_hours(168);

impl RigSpec {
    /// Whether Polecats and MergeRequests of a namespace may use the rig.
    pub fn admits(&self, namespace: &str) -> bool {
        self.allowed_namespaces.as_ref().is_none_or(|all| all.iter().any(|n| n == namespace))
    }
}

impl RigSettings {
    /// How long saved work is named after the landing; the default where the field is not set or not a duration.
    pub fn wip_retention(&self) -> Duration {
        self.wip_retention.as_deref().and_then(duration::parse).unwrap_or(WIP_RETENTION)
    }
}

impl Default for RigSettings {
    fn default() -> Self {
        Self {
            namepool_theme: default_theme(),
            max_polecats: default_max_polecats(),
            wip_retention: None,
        }
    }
}

fn default_theme() -> String {
    "mad-max".to_owned()
}

fn default_max_polecats() -> i32 {
    8
}

/// The observed state of a Rig.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RigStatus {
    /// The rig as a whole. Defaults to `Initializing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Initializing"))]
    pub phase: Option<RigPhase>,
    /// Number of Polecats of this rig, in all namespaces and phases.
    #[serde(default)]
    pub polecat_count: i32,
    /// Number of Polecats by phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polecats: Option<PolecatCounts>,
    /// Number of Convoys of this rig that are in progress.
    #[serde(default)]
    pub active_convoys: i32,
    /// Whether the rig has a Witness.
    #[serde(default)]
    pub witness_created: bool,
    /// Whether the rig has a Refinery.
    #[serde(default)]
    pub refinery_created: bool,
    /// Namespace of the children that rig-ctl creates: the release's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub child_namespace: Option<String>,
    /// Conditions, keyed by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Number of Polecats by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolecatCounts {
    /// Number of Polecats that are idle because that is wanted.
    pub idle: i32,
    /// Number of Polecats that should work and have no pod: they wait for a slot or for something
    /// that is missing.
    pub queued: i32,
    /// Number of Polecats with a pod at work.
    pub working: i32,
    /// Number of Polecats that are finished.
    pub done: i32,
    /// Number of Polecats that have stopped and need a person or a change.
    pub stuck: i32,
}

/// A rig as a whole.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum RigPhase {
    /// Children are being created or are not ready yet.
    Initializing,
    /// All children are ready.
    Ready,
    /// A child failed or cannot be created. The condition `Degraded` names it and the reason.
    Degraded,
    /// A value of a later version. It is read, and never written.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}
