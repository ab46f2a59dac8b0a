//! The ledger: what is known of a Polecat's attempts, kept in annotation `gastown.io/ledger`. It is
//! written before a pod's finalizer is removed, so that a finished task is known to be finished
//! when every status and pod is gone.

use gastown_types::{BranchName, CommitId, text};
use serde::{Deserialize, Serialize};

use super::saved_work::{self, Lost, SavedWork};
use super::trace_facts::Marks;
use crate::report::Usage;

/// The version of the format that this code writes. A ledger of another version is read for what is
/// known of it: fields and ends are only ever added, and an unknown end reads as [`End::Unknown`].
pub const VERSION: u32 = 1;

/// The longest ledger, in bytes.
pub const MAX_BYTES: usize = 8192;

/// How many accounted pods are remembered beyond those that still exist.
const MAX_PODS: usize = 16;

/// The longest untrusted text that is kept, in characters.
const MAX_TEXT: usize = 400;

/// What is known of a Polecat's attempts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// [`VERSION`].
    pub v: u32,
    /// The number of the last attempt that has an outcome; 0 before the first.
    #[serde(default)]
    pub attempt: u32,
    /// The attempt at which the budget was last reset: it counts those after this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forgiven: u32,
    /// Respawns since the budget was last reset.
    #[serde(default)]
    pub respawns: Respawns,
    /// How often in a row the same attempt was put off (a missing Secret, refused credentials, a
    /// busy service).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waits: u32,
    /// Since when the model's service has asked to wait again and again, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<i64>,
    /// The work branch on the remote, if it exists, was made by a pod of this Polecat.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ours: bool,
    /// The work branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    /// The last commit of the work branch that the sidecar saw on the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The merge base of `commit` and the target branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<CommitId>,
    /// The digest of the changes that were done last, as the sidecar made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<String>,
    /// What is saved on the remote beside the work branch, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saved: Vec<SavedWork>,
    /// Work that is gone with a pod: what the last such pod lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// How the last accounted pod ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
    /// The times of the pod that `last` is about, for the spans of the life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<Marks>,
    /// The uids of accounted pods, newest last, bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
    /// The hash of the spec that the last attempt was made from: another one resets the budget.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub spec: String,
    /// The last value of `gastown.io/retry` that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// The MergeRequest that landed, when one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landed: Option<Landed>,
    /// When the first pod started, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<i64>,
    /// The model that answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Tokens and money of all attempts.
    #[serde(default)]
    pub usage: Usage,
}

/// A MergeRequest that landed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Landed {
    /// The MergeRequest's name.
    pub request: String,
    /// When it landed, in seconds since 1970.
    pub at: i64,
}

/// Respawns by their cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Respawns {
    /// The platform's: evicted, node lost, preempted, outcome unknown.
    #[serde(skip_serializing_if = "is_zero")]
    pub infrastructure: u32,
    /// The agent's container ran out of memory.
    #[serde(skip_serializing_if = "is_zero")]
    pub oom: u32,
    /// The agent crashed or failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub crashed: u32,
}

impl Respawns {
    /// The sum of all causes.
    pub fn total(self) -> u32 {
        self.infrastructure.saturating_add(self.oom).saturating_add(self.crashed)
    }
}

/// How a pod ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Last {
    /// What follows.
    pub end: End,
    /// The reason for conditions, in CamelCase.
    pub reason: String,
    /// One sentence for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the pod ended, in seconds since 1970.
    pub at: i64,
    /// The next attempt does not start before this time, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Whether its work is known to be on the remote: `false` when it is lost or nobody knows,
    /// absent where it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<bool>,
}

/// What follows from a pod's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    /// The work is on the remote and is to be merged.
    Done,
    /// The task is finished and there is nothing to merge.
    DoneWithoutChanges,
    /// Something outside is missing: the same attempt again later, at no cost.
    Waits,
    /// It was drained: the same attempt continues when the Polecat is wanted to work again.
    Drained,
    /// It failed: the next attempt, at the cost of a respawn.
    Retries,
    /// The model's service asked to wait: the same attempt again later, at no cost.
    Later,
    /// A person is needed.
    Stuck,
    /// An end of a later version. Nothing follows from it here, and it costs nothing.
    #[serde(other)]
    Unknown,
}

