use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Everything that decides about one convoy.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Where it is, and where its Polecats go.
    pub namespace: String,
    /// It is being deleted: nothing is done any more.
    pub deleting: bool,
    /// `spec.trackedBeads`.
    pub tracked: Vec<String>,
    /// Its rig.
    pub rig: RigState,
    /// `spec.dispatch`.
    pub dispatch: bool,
    /// `spec.failurePolicy`.
    pub policy: Policy,
    /// `spec.suspend`.
    pub suspended: bool,
    /// `spec.parallelism`; nothing is without a limit.
    pub parallelism: Option<usize>,
    /// What the store says of its beads and of what they depend on.
    pub store: Store,
    /// Polecats that carry one of its beads, by bead.
    pub polecats: BTreeMap<String, Vec<PolecatFact>>,
    /// MergeRequests of its beads, by bead.
    pub requests: BTreeMap<String, Vec<RequestFact>>,
    /// Beads whose Polecat cannot be made: one that does something else has its name.
    pub taken: BTreeSet<String>,
    /// What counted before.
    pub counted: Counted,
    /// What was told last: the annotation's value.
    pub told: Option<String>,
}

/// What a failed bead means for those that are not started yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// What does not depend on it is started.
    #[default]
    Continue,
    /// Nothing more is started.
    Stop,
}

/// The convoy's rig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RigState {
    /// The spec names none.
    Unnamed,
    /// There is none of this name.
    Missing(String),
    /// It is there.
    Present(Rig),
}

/// What of a rig decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rig {
    /// Its name.
    pub name: String,
    /// What ids of its beads begin with, without the hyphen.
    pub prefixes: Vec<String>,
    /// It starts nothing new.
    pub suspended: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// It lets the convoy's namespace use it.
    pub allows: bool,
    /// `spec.settings.maxPolecats`.
    pub most: usize,
    /// Its Polecats that work or want to, whatever they work on.
    pub active: usize,
}

/// What the store says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// The rig has none.
    None,
    /// It cannot be asked, or has not been read: nothing is known.
    Unavailable(String),
    /// Its beads by id: the convoy's, and what they depend on as far as it holds that.
    Read(BTreeMap<String, BeadFact>),
}

/// A bead that the store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BeadFact {
    /// As in the store: open, in_progress, closed, …
    pub status: String,
    /// 0 (first) to 4.
    pub priority: u32,
    /// Seconds since 1970; nothing when the store does not say.
    pub created: Option<i64>,
    /// task, bug, epic, …
    pub kind: String,
    /// Whose it is; empty is nobody's.
    pub assignee: String,
    /// One of its blockers is not closed, as the store sees it.
    pub blocked: bool,
    /// The store would list it as ready to be worked on.
    pub ready: bool,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
}

impl BeadFact {
    /// Nothing is to be done for it, and it blocks nothing any more.
    pub fn is_closed(&self) -> bool {
        matches!(self.status.as_str(), "closed" | "tombstone")
    }

    /// It blocks nothing: closed, or pinned as a notice that stays.
    pub fn blocks_nothing(&self) -> bool {
        self.is_closed() || self.status == "pinned"
    }
}

/// One edge of a bead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The other bead.
    pub on: String,
    /// blocks, parent-child, …
    pub kind: String,
}

impl Dependency {
    /// The other bead must be closed first.
    pub fn blocks(&self) -> bool {
        matches!(self.kind.as_str(), "blocks" | "conditional-blocks")
    }

    /// The other bead is the parent, whose blockers are inherited.
    pub fn is_parent(&self) -> bool {
        self.kind == "parent-child"
    }
}

/// A Polecat that carries a bead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolecatFact {
    /// Its name, or namespace/name elsewhere.
    pub name: String,
    /// What it is.
    pub state: PolecatState,
    /// A person's word for why, such as `AttemptsSpent`.
    pub reason: String,
}

/// What a Polecat is; of several that carry a bead the greatest one tells where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolecatState {
    /// A person stopped it for good.
    Terminated,
    /// It stopped and needs somebody.
    Stuck,
    /// Its work is on the remote.
    Done,
    /// A person has it wait.
    Paused,
    /// It works, or will when it is admitted.
    Active,
}

/// A MergeRequest of a bead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFact {
    /// Its name, or namespace/name elsewhere.
    pub name: String,
    /// What it is.
    pub state: RequestState,
    /// Its status's word for why.
    pub reason: String,
}

/// What a MergeRequest is; of several the greatest one tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestState {
    /// It was replaced, or goes back to its author.
    Past,
    /// It will not land.
    Rejected,
    /// It waits or is tested.
    Open,
    /// Its work is on the target branch.
    Landed,
}

/// What counted once: the annotation `gastown.io/convoy-counted`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counted {
    /// Closed in the store, or landed.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub landed: BTreeSet<String>,
    /// Only their Polecat was done: this counts for a convoy that only follows.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub done: BTreeSet<String>,
}

impl Counted {
    /// All annotations of an object together take 256 KiB.
    const ROOM: usize = 160 * 1024;

    /// Reads what [`Counted::write`] wrote. What is none of ours counts nothing: the sources are
    /// asked again.
    pub fn read(text: Option<&str>) -> Self {
        text.filter(|text| text.len() <= 2 * Self::ROOM)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// Compact JSON. Where all of it has no room, the last ids are left out, and count again by
    /// their sources.
    pub fn write(&self) -> String {
        let mut kept = Self::default();
        let mut size = 32;
        for (from, to) in [(&self.landed, &mut kept.landed), (&self.done, &mut kept.done)] {
            for id in from {
                size += id.len() + 3;
                if size > Self::ROOM {
                    break;
                }
                to.insert(id.clone());
            }
        }
        serde_json::to_string(&kept).unwrap_or_default()
    }
}

/// How a convoy ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All beads count.
    Complete,
    /// Nothing can move.
    Failed,
}
