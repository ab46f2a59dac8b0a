use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{SecretKeyRef, Severity, schema};

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
    printcolumn(
        name = "Running",
        type_ = "integer",
        json_path = ".status.polecatsSummary.running"
    ),
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
    /// Who is told of what, by severity. Without any, everything goes to the mayor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-validations" = route_names()))]
    pub routes: Vec<Route>,
    /// How long an agent may be silent before it counts as quiet, or as waiting for a person; by
    /// default 2m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub quiet_threshold: Option<String>,
    /// How long a wedged agent is left alone before it is nudged; by default 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub nudge_after: Option<String>,
    /// How long a nudged agent may stay silent before its work is saved and its pod restarted; by
    /// default 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub restart_after: Option<String>,
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
    /// Who is told of what, by severity. Without any, everything goes to the mayor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-validations" = route_names()))]
    pub routes: Vec<Route>,
    /// How long an agent may be silent before it counts as quiet, or as waiting for a person; by
    /// default 2m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub quiet_threshold: Option<String>,
    /// How long a wedged agent is left alone before it is nudged; by default 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub nudge_after: Option<String>,
    /// How long a nudged agent may stay silent before its work is saved and its pod restarted; by
    /// default 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub restart_after: Option<String>,
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
            health_check_interval: self
                .health_check_interval
                .clone()
                .unwrap_or_else(default_interval),
            stuck_threshold: self.stuck_threshold.clone().unwrap_or_else(default_threshold),
            escalation_target: self.escalation_target.clone().unwrap_or_else(default_target),
            routes: self.routes.clone(),
            quiet_threshold: self.quiet_threshold.clone(),
            nudge_after: self.nudge_after.clone(),
            restart_after: self.restart_after.clone(),
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

fn route_names() -> serde_json::Value {
    let name = |r: &str| format!("(has({r}.name) ? {r}.name : {r}.channel)");
    let rule = format!("self.all(a, self.exists_one(b, {} == {}))", name("b"), name("a"));
    schema::rules(&[(
        &rule,
        "two routes have one name: give each a name of its own (without one it is named as its channel)",
    )])
}

/// Who is told of an Escalation from a severity on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = route_rules()))]
pub struct Route {
    /// What deliveries are listed under; by default the channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// The least severity that is told here.
    #[serde(default = "least")]
    #[schemars(extend("default" = "low"))]
    pub min_severity: Severity,
    /// How it is told.
    pub channel: Channel,
    /// For channel `webhook`: a JSON object is posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookChannel>,
    /// For channel `slack`: an incoming webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<WebhookChannel>,
    /// For channel `email`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<EmailChannel>,
}

fn least() -> Severity {
    Severity::Low
}

fn route_rules() -> serde_json::Value {
    let rule = |c: &str| {
        (
            format!("(self.channel == '{c}') == has(self.{c})"),
            format!("{c} is set when channel is {c}, and only then"),
        )
    };
    let all: Vec<_> = ["webhook", "slack", "email"].map(rule).into();
    all.iter()
        .map(|(rule, message)| serde_json::json!({ "rule": rule, "message": message }))
        .collect()
}

impl Route {
    /// A route to the mayor of everything.
    pub fn mayor() -> Self {
        Self {
            name: None,
            min_severity: least(),
            channel: Channel::Mayor,
            webhook: None,
            slack: None,
            email: None,
        }
    }

    /// What deliveries are listed under.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.channel.as_str())
    }
}

/// How people are told.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// By an Event on the Escalation.
    Mayor,
    /// By a POST of JSON.
    Webhook,
    /// By Slack.
    Slack,
    /// By e-mail.
    Email,
}

/// A URL that is a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookChannel {
    /// Where the URL is, in the Witness's namespace.
    pub url_secret_ref: SecretKeyRef,
}

/// A mail server, and who gets mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmailChannel {
    /// The server.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Its port; by default 465, 587 or 25, as `tls` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// How the connection is protected.
    #[serde(default = "starttls")]
    #[schemars(extend("default" = "StartTLS"))]
    pub tls: MailTls,
    /// The sender's address.
    #[schemars(length(min = 3, max = 320))]
    pub from: String,
    /// Who gets it.
    #[schemars(length(min = 1, max = 16), inner(length(min = 3, max = 320)))]
    pub to: Vec<String>,
    /// A Secret in the Witness's namespace with `username` and `password`; without one nobody logs
    /// in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<crate::ObjectName>,
}

/// How a connection to a mail server is protected.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum MailTls {
    /// From the first byte.
    TLS,
    /// From the first command on, or not at all.
    StartTLS,
    /// Not: for a relay in the same cluster.
    None,
}

fn starttls() -> MailTls {
    MailTls::StartTLS
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
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum WitnessPhase {
    /// Nobody works.
    Pending,
    /// Polecats work and none is in trouble.
    Active,
    /// A polecat is stuck or failed.
    Degraded,
}
