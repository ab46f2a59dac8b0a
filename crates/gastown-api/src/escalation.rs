use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// One trouble that a person should hear of, once.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gastown.gastown.io",
    version = "v1alpha1",
    kind = "Escalation",
    plural = "escalations",
    shortname = "esc",
    category = "gastown",
    namespaced,
    status = "EscalationStatus",
    derive = "PartialEq",
    doc = "Escalation is one trouble that a person should hear of, once.",
    printcolumn(name = "Severity", type_ = "string", json_path = ".status.severity"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Rig", type_ = "string", json_path = ".spec.rigRef"),
    printcolumn(name = "Raises", type_ = "integer", json_path = ".status.raises"),
    printcolumn(name = "Summary", type_ = "string", json_path = ".spec.summary"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = spec_rules()))]
pub struct EscalationSpec {
    /// How bad it is; what became of that with time is in the status.
    pub severity: Severity,
    /// What tells this trouble from others, such as `polecat/web/toast/AttemptsSpent`. One open
    /// Escalation a cause.
    #[schemars(length(min = 1, max = 512))]
    pub cause: String,
    /// One sentence.
    #[schemars(length(min = 1, max = 1024))]
    pub summary: String,
    /// What a person needs besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub details: Option<String>,
    /// Who raised it, such as `polecat-ctl` or `agent`.
    #[schemars(length(min = 1, max = 253))]
    pub source: String,
    /// The rig whose Witness tells of it.
    #[schemars(length(min = 1, max = 253))]
    pub rig_ref: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub related_object: Option<RelatedObject>,
    /// Somebody looks at it: it is told no further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledgement>,
    /// Somebody is through with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Closing>,
}

/// What was raised stays what it was; a closed one stays closed, and the same trouble is a new
/// Escalation.
fn spec_rules() -> serde_json::Value {
    let fields = ["severity", "cause", "summary", "details", "source", "rigRef", "relatedObject"];
    let fixed = |f: &&str| {
        serde_json::json!({
            "rule": format!("has(self.{f}) == has(oldSelf.{f}) && (!has(self.{f}) || self.{f} == oldSelf.{f})"),
            "message": format!("spec.{f} is immutable: raise another Escalation"),
        })
    };
    let closed = serde_json::json!({
        "rule": "!has(oldSelf.closed) || (has(self.closed) && self.closed == oldSelf.closed)",
        "message": "spec.closed stays once it is set: raise another Escalation",
    });
    fields.iter().map(fixed).chain([closed]).collect()
}

/// How bad something is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Low,
    /// Look at it today.
    Medium,
    /// Look at it now.
    High,
    /// The town stands still.
    Critical,
}

impl Severity {
    /// The one of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|s| s.as_str() == text)
    }

    /// One worse; the worst stays.
    #[must_use]
    pub fn raised(self) -> Self {
        match self {
            Self::Low => Self::Medium,
            Self::Medium => Self::High,
            Self::High | Self::Critical => Self::Critical,
        }
    }
}

/// An object of the town.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RelatedObject {
    /// Its kind, such as Polecat.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Its namespace, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Who looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Acknowledgement {
    /// Who.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
}

/// Who is through with it, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Closing {
    /// Who.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
    /// Why.
    #[schemars(length(min = 1, max = 4096))]
    pub reason: String,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EscalationStatus {
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<EscalationPhase>,
    /// How bad it is by now: what nobody acknowledges becomes worse with time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// How often it was raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub raises: Option<i32>,
    /// When it was raised last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_raised_at: Option<Time>,
    /// When it became worse last, because nobody had acknowledged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub severity_raised_at: Option<Time>,
    /// Why it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub closed_reason: Option<String>,
    /// Who was told, one a route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub deliveries: Vec<Delivery>,
    /// Details, one of a type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Where an Escalation is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum EscalationPhase {
    /// Nobody looks at it yet.
    Open,
    /// Somebody does.
    Acknowledged,
    /// It is over.
    Closed,
}

/// What one route was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The route's name.
    #[schemars(length(max = 63))]
    pub route: String,
    /// The severity that was told, or is to be.
    pub severity: Severity,
    /// How it went.
    pub state: DeliveryState,
    /// How often it was tried at this severity.
    #[schemars(range(min = 0))]
    pub attempts: i32,
    /// When it was tried last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_attempt_at: Option<Time>,
    /// When it is tried next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub next_attempt_at: Option<Time>,
    /// Why it did not go through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// How telling one route went.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum DeliveryState {
    /// It is tried again.
    Pending,
    /// It was taken.
    Sent,
    /// It was tried often enough.
    Failed,
}
