//! The merge train: the next step for one target branch, its requests and its gates.
//!
//! [`decide`] reads a [`Snapshot`] and returns one [`Step`]. refinery-ctl carries it out, takes
//! another snapshot and decides again, until the step is [`Step::Wait`]. One request at a time is
//! tested, on the tip of the target, and what lands is exactly the commit that was tested there. A
//! failed run is blamed on a request only when the same gate then passes on the tip alone;
//! otherwise the target is broken, and a request that passes on it lands all the same, since it may
//! be the fix. This module knows the order of requests, which verdict counts and whom to blame; it
//! knows neither git nor Kubernetes clients.

mod decide;
mod names;
mod order;
mod retention;
mod runs;
mod snapshot;

#[cfg(test)]
mod decide_tests;
#[cfg(test)]
mod simulation;

use gastown_api::{GateRunPurpose, MergePhase};
use gastown_types::CommitId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use decide::{
    BROKEN_RUNS_RETRIED_SOON, BROKEN_TARGET_SECONDS, MAX_RETRIES, REMOTE_POLL_SECONDS,
    SOURCE_MISSING_SECONDS, decide, target_is_broken,
};
pub use names::{gate_job_name, request_name};
pub use order::{queue, score};
pub use runs::{History, PastRun, Verdict};
pub use snapshot::{
    Author, Build, Built, EndedRun, Landing, Request, Run, RunState, Snapshot, Source, Target,
};

/// How long an ended request is kept, in seconds.
pub const KEPT_SECONDS: i64 = 7 * 24 * 3600;

/// A request's uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub String);

/// A gate's identity: a digest of everything that decides what its Job does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GateId(pub String);

/// A commit built from one request on the target's tip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Car {
    /// The request.
    pub request: RequestId,
    /// The tip that it was built on.
    pub base: CommitId,
    /// The commit; equal to `base` when the target is tested alone.
    pub commit: CommitId,
}

/// Something that passed its gate, or needs none. [`Tested::of`] is the only constructor, and only
/// a tested car can be landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested<T> {
    what: T,
    proof: Proof,
}

/// The reason why something counts as tested, for logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// This gate passed on exactly this commit.
    Passed(GateId),
    /// The Refinery has no gate.
    NoGates,
}

impl Tested<Car> {
    /// The car with its proof, if `verdicts` has a pass of the present gate on exactly its commit.
    pub fn of(car: Car, gate: Option<&GateId>, verdicts: &[Verdict]) -> Option<Self> {
        let proof = match gate {
            None => Proof::NoGates,
            Some(gate) => {
                let pass = |v: &&Verdict| {
                    v.candidate == car.commit && v.gate == *gate && v.result == GateResult::Pass
                };
                Proof::Passed(verdicts.iter().find(pass)?.gate.clone())
            }
        };
        Some(Self { what: car, proof })
    }
}

impl<T> Tested<T> {
    /// What was tested.
    pub fn what(&self) -> &T {
        &self.what
    }
}

/// The result of a gate's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateResult {
    /// It exited with code 0.
    Pass,
    /// It exited with another code, or ran out of time.
    Fail,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// Its final phase: one for which [`is_final`] holds.
    pub phase: MergePhase,
    /// Why, as one CamelCase word.
    pub reason: String,
    /// Why, as one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it ended.
    pub at: Timestamp,
    /// The commit that passed the gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tested: Option<CommitId>,
    /// The commit that the target was moved to, or that has all changes of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landed: Option<CommitId>,
}

