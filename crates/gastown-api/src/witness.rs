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
    /// Name of the rig whose Polecats are watched. The oldest Witness of a rig is the active one.
    #[schemars(length(min = 1, max = 253))]
    pub rig_ref: String,
    /// Time between two checks of all Polecats, as a duration. At least 1s and at most 10m are
    /// used. Defaults to `30s`.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub health_check_interval: String,
    /// How long an agent may do nothing before it counts as wedged, as a duration. A tool call that
    /// uses no CPU gets four times this. Defaults to `15m`.
    #[serde(default = "default_threshold")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub stuck_threshold: String,
    /// Kept for manifests of the Go operator. Only `mayor` works; for anything else set `routes`.
    /// Defaults to `mayor`.
    #[serde(default = "default_target")]
    #[schemars(length(max = 253))]
    pub escalation_target: String,
    /// Where Escalations of the rig are sent, by severity. Without routes all of them go to the
    /// channel `mayor`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-validations" = route_names()))]
    pub routes: Vec<Route>,
    /// How long an agent may send no events before it counts as quiet or as waiting for a person,
    /// as a duration. By default 2m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub quiet_threshold: Option<String>,
    /// How long a wedged agent is left alone before it gets a nudge, as a duration. By default 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub nudge_after: Option<String>,
    /// How long a nudged agent may do nothing before its work is saved and its pod is replaced, as
    /// a duration. By default 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub restart_after: Option<String>,
}

/// A [`WitnessSpec`] without its rig and without defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WitnessTemplate {
    /// Time between two checks of all Polecats, as a duration. At least 1s and at most 10m are
    /// used. By default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub health_check_interval: Option<String>,
    /// How long an agent may do nothing before it counts as wedged, as a duration. A tool call that
    /// uses no CPU gets four times this. By default 15m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub stuck_threshold: Option<String>,
    /// Kept for manifests of the Go operator. Only `mayor` works; for anything else set `routes`.
    /// By default `mayor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub escalation_target: Option<String>,
    /// Where Escalations of the rig are sent, by severity. Without routes all of them go to the
    /// channel `mayor`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-validations" = route_names()))]
    pub routes: Vec<Route>,
    /// How long an agent may send no events before it counts as quiet or as waiting for a person,
    /// as a duration. By default 2m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub quiet_threshold: Option<String>,
    /// How long a wedged agent is left alone before it gets a nudge, as a duration. By default 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub nudge_after: Option<String>,
    /// How long a nudged agent may do nothing before its work is saved and its pod is replaced, as
    /// a duration. By default 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-validations" = schema::duration()))]
    pub restart_after: Option<String>,
}

impl WitnessSpec {
    /// The Witness of a rig with the schema's defaults.
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

/// Where Escalations of a severity and above are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = route_rules()))]
pub struct Route {
    /// Name of the route in `status.deliveries` of an Escalation. By default the name of the
    /// channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// The lowest severity that is sent on this route. Defaults to `low`.
    #[serde(default = "least")]
    #[schemars(extend("default" = "low"))]
    pub min_severity: Severity,
    /// How messages are sent.
    pub channel: Channel,
    /// Settings of the channel `webhook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookChannel>,
    /// Settings of the channel `slack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<WebhookChannel>,
    /// Settings of the channel `email`.
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

/// How messages about an Escalation are sent.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// A Kubernetes Event on the Escalation.
    Mayor,
    /// A POST of a JSON object to a URL.
    Webhook,
    /// A message through an incoming webhook of Slack.
    Slack,
    /// A mail through an SMTP server.
    Email,
    /// A value of a later version. Nothing is begun because of it, and a condition names it.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// A URL that is a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookChannel {
    /// Secret and key, in the Witness's namespace, that hold the URL.
    pub url_secret_ref: SecretKeyRef,
}

/// A mail server and the recipients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmailChannel {
    /// Host name of the SMTP server.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Port of the SMTP server. By default 465 for `TLS`, 587 for `StartTLS` and 25 for `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// How the connection is encrypted. Defaults to `StartTLS`.
    #[serde(default = "starttls")]
    #[schemars(extend("default" = "StartTLS"))]
    pub tls: MailTls,
    /// Address of the sender.
    #[schemars(length(min = 3, max = 320))]
    pub from: String,
    /// Addresses of the recipients.
    #[schemars(length(min = 1, max = 16), inner(length(min = 3, max = 320)))]
    pub to: Vec<String>,
    /// A Secret in the Witness's namespace with the keys `username` and `password`. By default the
    /// client does not log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<crate::ObjectName>,
}

/// How a connection to a mail server is encrypted.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum MailTls {
    /// With TLS from the first byte.
    TLS,
    /// With STARTTLS; a server that does not offer it gets no mail.
    StartTLS,
    /// Not at all. For a relay in the same cluster.
    None,
    /// A value of a later version. Nothing is begun because of it, and a condition names it.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

fn starttls() -> MailTls {
    MailTls::StartTLS
}

/// The observed state of a Witness.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WitnessStatus {
    /// Health of the rig's Polecats as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<WitnessPhase>,
    /// Time of the last check of all Polecats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_check_time: Option<Time>,
    /// Number of Polecats by health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polecats_summary: Option<PolecatsSummary>,
    /// Conditions, keyed by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Number of Polecats by health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolecatsSummary {
    /// Number of all Polecats of the rig.
    pub total: i32,
    /// Number of Polecats at work, wedged ones included.
    pub running: i32,
    /// Number of Polecats that are Done.
    pub succeeded: i32,
    /// Number of Polecats that are Stuck after a failure.
    pub failed: i32,
    /// Number of Polecats that are Stuck without a failure, or at work without making progress.
    pub stuck: i32,
}

/// Health of a rig's Polecats as a whole.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum WitnessPhase {
    /// No Polecat is at work.
    Pending,
    /// Polecats are at work, and none has failed or is stuck.
    Active,
    /// A Polecat has failed or is stuck.
    Degraded,
    /// A value of a later version. It is read, and never written.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}
