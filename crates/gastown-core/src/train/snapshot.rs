use gastown_api::GateRunPurpose;
use gastown_types::{BranchName, CommitId};
use jiff::Timestamp;

use super::{End, GateId, History, RequestId, Verdict};

/// Everything that a decision about one target branch depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The present time.
    pub now: Timestamp,
    /// The target branch.
    pub target: Target,
    /// The gate, if there is one.
    pub gate: Option<GateId>,
    /// Whether a gate may start: its pod is kept from what it must not reach.
    pub gates_may_start: bool,
    /// Whether a landed request's branch is deleted.
    pub delete_branches: bool,
    /// All requests for this target, ended ones too.
    pub requests: Vec<Request>,
    /// The gate's runs of this Refinery that have not ended, or whose Job is still there.
    pub runs: Vec<Run>,
    /// The verdicts on the target alone, of whatever request's runs, oldest first.
    pub controls: Vec<Verdict>,
    /// The other runs of this Refinery that are kept, the oldest first.
    pub ended_runs: Vec<EndedRun>,
}

/// What is known of the target branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing that can be relied on.
    Unknown,
    /// The branch does not exist on the remote.
    Absent {
        /// When the remote was asked.
        seen: Timestamp,
    },
    /// The branch exists.
    At {
        /// Its commit.
        tip: CommitId,
        /// When the remote was asked.
        seen: Timestamp,
    },
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its uid.
    pub id: RequestId,
    /// Namespace and name, which break ties.
    pub name: String,
    /// The branch that has its commit.
    pub branch: BranchName,
    /// The commit to land.
    pub commit: CommitId,
    /// The uid of its Polecat.
    pub polecat: Option<String>,
    /// The name of the request that it replaces, in its own namespace.
    pub previous: Option<String>,
    /// The author's attempt that made it, from 1.
    pub attempt: u32,
    /// Its priority: 0 first, 4 last.
    pub priority: u8,
    /// When it was created.
    pub created: Timestamp,
    /// Whether a person holds it back.
    pub hold: bool,
    /// Who rejected it and why, if a person did.
    pub rejected: Option<String>,
    /// How often a person asked to try it again.
    pub retry: i32,
    /// How many of those retries were started.
    pub retried: i32,
    /// How it ended, if it did.
    pub end: Option<End>,
    /// What is known from its runs.
    pub history: History,
    /// When it may be tried again.
    pub not_before: Option<Timestamp>,
    /// Until when nothing is done for it, because what was done last is refused.
    pub failed_until: Option<Timestamp>,
    /// When it may be tested again on a tip that is broken.
    pub retest_at: Option<Timestamp>,
    /// Whether its commit is on its branch.
    pub source: Source,
    /// What was built from it, and on which tip.
    pub build: Option<Build>,
    /// The progress of its landing.
    pub landing: Landing,
    /// Whether its author can take it back.
    pub author: Author,
    /// Whether its Polecat has the condition `Merged`, or does not exist.
    pub author_notified: bool,
    /// Whether its branch was deleted, or stays for good, after it landed.
    pub cleaned: bool,
    /// Until when the rig keeps what was saved beside its landed work, where something was.
    pub saved_until: Option<Timestamp>,
}

/// Whether a request's commit is on its branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The remote was not asked since the request was seen first.
    Unknown,
    /// The commit is on the branch.
    Present,
    /// The commit is not on the branch.
    Missing {
        /// When it was first found missing.
        since: Timestamp,
        /// When the remote was asked last.
        looked: Timestamp,
    },
}

/// What was built from a request on a tip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The tip.
    pub base: CommitId,
    /// The outcome.
    pub built: Built,
}

/// The outcome of building a request on a tip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Built {
    /// A commit that has to be tested.
    Candidate(CommitId),
    /// The request was found on the target as this commit: its own, or one with its trailer.
    Landed(CommitId),
    /// The target has all of its changes already.
    AlreadyInTarget,
    /// It conflicts with the target; the text names the paths.
    Conflict(String),
}

/// The progress of a landing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landing {
    /// Not started.
    No,
    /// The remote accepted the push of this commit.
    Pushed(CommitId),
    /// The target was seen to have this commit.
    Confirmed(CommitId),
}

/// Whether a request's author exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// Not looked up yet.
    Unknown,
    /// The Polecat exists, or a person made the request.
    Present,
    /// The Polecat does not exist any more.
    Gone,
}

/// A gate's run: a GateRun, and its Job of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its name.
    pub name: String,
    /// Its number among the runs of its request.
    pub number: u32,
    /// The request that it tests.
    pub request: RequestId,
    /// The commit that it tests.
    pub candidate: CommitId,
    /// The gate.
    pub gate: GateId,
    /// Why it runs.
    pub purpose: GateRunPurpose,
    /// Its state.
    pub state: RunState,
    /// Whether its end is recorded: then only its Job is left to delete.
    pub recorded: bool,
}

/// A run whose end is recorded and whose Job is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedRun {
    /// Its name.
    pub name: String,
    /// The request that it tested.
    pub request: RequestId,
    /// When its end was recorded.
    pub finished: Timestamp,
}

/// The state of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It has no Job yet, or none any more.
    Unstarted,
    /// The pod waits or runs; the text names what it waits for, and is empty when it runs.
    Running(String),
    /// The gate exited with code 0.
    Passed,
    /// The gate exited with another code, or ran out of time.
    Failed,
    /// Infrastructure ended the run; the text names what.
    Broken(String),
}
