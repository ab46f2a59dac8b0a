use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Watches over the health of a rig's polecats.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gastown.gastown.io",
    version = "v1alpha1",
    kind = "Witness",
    plural = "witnesses",
    shortname = "wit",
    category = "gastown",
    namespaced,
    status = "WitnessStatus",
    derive = "PartialEq",
    doc = "Witness watches over the health of a rig's polecats.",
    printcolumn(name = "Rig", type_ = "string", json_path = ".spec.rigRef"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.polecatsSummary.running"),
    printcolumn(name = "Stuck", type_ = "integer", json_path = ".status.polecatsSummary.stuck"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct WitnessSpec {
    /// The rig whose polecats it watches.
    #[schemars(length(min = 1, max = 253))]
    pub rig_ref: String,
    /// How often it looks.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub health_check_interval: String,
    /// How long a polecat may be silent before it counts as stuck.
    #[serde(default = "default_threshold")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub stuck_threshold: String,
    /// Who is told.
    #[serde(default = "default_target")]
    #[schemars(length(max = 253))]
    pub escalation_target: String,
}

/// A [`WitnessSpec`] without its rig and without defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WitnessTemplate {
    /// How often it looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub health_check_interval: Option<String>,
    /// How long a polecat may be silent before it counts as stuck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub stuck_threshold: Option<String>,
    /// Who is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub escalation_target: Option<String>,
}

impl WitnessSpec {
    /// The Witness of a rig that asks for nothing special.
    pub fn of_rig(rig: impl Into<String>) -> Self {
        WitnessTemplate::default().for_rig(rig)
    }
}

impl WitnessTemplate {
    /// The spec of a rig's Witness, the schema's defaults filled in.
    pub fn for_rig(&self, rig: impl Into<String>) -> WitnessSpec {
        WitnessSpec {
            rig_ref: rig.into(),
            health_check_interval: self.health_check_interval.clone().unwrap_or_else(default_interval),
            stuck_threshold: self.stuck_threshold.clone().unwrap_or_else(default_threshold),
            escalation_target: self.escalation_target.clone().unwrap_or_else(default_target),
        }
    }
}

fn default_interval() -> String {
    "30s".to_owned()
}

fn default_threshold() -> String {
    "15m".to_owned()
}

fn default_target() -> String {
    "mayor".to_owned()
}

/// What it saw last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WitnessStatus {
    /// The rig's health as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<WitnessPhase>,
    /// When it looked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_check_time: Option<Time>,
    /// Polecats by health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polecats_summary: Option<PolecatsSummary>,
    /// Details, one of a type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Polecats by health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolecatsSummary {
    /// All of the rig's.
    pub total: i32,
    /// At work.
    pub running: i32,
    /// Done.
    pub succeeded: i32,
    /// Failed.
    pub failed: i32,
    /// Silent for too long.
    pub stuck: i32,
}

/// A rig's health as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WitnessPhase {
    /// Nobody works.
    Pending,
    /// Polecats work and none is in trouble.
    Active,
    /// A polecat is stuck or failed.
    Degraded,
}
