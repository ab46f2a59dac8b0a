//! What is known when a decision is made, as others read it. Nothing is judged yet.

use gastown_api::{DesiredState, MergePhase};
use gastown_types::{BranchName, CommitId};
use jiff::{SignedDuration, Timestamp};

use super::claim::ClaimFacts;
use super::deliveries::Deliveries;
use super::ledger::{Ledger, LedgerError};
use super::trace_facts::{PodTrace, RequestTrace, TraceFacts};
use super::valid::{InvalidSpec, ValidPolecat};
use crate::report::{InitReport, RunReport, SyncReport};

/// Everything that decides about one Polecat, but its rig's free slots.
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
    /// It has our finalizer.
    pub finalizer: bool,
    /// It has the labels that it should have.
    pub labelled: bool,
    /// `gastown.io/force-delete` is `"true"`.
    pub force_delete: bool,
    /// The value of `gastown.io/retry`.
    pub retry: Option<String>,
    /// The ledger; empty where there is no annotation.
    pub ledger: Result<Ledger, LedgerError>,
    /// `spec.desiredState`.
    pub desired: DesiredState,
    /// `spec.ttlSecondsAfterFinished`.
    pub ttl_seconds: Option<i64>,
    /// `spec.maxIdleSeconds`.
    pub max_idle_seconds: Option<i64>,
    /// The rest of its spec.
    pub spec: Result<ValidPolecat, InvalidSpec>,
    /// Its rig.
    pub rig: RigFacts,
    /// The pods that it owns.
    pub pods: Vec<PodFacts>,
    /// The MergeRequests that it made.
    pub requests: Vec<RequestFacts>,
    /// `spec.beadID`, unless it is empty.
    pub bead: Option<String>,
    /// Who holds the claim on the bead.
    pub claim: ClaimFacts,
    /// The rig has a BeadStore.
    pub bead_store: bool,
    /// The installation has a witness-ctl.
    pub witness: bool,
    /// What became of its requests to other services.
    pub deliveries: Deliveries,
    /// `status.phase` is Stuck.
    pub shown_stuck: bool,
    /// The uid of the pod that witness-ctl wants restarted.
    pub unhealthy: Option<String>,
    /// Why work of its pod is not on the remote yet, as its sidecar shows witness-ctl.
    pub saving: Option<String>,
    /// Until when the model's service has asked Polecats with the same credentials to wait.
    pub service_wait: Option<Timestamp>,
    /// Why its pod cannot be kept from what it must not reach.
    pub network: Option<NetworkProblem>,
    /// How long a pod that does not obey may take.
    pub margins: Margins,
    /// What only the spans of its life need.
    pub trace: TraceFacts,
}

/// The network policy of agents' pods cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkProblem {
    /// What was attempted, and the API server's answer.
    pub message: String,
    /// When it is tried again.
    pub until: Timestamp,
}

/// How long a pod may take that does not end its work by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Margins {
    /// Seconds beyond its own deadline after which it is drained.
    pub deadline_seconds: i64,
    /// Seconds after its drain after which it is deleted, if its work is saved.
    pub drain_seconds: i64,
}

impl Default for Margins {
    fn default() -> Self {
        Self { deadline_seconds: 300, drain_seconds: 300 }
    }
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

    /// The request for the commit that the ledger holds.
    pub(super) fn request_of(&self, ledger: &Ledger) -> Option<&RequestFacts> {
        ledger.commit.as_ref().and_then(|commit| self.request_for(commit))
    }
}

/// The rig that a Polecat names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RigFacts {
    /// No Rig has this name.
    Missing {
        /// The name.
        name: String,
    },
    /// The Rig exists.
    Present {
        /// The name.
        name: String,
        /// `spec.suspend`.
        suspended: bool,
        /// It is being deleted.
        deleting: bool,
        /// Whether `spec.allowedNamespaces` lets the Polecat's namespace in.
        admits_namespace: bool,
        /// Its repository's normalised URL, where it can be read.
        repository: Option<String>,
        /// The branches that its Refineries land on; empty when it has none.
        targets: Vec<String>,
        /// For how many seconds after a landing saved work is kept.
        wip_retention: i64,
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
    /// Not all init containers have run, or the pod has no node.
    Pending,
    /// The agent's container has been started.
    Running,
    /// All containers ended well.
    Succeeded,
    /// A container ended badly, or the pod was evicted.
    Failed,
    /// The node does not answer.
    Unknown,
}

