use gastown_types::{BranchName, CommitId};
use jiff::Timestamp;

use super::{End, GateId, RequestId, Verdict};

/// Everything that a decision about one target branch is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The time.
    pub now: Timestamp,
    /// Where the target is.
    pub target: Target,
    /// The gate, if there is one.
    pub gate: Option<GateId>,
    /// Whether a landed request's branch is deleted.
    pub delete_branches: bool,
    /// Every request for this target, ended ones too.
    pub requests: Vec<Request>,
    /// Every Job that is ours.
    pub runs: Vec<Run>,
}

/// What is known of the target branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing, or nothing that still can be relied on.
    Unknown,
    /// The remote has no such branch.
    Absent {
        /// When the remote said so.
        seen: Timestamp,
    },
    /// It is here.
    At {
        /// Its commit.
        tip: CommitId,
        /// When the remote said so.
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
    /// The branch that holds its commit.
    pub branch: BranchName,
    /// What is to land.
    pub commit: CommitId,
    /// The uid of its Polecat.
    pub polecat: Option<String>,
    /// The name of the request that it replaces, in its own namespace.
    pub previous: Option<String>,
    /// Which attempt of its author it is.
    pub attempt: u32,
    /// 0 first, 4 last.
    pub priority: u8,
    /// When it was made.
    pub created: Timestamp,
    /// A person asks to wait with it.
    pub hold: bool,
    /// A person does not want it: who, and why.
    pub rejected: Option<String>,
    /// How often a person asked to try it again.
    pub retry: i32,
    /// How often that has been heeded.
    pub retried: i32,
    /// How it ended, if it did.
    pub end: Option<End>,
    /// What gates said of its commits.
    pub verdicts: Vec<Verdict>,
    /// How many runs infrastructure broke in a row.
    pub faults: u32,
    /// How many runs there were on its present candidate's gate; the next run has the next number.
    pub runs_done: u32,
    /// Not to be tried before.
    pub not_before: Option<Timestamp>,
    /// How often a red run of it was doubted.
    pub doubts: u32,
    /// Not to be tested again before on a tip that is broken.
    pub retest_at: Option<Timestamp>,
    /// Whether its commit is on its branch.
    pub source: Source,
    /// What it became on a tip.
    pub build: Option<Build>,
    /// How far its landing is.
    pub landing: Landing,
    /// Whether somebody can take it back.
    pub author: Author,
    /// Whether its Polecat says that it has landed, or there is none to say so.
    pub told: bool,
    /// Whether its branch has been dealt with after its landing.
    pub cleaned: bool,
}

/// Whether a request's commit is on its branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Not looked at since the request was seen.
    Unknown,
    /// It is.
    Present,
    /// It is not.
    Missing {
        /// When that was first seen.
        since: Timestamp,
        /// When it was last seen.
        looked: Timestamp,
    },
}

/// What a request became on a tip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The tip.
    pub base: CommitId,
    /// The outcome.
    pub built: Built,
}

/// The outcome of building.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Built {
    /// A commit to be tested.
    Candidate(CommitId),
    /// The request itself was found on the target: as its own commit, or by its trailer.
    Landed(CommitId),
    /// The target holds all of it already.
    AlreadyInTarget,
    /// It does not fit; where.
    Conflict(String),
}

/// How far a landing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landing {
    /// Not begun.
    No,
    /// The remote took the push.
    Pushed(CommitId),
    /// The target was seen to hold it.
    Confirmed(CommitId),
}

/// Whether a request's author is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// Not asked yet.
    Unknown,
    /// The Polecat is there, or a person made the request.
    Present,
    /// The Polecat is gone.
    Gone,
}

/// A gate's Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The Job's name.
    pub job: String,
    /// Whose commit it tests.
    pub request: RequestId,
    /// The commit.
    pub candidate: CommitId,
    /// The gate.
    pub gate: GateId,
    /// How it stands.
    pub state: RunState,
}

/// How a run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Its pod waits or runs; the text says what it waits for, and is empty when it runs.
    Running(String),
    /// The gate ended with code 0.
    Passed,
    /// The gate ended with another code, or took too long.
    Failed,
    /// Something else ended it.
    Broken(String),
}
