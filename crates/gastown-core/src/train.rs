//! What the refinery does next: one target branch, its requests, its gates.
//!
//! [`decide`] looks at everything that is known and names one [`Step`]; whoever carries it out
//! looks again and asks again, until the answer is [`Step::Wait`]. One request at a time is tested,
//! on the tip of the target, and what lands is exactly the commit that was tested there. A red run
//! is blamed on a request only when the same gate then passes on the tip alone; else the target is
//! broken, and who can land on it all the same may mend it. This module knows the order of
//! requests, which verdict counts, and who is to blame; it knows no git and no Kubernetes.

mod decide;
mod facts;
mod names;
mod order;
#[cfg(test)]
mod world;

pub use decide::{
    BROKEN_FOR, DOUBTS, FAULTS_WITHOUT_DELAY, LOOK_AGAIN, MISSING_FOR, decide, target_is_broken,
};
pub use facts::{Author, Build, Built, Facts, Landing, Request, Run, RunState, Source, Target};
pub use names::{gate_job_name, request_name, short_digest};
pub use order::{queue, score};

use gastown_types::CommitId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How long an ended request is kept.
pub const KEPT_SECONDS: i64 = 7 * 24 * 3600;

/// A request's uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub String);

/// What a gate is: a digest of everything that decides what its Job does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GateId(pub String);

/// A commit made of one request on top of the target's tip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Car {
    /// Whose it is.
    pub request: RequestId,
    /// The tip that it was built on.
    pub base: CommitId,
    /// The commit.
    pub commit: CommitId,
}

/// Something that passed its gates, or needs none. Only [`Tested::of`] makes one; only a tested car
/// can be landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested<T> {
    what: T,
    proof: Proof,
}

/// Why something counts as tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// This gate passed on exactly this commit.
    Passed(GateId),
    /// There is no gate.
    NoGates,
}

impl Tested<Car> {
    /// The car with its proof, if the verdicts hold a pass of the present gate on exactly its
    /// commit.
    pub fn of(car: Car, gate: Option<&GateId>, verdicts: &[Verdict]) -> Option<Self> {
        let proof = match gate {
            None => Proof::NoGates,
            Some(gate) => {
                let pass = |v: &&Verdict| {
                    v.candidate == car.commit && v.gate == *gate && v.result == Judgement::Pass
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

    /// Why it counts as tested.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }
}

/// What a gate said of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The commit that was tested.
    pub candidate: CommitId,
    /// The gate.
    pub gate: GateId,
    /// What it said.
    pub result: Judgement,
    /// A digest of the evidence; the evidence itself is in the request's status.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
}

/// A gate's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Judgement {
    /// It ended with code 0.
    Pass,
    /// It ended with another code, or took too long.
    Fail,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// What became of it.
    pub phase: EndPhase,
    /// Why, in one word.
    pub reason: String,
    /// Why, in one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// The commit that passed the gates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tested: Option<CommitId>,
    /// The commit that the target was moved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landed: Option<CommitId>,
}

/// A final phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndPhase {
    /// On the target.
    Landed,
    /// Back to its author.
    Rework,
    /// Not wanted, or nobody to send it back to.
    Rejected,
    /// Replaced by a newer request.
    Superseded,
}

/// The one thing to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A person asks to try an ended request again.
    Reopen(RequestId),
    /// Ask the remote where the target and the requests' branches are, and take their objects.
    Fetch,
    /// Make the request's candidate on this tip, or find that it has landed or does not fit.
    Build {
        /// Whose.
        request: RequestId,
        /// The tip.
        base: CommitId,
    },
    /// Have the gate's Job run on the car.
    EnsureGate {
        /// What is tested.
        car: Car,
        /// The gate.
        gate: GateId,
        /// The number of the run, from 1; a new one after each run that infrastructure broke.
        run: u32,
    },
    /// Write down what the gate said, before its Job goes.
    RecordVerdict {
        /// The Job.
        job: String,
        /// Whose.
        request: RequestId,
        /// The commit that was tested.
        candidate: CommitId,
        /// The gate.
        gate: GateId,
        /// What it said.
        result: Judgement,
        /// Its target alone is red: on this tip the request is not to be tested again before.
        until: Option<Timestamp>,
    },
    /// Test a request whose run was red once more: a gate may fail by chance.
    Doubt(RequestId),
    /// Forget what the gates said of a request whose target was broken, and test it again.
    Retest(RequestId),
    /// Write down that infrastructure broke a run, which is nobody's fault, and delete its Job.
    RecordFault {
        /// The Job.
        job: String,
        /// Whose.
        request: RequestId,
        /// What broke.
        why: String,
        /// Not before this time again.
        until: Timestamp,
    },
    /// Delete a Job that nobody needs any more.
    ReleaseJob {
        /// The Job.
        job: String,
    },
    /// Move the target from the car's base to its commit, by compare-and-swap.
    Land(Tested<Car>),
    /// Ask the remote whether the target holds what was pushed.
    ReadBack {
        /// Whose.
        request: RequestId,
        /// What was pushed.
        commit: CommitId,
    },
    /// It is on the target: say so, to its author too.
    MarkLanded {
        /// Whose.
        request: RequestId,
        /// Its commit on the target; `None` when the target held all of it before.
        commit: Option<CommitId>,
        /// The commit that passed the gates, where one did.
        tested: Option<CommitId>,
        /// `Merged`, `AlreadyInTarget` or `FoundInTarget`.
        reason: &'static str,
    },
    /// Say on the landed request's Polecat that it has landed: what was said when it landed is
    /// gone.
    TellAuthor(RequestId),
    /// Delete the landed request's branch, if it still is at the request's commit.
    DeleteSource(RequestId),
    /// Find out whether the author is still there to take the request back.
    AskAuthor(RequestId),
    /// Back to the author, with the evidence.
    Rework {
        /// Whose.
        request: RequestId,
        /// `Conflict`, `GateFailed` or `SourceCommitMissing`.
        reason: &'static str,
        /// What the author needs to know.
        evidence: String,
    },
    /// It will not land.
    Reject {
        /// Whose.
        request: RequestId,
        /// Why, in one word.
        reason: &'static str,
        /// Why, in one sentence.
        message: String,
    },
    /// A newer request of its branch or author takes its place.
    Supersede {
        /// Whose.
        request: RequestId,
        /// The newer one's name.
        by: String,
    },
    /// Delete a request that ended long ago.
    Forget(RequestId),
    /// Nothing can be done now.
    Wait {
        /// What is waited for.
        on: Waiting,
        /// When to look again, whatever happens.
        until: Option<Timestamp>,
    },
}

/// What the refinery waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// There is nothing to do.
    Idle,
    /// A gate runs.
    Gate {
        /// On whose commit.
        request: RequestId,
        /// What it itself waits for, such as a node; empty when it runs.
        message: String,
    },
    /// The target branch does not exist.
    NoTarget,
    /// Every open request is held, backs off, or has no source.
    Blocked,
}