/// One pod of the Polecat.
#[derive(Clone, Debug)]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The attempt that its name contains.
    pub attempt: u32,
    /// The work branch that it was given.
    pub branch: Option<BranchName>,
    /// The hash of the spec that it was made from.
    pub asked: Option<String>,
    /// When it was created.
    pub created: Timestamp,
    /// The end of our containers where both have ended, else `status.phase`.
    pub phase: PodPhase,
    /// It has a node.
    pub scheduled: bool,
    /// When this process first saw that it is being deleted.
    pub deletion: Option<Timestamp>,
    /// The grace period of its deletion, in seconds.
    pub grace_seconds: i64,
    /// It has our finalizer.
    pub finalizer: bool,
    /// The value of `gastown.io/drain`.
    pub drain: Option<String>,
    /// The agent's container has been started.
    pub agent_started: bool,
    /// The agent's container has ended.
    pub agent_ended: bool,
    /// Containers of others, which a webhook injected, keep the pod from ending.
    pub strangers: bool,
    /// What its readiness states: whether the last complete save is on the remote and nothing has
    /// failed since. None where the sidecar does not run, or states nothing about it.
    pub saved: Option<bool>,
    /// The longest time of its attempt, in seconds.
    pub deadline_seconds: Option<i64>,
    /// When this process first saw it as it is.
    pub seen: Seen,
    /// When the pod started.
    pub started: Option<Timestamp>,
    /// When its last container ended.
    pub ended: Option<Timestamp>,
    /// The record of `gt init`.
    pub init: Option<InitReport>,
    /// The record of `gt sync`.
    pub sync: Option<SyncReport>,
    /// The record of `gt run`, which is only a claim.
    pub run: Option<RunReport>,
    /// The agent's container ran out of memory.
    pub oom: bool,
    /// Why the platform ended it (`Evicted`, `Preempted`, `NodeLost`, …), where it did.
    pub disruption: Option<String>,
    /// What keeps it from starting (image, node, Secret), as reason and message.
    pub waiting: Option<(String, String)>,
    /// The container runtime's message when a container ended badly without a record.
    pub failure: Option<String>,
    /// What only the spans of the life need.
    pub trace: PodTrace,
}

/// When this process first saw a pod in a state. Times of other machines are not compared with
/// ours: their clocks may be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its agent's container runs.
    pub running: Option<Timestamp>,
    /// It is drained.
    pub drained: Option<Timestamp>,
    /// Its agent has not started and `git-init` does not run.
    pub stalled: Option<Timestamp>,
    /// [`PodFacts::saved`], as it was last while the sidecar ran.
    pub saved: Option<bool>,
}

/// A node that is silent for this many seconds after a deletion's grace period is given up.
pub const NODE_LOST_SECONDS: i64 = 300;

impl PodFacts {
    /// Whether all its containers have ended.
    pub fn terminal(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }

    /// When its node is given up if it stays silent: [`NODE_LOST_SECONDS`] after the grace period
    /// of its deletion.
    pub fn lost_at(&self) -> Option<Timestamp> {
        later(self.deletion?, self.grace_seconds.saturating_add(NODE_LOST_SECONDS))
    }

    /// Whether its node has been silent since its deletion for longer than the grace period and
    /// [`NODE_LOST_SECONDS`].
    pub fn lost(&self, now: Timestamp) -> bool {
        !self.terminal() && self.lost_at().is_some_and(|t| t <= now)
    }

    /// Whether it was deleted before it had a node: nothing of it ever ran, and no kubelet will
    /// report so.
    pub fn never_ran(&self) -> bool {
        !self.terminal() && self.deletion.is_some() && !self.scheduled
    }

    /// Whether it can do no more work.
    pub fn over(&self, now: Timestamp) -> bool {
        self.terminal() || self.lost(now) || self.never_ran()
    }

    /// When it ended, as far as is known; `now` where nothing is, or its node's clock is ahead.
    pub fn over_at(&self, now: Timestamp) -> Timestamp {
        self.ended.or(self.deletion).unwrap_or(now).min(now)
    }
}

/// `seconds` after a time; none where that cannot be represented.
pub(super) fn later(time: Timestamp, seconds: i64) -> Option<Timestamp> {
    time.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// A MergeRequest of this Polecat.
#[derive(Clone, Debug)]
pub struct RequestFacts {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When it was created.
    pub created: Timestamp,
    /// `spec.sourceBranch`.
    pub branch: BranchName,
    /// Its commit.
    pub commit: CommitId,
    /// The attempt that made it.
    pub attempt: u32,
    /// `status.phase`; without a status, `Queued`.
    pub phase: MergePhase,
    /// The reason of its phase, in CamelCase.
    pub reason: String,
    /// What its author needs to know; untrusted text (a test's output).
    pub evidence: String,
    /// When it landed.
    pub landed_at: Option<Timestamp>,
    /// What only the spans of the life need.
    pub trace: RequestTrace,
}
