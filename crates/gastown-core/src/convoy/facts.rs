//! What decides about a Convoy.

use std::collections::{BTreeMap, BTreeSet};

use gastown_api::{DesiredState, FailurePolicy, MergePhase, PolecatPhase};
use serde::{Deserialize, Serialize};

/// Everything that decides about one Convoy.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The Convoy's namespace; its Polecats are created there.
    pub namespace: String,
    /// The Convoy is being deleted: nothing is done any more.
    pub deleting: bool,
    /// `spec.trackedBeads`.
    pub tracked: Vec<String>,
    /// The Rig that `spec.rigRef` names.
    pub rig: RigState,
    /// `spec.dispatch`: Polecats are created for beads that are ready.
    pub dispatch: bool,
    /// `spec.failurePolicy`.
    pub failure_policy: FailurePolicy,
    /// `spec.suspend`.
    pub suspended: bool,
    /// `spec.parallelism`; none is without a limit.
    pub parallelism: Option<usize>,
    /// The beads as the Rig's bead store holds them.
    pub store: StoreState,
    /// Polecats that work on the Convoy's beads, by bead.
    pub polecats: BTreeMap<String, Vec<PolecatFact>>,
    /// MergeRequests of the Convoy's beads, by bead.
    pub requests: BTreeMap<String, Vec<RequestFact>>,
    /// Beads whose Polecat cannot be created, because a Polecat that does something else has its
    /// name.
    pub name_taken: BTreeSet<String>,
    /// The beads that were done before.
    pub counted: Counted,
    /// The end that was announced last: the value of the annotation `gastown.io/convoy-told`.
    pub announced: Option<String>,
}

/// The Convoy's Rig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RigState {
    /// The spec names none.
    Unnamed,
    /// No Rig has this name.
    Missing(String),
    /// The Rig exists.
    Present(Rig),
}

/// What a Convoy needs to know of its Rig.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rig {
    /// Its name.
    pub name: String,
    /// `spec.settings.namepoolTheme`.
    pub theme: String,
    /// What the ids of its beads begin with, without the hyphen.
    pub prefixes: Vec<String>,
    /// `spec.suspend`: it starts nothing new.
    pub suspended: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// `spec.allowedNamespaces` admits the Convoy's namespace.
    pub allows_namespace: bool,
    /// `spec.settings.maxPolecats`.
    pub max_polecats: usize,
    /// How many of its Polecats are [`PolecatState::Active`], whatever they work on.
    pub active: usize,
}

/// What is known of the Rig's bead store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// The Rig has no BeadStore.
    Missing,
    /// The store cannot be read; for this reason. Nothing is known of any bead.
    Unavailable(String),
    /// Beads by id: the Convoy's own, and what they depend on as far as the store holds it.
    Read(BTreeMap<String, BeadFact>),
}

/// A bead as its store holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BeadFact {
    /// As in the store: open, in_progress, closed, …
    pub status: String,
    /// From 0, the first, to 4.
    pub priority: u32,
    /// When it was created, in seconds since 1970; none when the store does not know.
    pub created: Option<i64>,
    /// task, bug, epic, …
    pub kind: String,
    /// Who works on it; empty when nobody does.
    pub assignee: String,
    /// The store counts it as blocked: one of its blockers is not closed.
    pub blocked: bool,
    /// The store lists it as ready to be worked on.
    pub ready: bool,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
    /// The uids of the MergeRequests for whose landing the store closed it.
    pub closed_for: BTreeSet<String>,
}

impl BeadFact {
    /// Whether no work on it is left.
    pub fn is_closed(&self) -> bool {
        matches!(self.status.as_str(), "closed" | "tombstone")
    }

    /// Whether beads that depend on it may start: it is closed, or pinned as a permanent notice.
    pub fn blocks_nothing(&self) -> bool {
        self.is_closed() || self.status == "pinned"
    }
}

/// A dependency of a bead on another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The id of the other bead.
    pub on: String,
    /// blocks, parent-child, …
    pub kind: String,
}

impl Dependency {
    /// Whether the other bead must be closed first.
    pub fn blocks(&self) -> bool {
        matches!(self.kind.as_str(), "blocks" | "conditional-blocks")
    }

