//! What is known when a decision is taken. Everything here was read by somebody else; nothing is
//! judged yet.

use gastown_types::{BranchName, CommitId};
use jiff::Timestamp;

use super::alarm::AlarmFacts;
use super::claim::ClaimFacts;
use super::ledger::{Ledger, LedgerError};
use super::remark::RemarkFacts;
use super::valid::{InvalidSpec, ValidPolecat};
use crate::admission::Slot;
use crate::report::{InitReport, RunReport, SyncReport};

/// `spec.desiredState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Desired {
    /// Nothing is to run.
    Idle,
    /// The task is to be done.
    Working,
    /// Nothing is to run any more.
    Terminated,
}

/// Everything that decides about one Polecat.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When it was created.
    pub created: Timestamp,
    /// It is being deleted.
    pub deleting: bool,
    /// Our finalizer is on it.
    pub finalizer: bool,
    /// It carries the labels that it should.
    pub labelled: bool,
    /// `gastown.io/force-delete` is `"true"`.
    pub force_delete: bool,
    /// The value of `gastown.io/retry`.
    pub retry: Option<String>,
    /// The ledger; empty where there is no annotation.
    pub ledger: Result<Ledger, LedgerError>,
    /// `spec.desiredState`.
    pub desired: Desired,
    /// `spec.ttlSecondsAfterFinished`.
    pub ttl_seconds: Option<i64>,
    /// The rest of its spec.
    pub spec: Result<ValidPolecat, InvalidSpec>,
    /// Its rig.
    pub rig: RigFacts,
    /// The pods that it owns, by uid.
    pub pods: Vec<PodFacts>,
    /// The MergeRequests that it made.
    pub requests: Vec<RequestFacts>,
    /// What admission answered, if it was asked.
    pub slot: Slot,
    /// What became of submitting.
    pub submit: SubmitFacts,
    /// The last pod could not be made.
    pub refused: Option<Refused>,
    /// `spec.beadID`, unless it is empty.
    pub bead: Option<String>,
    /// Whose the bead is.
    pub claim: ClaimFacts,
    /// The rig has a BeadStore.
    pub bead_store: bool,
    /// What became of commenting on the bead.
    pub remark: RemarkFacts,
    /// There is a witness to be told.
    pub witness: bool,
    /// What became of telling it.
    pub alarm: AlarmFacts,
    /// The status says Stuck.
    pub shown_stuck: bool,
    /// The uid of the pod that the witness wants restarted.
    pub unhealthy: Option<String>,
}

/// Why there is no pod although there could be, as far as this process remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// One word: `PodCreateFailed`, `BeadUnavailable`, …
    pub reason: String,
    /// The API server's words (a quota, a policy, an admission webhook), or what lacks.
    pub message: String,
    /// Not again before this time.
    pub until: Timestamp,
}

impl Snapshot {
    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The pods that may still be working.
    pub fn live(&self, now: Timestamp) -> impl Iterator<Item = &PodFacts> {
        self.pods.iter().filter(move |p| !p.over(now))
    }

    /// The latest request, by attempt.
    pub fn latest_request(&self) -> Option<&RequestFacts> {
        self.requests.iter().max_by_key(|r| (r.attempt, r.created, &r.name))
    }

    /// The request for this commit.
    pub fn request_for(&self, commit: &CommitId) -> Option<&RequestFacts> {
        self.requests
            .iter()
            .filter(|r| &r.commit == commit)
            .max_by_key(|r| (r.attempt, r.created, &r.name))
    }
}

/// The rig that a Polecat names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RigFacts {
    /// There is none of this name.
    Missing {
        /// The name.
        name: String,
    },
    /// It is there.
    Present {
        /// The name.
        name: String,
        /// `spec.suspend`.
        parked: bool,
        /// It is being deleted.
        deleting: bool,
        /// Whether `spec.allowedNamespaces` lets the Polecat's namespace in.
        admits_namespace: bool,
        /// Its repository's normalised URL, where it can be read.
        repository: Option<String>,
    },
}

impl RigFacts {
    /// The rig's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Missing { name } | Self::Present { name, .. } => name,
        }
    }

    /// Whether it is being deleted, so that its polecats drain.
    pub fn deleting(&self) -> bool {
        matches!(self, Self::Present { deleting: true, .. })
    }
}

