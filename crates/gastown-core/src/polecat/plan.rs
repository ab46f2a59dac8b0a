//! What is to be done, and the status that is wanted. Plain data: it can be printed and compared.

use std::borrow::Cow;

use gastown_api::PolecatPhase;
use gastown_api::conditions::{Draft, Status};
use gastown_api::names::{condition, reason};
use gastown_types::{BranchName, CommitId};
use jiff::Timestamp;

use super::deliveries::EscalationRequest;
use super::ledger::{Last, Ledger};
use super::saved_work::{Lost, SavedWork};
use super::trace_facts::Begin;
use super::valid::ValidPolecat;
use crate::report::Usage;

/// One decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to do, in this order. After one that failed, only those are carried out that
    /// [`Action::after_failure`] allows.
    pub actions: Vec<Action>,
    /// The status to write when no action is left.
    pub status: StatusDraft,
    /// When to decide again although nothing changed.
    pub wake: Option<Timestamp>,
}

/// One action.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// One patch of the Polecat's metadata: labels, finalizer and, where it changed, the ledger
    /// annotation.
    PatchMetadata {
        /// The ledger to write.
        ledger: Option<Box<Ledger>>,
        /// Whether it is to have our finalizer.
        finalizer: bool,
    },
    /// Take the claim on its bead, if the API server confirms that it is free.
    Claim,
    /// Release the claim on its bead.
    ReleaseClaim,
    /// Comment on its bead.
    Comment(CommentInputs),
    /// Raise or settle its Escalation.
    Escalate(EscalationInputs),
    /// Create the prompt's ConfigMap and then the pod.
    StartPod(Box<PodInputs>),
    /// Annotate the pod, so that the agent stops and everything is saved.
    DrainPod {
        /// The pod's name.
        pod: String,
        /// Its uid.
        uid: String,
        /// Why: the annotation's value.
        why: Cow<'static, str>,
    },
    /// Remove our finalizer from the pod.
    RemovePodFinalizer {
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
        /// Seconds that its containers have to end, where that is not the pod's own grace period.
        /// With 0 its node is not waited for.
        grace: Option<u32>,
    },
    /// Submit the work to refinery-ctl.
    Submit(SubmitInputs),
    /// Delete the Polecat, whose time to live is over.
    DeletePolecat,
}

impl Action {
    /// Whether it may be carried out although an action before it failed. What follows from the
    /// ledger needs the ledger to be written; nothing new starts and no finalizer of the Polecat is
    /// removed while something of the plan is undone.
    pub fn after_failure(&self, ledger_failed: bool) -> bool {
        match self {
            Self::DrainPod { .. } | Self::Escalate(_) | Self::Comment(_) => true,
            Self::Claim
            | Self::ReleaseClaim
            | Self::RemovePodFinalizer { .. }
            | Self::DeletePod { .. }
            | Self::Submit(_) => !ledger_failed,
            Self::PatchMetadata { .. } | Self::StartPod(_) | Self::DeletePolecat => false,
        }
    }
}

/// What the pod of an attempt is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct PodInputs {
    /// The name of the pod and of its prompt's ConfigMap.
    pub name: String,
    /// From 1.
    pub attempt: u32,
    /// The work branch on the remote belongs to this Polecat, if it exists.
    pub resume: bool,
    /// The request that was sent back, where this attempt is a rework.
    pub rework: Option<Rework>,
    /// How the attempt before ended, where this one is not a rework of it.
    pub before: Option<String>,
    /// The uncommitted files that were saved last are put back: the work before was not finished.
    pub restore: bool,
    /// What is saved on the remote beside the work branch, newest first.
    pub saved: Vec<SavedWork>,
    /// The task.
    pub spec: ValidPolecat,
    /// How the wait for it began.
    pub begin: Begin,
}

/// A request that was sent back to its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rework {
    /// The MergeRequest's name.
    pub request: String,
    /// Its commit.
    pub commit: CommitId,
    /// Why it was sent back, in CamelCase.
    pub reason: String,
    /// The evidence, verbatim and untrusted.
    pub evidence: String,
}

/// What is submitted to refinery-ctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmitInputs {
    /// The rig.
    pub rig: String,
    /// The work branch.
    pub branch: BranchName,
    /// Its commit.
    pub commit: CommitId,
    /// The branch that it is to land on.
    pub target: BranchName,
    /// The attempt that made it.
    pub attempt: u32,
    /// The name of the request that it replaces; may be empty.
    pub previous: String,
    /// The bead's id; may be empty.
    pub bead: String,
    /// 0 (first) to 4.
    pub priority: u8,
}

/// A comment on a bead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommentInputs {
    /// The rig.
    pub rig: String,
    /// The bead's id.
    pub bead: String,
    /// The author: the Polecat, as `namespace/name`.
    pub author: String,
    /// The text.
    pub text: String,
}

/// A request to witness-ctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EscalationInputs {
    /// The rig.
    pub rig: String,
    /// The Escalation's key.
    pub cause: String,
    /// What witness-ctl is asked to do.
    pub request: EscalationRequest,
}

/// An Event to publish once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDraft {
    /// A Warning, else Normal.
    pub warning: bool,
    /// The reason, in CamelCase.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// The status as the decision wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusDraft {
    /// `phase`.
    pub phase: PolecatPhase,
    /// All conditions of this controller.
    pub conditions: Vec<Draft>,
    /// To publish when the reason of `Ready` has changed to this one.
    pub event: EventDraft,
    /// What the last pod lost: to be published once.
    pub lost: Option<Lost>,
    /// `saved`, newest first.
    pub saved: Vec<SavedWork>,
    /// The newest pod's name, and whether it runs.
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
    pub outcome: Option<Last>,
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

impl StatusDraft {
    /// The same where an action could not be carried out: `why` has what was attempted, on which
    /// object, and the other side's own sentence.
    #[must_use]
    pub fn failed(mut self, why: &str) -> Self {
        for draft in &mut self.conditions {
            let shown = draft.type_ == condition::READY
                || (draft.type_ == condition::ADMITTED && draft.status == Status::False);
            if shown {
                let failed = Draft::new(draft.type_, false, reason::ACTION_FAILED, why);
                *draft = failed;
            }
        }
        self.event = EventDraft {
            warning: true,
            reason: reason::ACTION_FAILED.to_owned(),
            message: why.to_owned(),
        };
        self
    }
}