    /// Whether the other bead is the parent; what blocks the parent blocks the child too.
    pub fn is_parent(&self) -> bool {
        self.kind == "parent-child"
    }
}

/// A Polecat that works on a bead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolecatFact {
    /// Its name, or `namespace/name` outside the Convoy's namespace.
    pub name: String,
    /// What it does for the bead.
    pub state: PolecatState,
    /// The reason of its `Degraded` condition, such as `AttemptsSpent`; empty when it is not
    /// degraded.
    pub reason: String,
    /// Its condition `Merged` is True: its work is on the target branch.
    pub merged: bool,
}

/// What a Polecat does for its bead. Of several Polecats of one bead the one with the greatest
/// state decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolecatState {
    /// A user stopped it for good.
    Terminated,
    /// It stopped, and needs a person or a change.
    Stuck,
    /// Its work is on the remote.
    Done,
    /// It has not finished, and a user set `desiredState` to Idle.
    Paused,
    /// It is at work, or will be when it is admitted.
    Active,
}

impl PolecatState {
    /// The state that follows from `status.phase` and `spec.desiredState`.
    pub fn of(phase: Option<PolecatPhase>, desired: DesiredState) -> Self {
        match (phase.unwrap_or(PolecatPhase::Idle), desired) {
            (PolecatPhase::Done, _) => Self::Done,
            (PolecatPhase::Terminated, _) | (_, DesiredState::Terminated) => Self::Terminated,
            (PolecatPhase::Stuck, _) => Self::Stuck,
            // A phase of a later version states neither an end nor a failure.
            (
                PolecatPhase::Idle | PolecatPhase::Working | PolecatPhase::Unknown,
                DesiredState::Working,
            ) => Self::Active,
            (
                PolecatPhase::Idle | PolecatPhase::Working | PolecatPhase::Unknown,
                DesiredState::Idle | DesiredState::Unknown,
            ) => Self::Paused,
        }
    }
}

/// A MergeRequest of a bead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFact {
    /// Its name, or `namespace/name` outside the Convoy's namespace.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// `status.phase`; Queued when there is none yet.
    pub phase: MergePhase,
    /// `status.reason`; may be empty.
    pub reason: String,
}

impl RequestFact {
    /// Of several MergeRequests of one bead the one with the greatest precedence decides: one that
    /// landed, then one that may land, then one that will not, then one that another attempt
    /// follows.
    pub(super) fn precedence(&self) -> u8 {
        match self.phase {
            MergePhase::Rework | MergePhase::Superseded => 0,
            MergePhase::Rejected => 1,
            MergePhase::Queued | MergePhase::Testing | MergePhase::Unknown => 2,
            MergePhase::Landed => 3,
        }
    }
}

/// The beads that were done once: the annotation `gastown.io/convoy-counted`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counted {
    /// Beads that were closed in the store, or whose work landed.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub landed: BTreeSet<String>,
    /// Beads of which only a Polecat was Done; they are done in a convoy that does not dispatch.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub done: BTreeSet<String>,
    /// Beads that were closed in the store: one that is open there later was reopened by a person.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub closed: BTreeSet<String>,
}

impl Counted {
    /// How many bytes the annotation may have: all annotations of an object together may have
    /// 256 KiB.
    const MAX_BYTES: usize = 160 * 1024;

    /// Reads what [`Counted::write`] wrote. Any other text is read as empty: the beads are counted
    /// again from their sources.
    pub fn read(text: Option<&str>) -> Self {
        text.filter(|text| text.len() <= 2 * Self::MAX_BYTES)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// Compact JSON. Ids that have no room are left out, and are counted again from their sources.
    pub fn write(&self) -> String {
        let mut kept = Self::default();
        let mut size = 32;
        for (from, to) in [
            (&self.landed, &mut kept.landed),
            (&self.done, &mut kept.done),
            (&self.closed, &mut kept.closed),
        ] {
            for id in from {
                size += id.len() + 3;
                if size > Self::MAX_BYTES {
                    break;
                }
                to.insert(id.clone());
            }
        }
        serde_json::to_string(&kept).unwrap_or_default()
    }
}

/// How a Convoy ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All beads are done.
    Complete,
    /// Some beads failed, and no other bead can be started.
    Failed,
}