/// Why a ledger cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// It is longer than [`MAX_BYTES`].
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It is not a ledger.
    #[error("it is not a ledger: {0}")]
    Malformed(String),
}

// serde's skip_serializing_if passes a reference
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// An untrusted text as one line without hidden characters, of at most 400 characters.
pub fn sanitize(text: &str) -> String {
    text::line(text, MAX_TEXT)
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            v: VERSION,
            attempt: 0,
            forgiven: 0,
            respawns: Respawns::default(),
            waits: 0,
            waiting_since: None,
            ours: false,
            branch: None,
            commit: None,
            base: None,
            changes: None,
            saved: Vec::new(),
            lost: None,
            last: None,
            marks: None,
            pods: Vec::new(),
            spec: String::new(),
            retry: None,
            landed: None,
            started: None,
            model: None,
            usage: Usage::default(),
        }
    }
}

impl Ledger {
    /// Reads the annotation, which anybody who may edit the Polecat may have written.
    pub fn parse(text: &str) -> Result<Self, LedgerError> {
        if text.len() > MAX_BYTES {
            return Err(LedgerError::TooLong);
        }
        let mut ledger: Self = serde_json::from_str(text)
            .map_err(|e| LedgerError::Malformed(sanitize(&e.to_string())))?;
        ledger.v = VERSION;
        ledger.forgiven = ledger.forgiven.min(ledger.attempt);
        ledger.changes = ledger.changes.map(|digest| sanitize(&digest));
        if let Some(last) = &mut ledger.last {
            last.reason = sanitize(&last.reason);
            last.message = sanitize(&last.message);
        }
        ledger.marks = ledger.marks.map(Marks::bounded);
        ledger.lost = ledger.lost.map(Lost::bounded);
        saved_work::bound(&mut ledger.saved);
        Ok(ledger)
    }

    /// The annotation's text.
    pub fn render(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether it has this pod's outcome.
    pub fn accounts_for(&self, pod_uid: &str) -> bool {
        self.pods.iter().any(|p| p == pod_uid)
    }

    /// Adds an accounted pod; drops the oldest that no longer exist.
    pub fn add_pod(&mut self, uid: &str, existing: &[&str]) {
        self.pods.push(uid.to_owned());
        let mut excess = self.pods.len().saturating_sub(MAX_PODS);
        self.pods.retain(|p| {
            let drop = excess > 0 && !existing.contains(&p.as_str());
            excess -= usize::from(drop);
            !drop
        });
    }

    /// What the pod of the last attempt lost.
    pub fn lost_last(&self) -> Option<&Lost> {
        let current = self.last.as_ref().is_some_and(|l| l.saved == Some(false));
        self.lost.as_ref().filter(|lost| current && lost.attempt == self.attempt)
    }

    /// How the last accounted pod ended, if one did.
    pub fn end(&self) -> Option<End> {
        self.last.as_ref().map(|l| l.end)
    }

    /// Whether the task is finished, whether or not it has been merged.
    pub fn finished(&self) -> bool {
        matches!(self.end(), Some(End::Done | End::DoneWithoutChanges))
    }

    /// The number of the next attempt.
    pub fn next_attempt(&self) -> u32 {
        match self.end() {
            Some(End::Waits | End::Drained | End::Later | End::Unknown) => self.attempt.max(1),
            _ => self.attempt.saturating_add(1),
        }
    }

    /// How many attempts of the budget are spent.
    pub fn spent(&self) -> u32 {
        self.attempt.saturating_sub(self.forgiven)
    }

    /// Resets the budget: a person changed the task or asked for a retry.
    pub fn rearm(&mut self, spec: &str, retry: Option<&String>) {
        self.forgiven = self.attempt;
        self.respawns = Respawns::default();
        self.waits = 0;
        self.waiting_since = None;
        spec.clone_into(&mut self.spec);
        self.retry = retry.cloned();
        if let Some(last) = &mut self.last {
            last.end = End::Retries;
            last.until = None;
        }
    }
}