/// Whether a request in this phase has ended.
pub fn is_final(phase: MergePhase) -> bool {
    match phase {
        MergePhase::Queued | MergePhase::Testing | MergePhase::Unknown => false,
        MergePhase::Landed | MergePhase::Rework | MergePhase::Rejected | MergePhase::Superseded => {
            true
        }
    }
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open an ended request again, because a person raised its `spec.retry`.
    Reopen(RequestId),
    /// Ask the remote where the target and the requests' branches are, and fetch them.
    Fetch,
    /// Build the request's candidate on this tip, or find out that it has landed or conflicts.
    Build {
        /// The request.
        request: RequestId,
        /// The tip.
        base: CommitId,
    },
    /// Create the run for the car and its Job, as far as they do not exist.
    EnsureGate {
        /// What is tested.
        car: Car,
        /// The gate.
        gate: GateId,
        /// The number of the run among those of the request, from 1.
        run: u32,
        /// Why it runs.
        purpose: GateRunPurpose,
    },
    /// Record the gate's verdict, before the run's Job is deleted.
    RecordVerdict {
        /// The run's name.
        run: String,
        /// The request.
        request: RequestId,
        /// Whether it passed.
        result: GateResult,
        /// When to test the request again on this tip, if the gate failed on the target alone.
        until: Option<Timestamp>,
    },
    /// Record that infrastructure broke a run, which blames nobody, and delete its Job.
    RecordBrokenRun {
        /// The run's name.
        run: String,
        /// The request.
        request: RequestId,
        /// What broke.
        why: String,
        /// When the request may be tried again.
        until: Timestamp,
    },
    /// Delete the Job of a run that is recorded, or a run that nobody waits for any more with its Job.
    ReleaseJob {
        /// The run's name.
        run: String,
    },
    /// Delete an old run.
    DeleteRun(String),
    /// Move the target from the car's base to its commit, by compare-and-swap.
    Land(Tested<Car>),
    /// Ask the remote whether the target has what was pushed.
    ReadBack {
        /// The request.
        request: RequestId,
        /// What was pushed.
        commit: CommitId,
    },
    /// End a request that is on the target, and set the condition `Merged` of its Polecat.
    MarkLanded {
        /// The request.
        request: RequestId,
        /// Its commit on the target; the tip that it was compared with when the target had all of its
        /// changes before.
        commit: CommitId,
        /// The commit that passed the gate, where one did.
        tested: Option<CommitId>,
        /// `Merged`, `AlreadyInTarget` or `FoundInTarget`.
        reason: &'static str,
    },
    /// Set the condition `Merged` of a landed request's Polecat again, because it was erased.
    NotifyAuthor(RequestId),
    /// Delete the landed request's branch where that is wanted, if it is still at the request's
    /// commit, and record which refs hold what its author saved beside it.
    CleanUp(RequestId),
    /// Delete the recorded refs with what was saved beside the landed work: they were kept for as
    /// long as the rig wants.
    DeleteSaved(RequestId),
    /// Find out whether the author still exists and can take the request back.
    LookUpAuthor(RequestId),
    /// Send the request back to its author, with the evidence.
    Rework {
        /// The request.
        request: RequestId,
        /// `Conflict`, `GateFailed`, `GateBroken` or `SourceCommitMissing`.
        reason: &'static str,
        /// What the author needs to know.
        evidence: String,
    },
    /// End a request that will not land.
    Reject {
        /// The request.
        request: RequestId,
        /// Why, as one CamelCase word.
        reason: &'static str,
        /// Why, as one sentence.
        message: String,
    },
    /// End a request that a newer one of its branch or author replaces.
    Supersede {
        /// The request.
        request: RequestId,
        /// The newer one's name.
        by: String,
    },
    /// Delete a request that ended [`KEPT_SECONDS`] ago.
    DeleteRequest(RequestId),
    /// Do nothing until something changes.
    Wait {
        /// What the refinery waits for.
        on: Waiting,
        /// When to look again, even if nothing changes.
        until: Option<Timestamp>,
    },
}

impl Step {
    /// The request that the step is about, where it is about one.
    pub fn request(&self) -> Option<&RequestId> {
        match self {
            Self::Reopen(request)
            | Self::NotifyAuthor(request)
            | Self::CleanUp(request)
            | Self::DeleteSaved(request)
            | Self::LookUpAuthor(request)
            | Self::DeleteRequest(request)
            | Self::Build { request, .. }
            | Self::RecordVerdict { request, .. }
            | Self::RecordBrokenRun { request, .. }
            | Self::ReadBack { request, .. }
            | Self::MarkLanded { request, .. }
            | Self::Rework { request, .. }
            | Self::Reject { request, .. }
            | Self::Supersede { request, .. } => Some(request),
            Self::EnsureGate { car, .. } => Some(&car.request),
            Self::Land(tested) => Some(&tested.what().request),
            Self::Fetch | Self::ReleaseJob { .. } | Self::DeleteRun(_) | Self::Wait { .. } => None,
        }
    }
}

/// What the refinery waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// A request.
    Idle,
    /// The end of a gate's run.
    Gate {
        /// The request that is tested.
        request: RequestId,
        /// What the run waits for, such as a node; empty when it runs.
        message: String,
    },
    /// The target branch, which does not exist.
    NoTarget,
    /// The open requests, each of which is held, backs off, or has no source.
    Blocked,
}
