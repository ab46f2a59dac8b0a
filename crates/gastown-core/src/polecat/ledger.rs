//! The Polecat's memory: annotation `gastown.io/ledger`. Written before a pod's finalizer goes, so
//! that a finished task is known to be finished when every status and pod is gone.

use gastown_types::{BranchName, CommitId};
use serde::{Deserialize, Serialize};

use crate::report::Usage;

/// The format's version; another one reads as unreadable, never as empty.
pub const VERSION: u32 = 1;

/// No ledger of ours is longer.
pub const MAX_BYTES: usize = 8192;

/// So many accounted pods are remembered beyond those that still exist.
const MAX_PODS: usize = 16;

/// Texts of strangers are cut to this many characters before they are kept.
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
    /// How many attempts the last re-arming forgave: the budget counts from here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forgiven: u32,
    /// Respawns since the last re-arming.
    #[serde(default)]
    pub respawns: Respawns,
    /// How often in a row the same attempt was put off (missing Secret, rate limit).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waits: u32,
    /// The work branch on the remote, if it is there, was made by a pod of this Polecat.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ours: bool,
    /// The work branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    /// The last commit of it that the sidecar saw on the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The merge base of `commit` and the target branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<CommitId>,
    /// How the last accounted pod ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
    /// The uids of accounted pods, newest last, bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
    /// The hash of what the last attempt was asked to do: another one re-arms.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub spec: String,
    /// The value of `gastown.io/retry` that was acted on.
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

/// A landing that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Landed {
    /// The MergeRequest's name.
    pub request: String,
    /// When it landed, in seconds since 1970.
    pub at: i64,
}

/// Respawns by the class of fault that cost them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Respawns {
    /// Evicted, node lost, preempted, outcome unknown.
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
    /// All of them.
    pub fn total(self) -> u32 {
        self.infrastructure.saturating_add(self.oom).saturating_add(self.crashed)
    }
}

/// How a pod ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Last {
    /// What follows from it.
    pub end: End,
    /// One word for conditions.
    pub reason: String,
    /// One sentence for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the pod ended, in seconds since 1970.
    pub at: i64,
    /// Not again before this time, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

/// What follows from a pod's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    /// The work is on the remote and wants to be merged.
    Done,
    /// The task is finished and there is nothing to merge.
    DoneWithoutChanges,
    /// Something outside lacks: the same attempt again later, at no cost.
    Waits,
    /// A person's wish stopped it in order: the same attempt goes on when it is wanted again.
    Drained,
    /// A fault: the next attempt, at the cost of a respawn.
    Retries,
    /// The model's service asked to wait: the next attempt later, without a respawn.
    Later,
    /// A person is needed.
    Stuck,
}

/// Why a ledger cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// It is longer than any of ours.
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It is no ledger.
    #[error("it is not a ledger: {0}")]
    Malformed(String),
    /// It is of another version.
    #[error("it is of version {0}; this controller writes version {VERSION}")]
    Version(u32),
}

// serde's skip_serializing_if passes a reference
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A stranger's text made fit for keeping: no control characters, not long.
pub fn tame(text: &str) -> String {
    let mut out: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect();
    out.truncate(out.trim_end().len());
    out
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            v: VERSION,
            attempt: 0,
            forgiven: 0,
            respawns: Respawns::default(),
            waits: 0,
            ours: false,
            branch: None,
            commit: None,
            base: None,
            last: None,
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
    /// Reads the annotation. Whoever may edit the Polecat may have written it.
    pub fn parse(text: &str) -> Result<Self, LedgerError> {
        if text.len() > MAX_BYTES {
            return Err(LedgerError::TooLong);
        }
        let mut ledger: Self =
            serde_json::from_str(text).map_err(|e| LedgerError::Malformed(tame(&e.to_string())))?;
        if ledger.v != VERSION {
            return Err(LedgerError::Version(ledger.v));
        }
        ledger.forgiven = ledger.forgiven.min(ledger.attempt);
        if let Some(last) = &mut ledger.last {
            last.reason = tame(&last.reason);
            last.message = tame(&last.message);
        }
        Ok(ledger)
    }

    /// The annotation's text.
    pub fn render(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether this pod's outcome is in here.
    pub fn accounts_for(&self, pod_uid: &str) -> bool {
        self.pods.iter().any(|p| p == pod_uid)
    }

    /// Notes a pod; forgets the oldest that no longer exist.
    pub fn note_pod(&mut self, uid: &str, existing: &[&str]) {
        self.pods.push(uid.to_owned());
        let mut excess = self.pods.len().saturating_sub(MAX_PODS);
        self.pods.retain(|p| {
            let drop = excess > 0 && !existing.contains(&p.as_str());
            excess -= usize::from(drop);
            !drop
        });
    }

    /// How the last accounted pod ended, if one did.
    pub fn end(&self) -> Option<End> {
        self.last.as_ref().map(|l| l.end)
    }

    /// Whether the task is finished, whatever becomes of its merge.
    pub fn finished(&self) -> bool {
        matches!(self.end(), Some(End::Done | End::DoneWithoutChanges))
    }

    /// The number of the attempt that would come next.
    pub fn next_attempt(&self) -> u32 {
        match self.end() {
            Some(End::Waits | End::Drained) => self.attempt.max(1),
            _ => self.attempt.saturating_add(1),
        }
    }

    /// Attempts that the budget counts.
    pub fn spent(&self) -> u32 {
        self.attempt.saturating_sub(self.forgiven)
    }

    /// A new budget: a person changed the task or asked for a retry.
    pub fn rearm(&mut self, spec: &str, retry: Option<&String>) {
        self.forgiven = self.attempt;
        self.respawns = Respawns::default();
        self.waits = 0;
        spec.clone_into(&mut self.spec);
        self.retry = retry.cloned();
        if let Some(last) = &mut self.last {
            last.end = End::Retries;
            last.until = None;
        }
    }
}
