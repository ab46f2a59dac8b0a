//! What only the spans of a Polecat's life need: from objects, and kept on them.

use gastown_trace::Context;
use gastown_types::text;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a snapshot shows that only the spans of the life need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceFacts {
    /// The annotation `gastown.io/traceparent`.
    pub traceparent: Option<String>,
    /// When the claim on its bead was taken.
    pub claimed: Option<Timestamp>,
    /// When its deletion was asked for.
    pub deleted: Option<Timestamp>,
}

/// What a pod shows that only the spans of the life need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodTrace {
    /// How the wait for it began.
    pub begin: Option<Begin>,
    /// When `git-init` started.
    pub init: Option<Timestamp>,
    /// When the agent's container started.
    pub agent: Option<Timestamp>,
    /// When the agent's container ended.
    pub agent_ended: Option<Timestamp>,
}

/// What a MergeRequest shows that only the spans of the life need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestTrace {
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The last red run of a gate on it.
    pub red_run: Option<String>,
}

/// How the wait for an attempt began: annotation `gastown.io/trace-begin` of its pod, written with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Begin {
    /// When it began, in seconds since 1970.
    pub since: i64,
    /// When the claim on the bead was taken, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<i64>,
    /// The `traceparent` of the red run that sent the work back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The agent's kind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
}

/// The times of the pod that was accounted for last, in the ledger. Times are in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marks {
    /// The attempt's number.
    pub attempt: u32,
    /// The pod's uid.
    pub pod: String,
    /// How the wait for it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<Begin>,
    /// When the pod was created.
    pub created: i64,
    /// When `git-init` started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<i64>,
    /// When the agent's container started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<i64>,
    /// When the agent's container ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_ended: Option<i64>,
    /// When the pod ended.
    pub ended: i64,
    /// Why, in CamelCase.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whether the attempt failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

impl Begin {
    /// Reads the annotation, which anybody who may edit the pod may have written.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 512 {
            return None;
        }
        let read: Self = serde_json::from_str(text).ok()?;
        Some(read.bounded())
    }

    /// The annotation's text.
    pub fn render(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn bounded(mut self) -> Self {
        self.agent = text::line(&self.agent, 64);
        self.cause = self
            .cause
            .filter(|cause| cause.parse::<Context>().is_ok_and(|c| c.to_string() == *cause));
        self
    }
}

impl Marks {
    /// The same, of an annotation that anybody may have written.
    pub(super) fn bounded(mut self) -> Self {
        self.begin = self.begin.map(Begin::bounded);
        self.pod = text::line(&self.pod, 64);
        self.reason = text::line(&self.reason, 64);
        self
    }
}
