//! What is to be done and what is to be shown. Data: it prints, compares and tests.

use gastown_types::{BranchName, CommitId};
use jiff::Timestamp;

use super::alarm::AlarmInputs;
use super::ledger::Ledger;
use super::remark::RemarkInputs;
use super::valid::ValidPolecat;
use crate::report::Usage;

/// One decision: deeds in their order (a later one only when the earlier succeeded) and what to
/// show.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to do.
    pub deeds: Vec<Deed>,
    /// What to show when nothing is left to do.
    pub view: View,
    /// When to look again although nothing happened.
    pub wake: Option<Timestamp>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// One patch of the Polecat's metadata: labels, finalizer and, where it changed, the ledger.
    Record {
        /// The ledger to write.
        ledger: Option<Box<Ledger>>,
        /// Whether our finalizer is to be on it.
        finalizer: bool,
    },
    /// Take the claim on its bead, if it is free by the API server's own word.
    Claim,
    /// Give the claim on its bead back.
    ReleaseClaim,
    /// Comment on its bead.
    Comment(RemarkInputs),
    /// Tell the witness.
    Alarm(AlarmInputs),
    /// Create the prompt and then the pod.
    Start(Box<PodInputs>),
    /// Annotate the pod, so that the agent stops and everything is saved.
    Drain {
        /// The pod's name.
        pod: String,
        /// Its uid.
        uid: String,
        /// Why.
        why: &'static str,
    },
    /// Take our finalizer off the pod.
    Release {
        /// The pod's name.
        pod: String,
        /// Its uid.
        uid: String,
    },
    /// Delete the pod.
    DeletePod {
        /// The pod's name.
        pod: String,
        /// Its uid.
        uid: String,
        /// At once, without a word from its node.
        force: bool,
    },
    /// Ask refinery-ctl to merge.
    Submit(SubmitInputs),
    /// The Polecat's time after its end is over.
    DeletePolecat,
}

/// What the pod of an attempt is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct PodInputs {
    /// The pod's name, and its prompt's.
    pub name: String,
    /// From 1.
    pub attempt: u32,
    /// The work branch on the remote is ours, if it is there.
    pub resume: bool,
    /// What was sent back.
    pub rework: Option<Rework>,
    /// How the attempt before ended, where that was no rework.
    pub before: Option<String>,
    /// The task.
    pub spec: ValidPolecat,
}

/// A request that was sent back to its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rework {
    /// The MergeRequest's name.
    pub request: String,
    /// Its commit.
    pub commit: CommitId,
    /// Why, in one word.
    pub reason: String,
    /// The evidence, verbatim and untrusted.
    pub evidence: String,
}

/// What refinery-ctl is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmitInputs {
    /// The rig.
    pub rig: String,
    /// The work branch.
    pub branch: BranchName,
    /// Its commit.
    pub commit: CommitId,
    /// Where it wants to land.
    pub target: BranchName,
    /// The attempt that made it.
    pub attempt: u32,
    /// The request that it replaces, or nothing.
    pub previous: String,
    /// The bead, or nothing.
    pub bead: String,
    /// 0 to 4.
    pub priority: u8,
}

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No pod, none over.
    Idle,
    /// A pod works.
    Working,
    /// Finished.
    Done,
    /// A person is needed.
    Stuck,
    /// Ended for good.
    Terminated,
}

/// One condition, without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `type`.
    pub kind: &'static str,
    /// `status`.
    pub status: bool,
    /// `reason`.
    pub reason: String,
    /// `message`.
    pub message: String,
}

/// An Event to tell once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// A Warning, else Normal.
    pub warning: bool,
    /// One word.
    pub reason: String,
    /// One sentence.
    pub note: String,
}

/// What the status says.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// `phase`.
    pub phase: Phase,
    /// All conditions of this controller.
    pub conditions: Vec<Shown>,
    /// To tell when the reason of `Ready` has changed to this.
    pub told: Option<Told>,
    /// The newest pod and whether it runs.
    pub pod: Option<(String, bool)>,
    /// `attempts`: the number of the newest attempt.
    pub attempts: u32,
    /// `branch`, once it is on the remote.
    pub branch: Option<BranchName>,
    /// `commit`.
    pub commit: Option<CommitId>,
    /// `baseCommit`.
    pub base: Option<CommitId>,
    /// `outcome`.
    pub outcome: Option<super::ledger::Last>,
    /// `mergeRequest`.
    pub request: Option<String>,
    /// `usage`.
    pub usage: Usage,
    /// `agentModel`.
    pub model: Option<String>,
    /// `startedAt`.
    pub started: Option<Timestamp>,
    /// `finishedAt`.
    pub finished: Option<Timestamp>,
    /// `lastActivity`.
    pub activity: Option<Timestamp>,
}