/// A pod's `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// Not all init containers have run, or it has no node.
    Pending,
    /// The agent's container has run.
    Running,
    /// All containers ended well.
    Succeeded,
    /// A container ended badly, or the pod was evicted.
    Failed,
    /// The node does not answer.
    Unknown,
}

/// One pod of ours.
#[derive(Clone, Debug)]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The attempt that its name says.
    pub attempt: u32,
    /// The work branch that it was given.
    pub branch: Option<BranchName>,
    /// The hash of what it was asked to do.
    pub asked: Option<String>,
    /// When it was created.
    pub created: Timestamp,
    /// `status.phase`.
    pub phase: PodPhase,
    /// It has a node.
    pub scheduled: bool,
    /// When its deletion's grace ends; set as soon as it is being deleted.
    pub deletion: Option<Timestamp>,
    /// Our finalizer is on it.
    pub finalizer: bool,
    /// The value of `gastown.io/drain`.
    pub drain: Option<String>,
    /// The agent's container has been started.
    pub agent_started: bool,
    /// When the pod started.
    pub started: Option<Timestamp>,
    /// When its last container ended.
    pub ended: Option<Timestamp>,
    /// What `gt init` said.
    pub init: Option<InitReport>,
    /// What `gt sync` said.
    pub sync: Option<SyncReport>,
    /// What `gt run` claims.
    pub run: Option<RunReport>,
    /// The agent's container ran out of memory.
    pub oom: bool,
    /// Why the platform ended it (`Evicted`, `Preempted`, `NodeLost`, …), where it did.
    pub disruption: Option<String>,
    /// What it waits for, as reason and message (image, node, Secret).
    pub waiting: Option<(String, String)>,
    /// A container's own words when it ended badly without a record.
    pub failure: Option<String>,
}

/// A node that is silent for this long after a deletion's grace has ended is taken for lost.
pub const NODE_LOST_SECONDS: i64 = 300;

impl PodFacts {
    /// Whether all its containers have ended.
    pub fn terminal(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }

    /// Whether its node has been silent for so long after its deletion that it is given up.
    pub fn lost(&self, now: Timestamp) -> bool {
        !self.terminal()
            && self.deletion.is_some_and(|d| now.as_second() - d.as_second() >= NODE_LOST_SECONDS)
    }

    /// Whether it was deleted before it had a node: nothing of it ever ran, and nobody will say so.
    pub fn never_ran(&self) -> bool {
        !self.terminal() && self.deletion.is_some() && !self.scheduled
    }

    /// Whether it can do no more work.
    pub fn over(&self, now: Timestamp) -> bool {
        self.terminal() || self.lost(now) || self.never_ran()
    }

    /// When it was over, as far as anybody knows.
    pub fn over_at(&self, now: Timestamp) -> Timestamp {
        self.ended.or(self.deletion.filter(|d| *d <= now)).unwrap_or(now)
    }
}

/// A MergeRequest's `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestPhase {
    /// It waits.
    Queued,
    /// A gate runs.
    Testing,
    /// Its commit is on the target branch.
    Landed,
    /// It goes back to its author.
    Rework,
    /// A person, or the lack of an author, ended it.
    Rejected,
    /// A newer commit of its branch took its place.
    Superseded,
}

/// A MergeRequest of this Polecat.
#[derive(Clone, Debug)]
pub struct RequestFacts {
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// `spec.sourceBranch`.
    pub branch: BranchName,
    /// Its commit.
    pub commit: CommitId,
    /// The attempt that made it.
    pub attempt: u32,
    /// `status.phase`; without a status, `Queued`.
    pub phase: RequestPhase,
    /// Why, in one word.
    pub reason: String,
    /// What its author needs to know; untrusted text (a test's output).
    pub evidence: String,
    /// When it landed.
    pub landed_at: Option<Timestamp>,
}

/// What became of submitting, as far as this process remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SubmitFacts {
    /// Nothing was tried.
    #[default]
    Untried,
    /// refinery-ctl acknowledged; the request is not in the cache yet.
    Acknowledged {
        /// The commit.
        commit: CommitId,
        /// The request's name.
        request: String,
        /// Asked again when it is still not there at this time.
        until: Timestamp,
    },
    /// It failed.
    Failed {
        /// The commit.
        commit: CommitId,
        /// One word.
        reason: String,
        /// One sentence.
        message: String,
        /// Not again before this time.
        until: Timestamp,
    },
}
