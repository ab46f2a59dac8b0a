use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// One problem that a person should know about, once.
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
    doc = "Escalation is one problem that a person should know about, once.",
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
    /// Severity of the problem when it was raised. `status.severity` has the present one.
    /// Immutable.
    pub severity: Severity,
    /// Key of the problem, such as `polecat/web/toast/stuck`. There is one open Escalation per
    /// cause and namespace. Immutable.
    #[schemars(length(min = 1, max = 512))]
    pub cause: String,
    /// The problem in one sentence. Immutable.
    #[schemars(length(min = 1, max = 1024))]
    pub summary: String,
    /// What a person needs to know beside the summary. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub details: Option<String>,
    /// Who raised the Escalation, such as `polecat-ctl` or `agent`. Immutable.
    #[schemars(length(min = 1, max = 253))]
    pub source: String,
    /// Name of the rig whose Witness sends the messages. Immutable.
    #[schemars(length(min = 1, max = 253))]
    pub rig_ref: String,
    /// The object that the problem is about. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub related_object: Option<RelatedObject>,
    /// Set by a person who looks at the problem. Its severity does not rise any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledgement>,
    /// Set by a person: who closes the Escalation, and why. It cannot be opened again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Closing>,
}

/// The description of the problem never changes, and a closed Escalation stays closed: the same
/// problem, when it comes again, is another Escalation.
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

/// Severity of a problem.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For information.
    Low,
    /// Needs a look today.
    Medium,
    /// Needs a look now.
    High,
    /// Work of the whole rig has stopped.
    // So does a value of a later version read: every route carries it.
    #[serde(other)]
    Critical,
}

impl Severity {
    /// The severity of this name; none where it is empty. A name of a later version reads as
    /// `Critical`, as in an object.
    pub fn parse(text: &str) -> Option<Self> {
        let known = Self::ALL.iter().copied().find(|s| s.as_str() == text);
        known.or((!text.is_empty()).then_some(Self::Critical))
    }

    /// The next higher severity; `Critical` stays.
    #[must_use]
    pub fn raised(self) -> Self {
        match self {
            Self::Low => Self::Medium,
            Self::Medium => Self::High,
            Self::High | Self::Critical => Self::Critical,
        }
    }
}

/// An object of the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RelatedObject {
    /// Kind of the object, such as `Polecat`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Namespace of the object. Absent for a Rig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Who looks at a problem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Acknowledgement {
    /// Name of the person who looks at the problem.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
}

/// Who closes an Escalation, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Closing {
    /// Name of the person who closes the Escalation.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
    /// Why the Escalation is closed, as text for people.
    #[schemars(length(min = 1, max = 4096))]
    pub reason: String,
}

/// The observed state of an Escalation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EscalationStatus {
    /// Where the Escalation is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<EscalationPhase>,
    /// The present severity. It rises by one step for each 4 hours without an acknowledgement, at
    /// most twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// How many times the problem was reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub raises: Option<i32>,
    /// Time of the last report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_raised_at: Option<Time>,
    /// Time at which the severity last rose because nobody had acknowledged the Escalation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub severity_raised_at: Option<Time>,
    /// Why the Escalation is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub closed_reason: Option<String>,
    /// One entry per route with the result of sending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub deliveries: Vec<Delivery>,
    /// Conditions, keyed by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Where an Escalation is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum EscalationPhase {
    /// Nobody has acknowledged the problem yet.
    Open,
    /// A person looks at the problem.
    Acknowledged,
    /// A person closed the Escalation, or the problem went away. It is deleted after 7 days.
    Closed,
    /// A value of a later version. It is read, and never written.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// The result of sending on one route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Name of the route.
    #[schemars(length(max = 63))]
    pub route: String,
    /// The severity that was sent, or is to be sent.
    pub severity: Severity,
    /// Result of the last try.
    pub state: DeliveryState,
    /// How many times sending was tried at this severity.
    #[schemars(range(min = 0))]
    pub attempts: i32,
    /// Time of the last try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_attempt_at: Option<Time>,
    /// Time of the next try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub next_attempt_at: Option<Time>,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// Result of sending on one route.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum DeliveryState {
    /// The message was accepted.
    Sent,
    /// All 10 tries at this severity failed.
    Failed,
    /// The last try failed. There will be another.
    // So does a value of a later version read: at worst a message is sent twice.
    #[serde(other)]
    Pending,
}
