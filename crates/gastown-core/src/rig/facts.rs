//! What decides about a Rig.

use gastown_api::PolecatPhase;

use crate::seniority::Seniority;

/// Everything that decides about one Rig.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The Rig's name.
    pub name: String,
    /// The namespace in which the Rig's own children are created.
    pub namespace: String,
    /// The Rig is being deleted.
    pub deleting: bool,
    /// The Rig has rig-ctl's finalizer.
    pub finalizer: bool,
    /// `spec.suspend`.
    pub suspended: bool,
    /// The Rig wants a BeadStore of its own: `spec.beads` is set.
    pub wants_beads: bool,
    /// Refineries that name the Rig, that it created, or that have the name of its own Refinery.
    pub refineries: Vec<Child>,
    /// Witnesses, chosen as the Refineries are.
    pub witnesses: Vec<Child>,
    /// BeadStores, chosen as the Refineries are.
    pub bead_stores: Vec<Child>,
    /// Polecats that name the Rig, in all namespaces.
    pub polecats: Vec<PolecatFact>,
    /// How many Convoys of the Rig are in progress.
    pub active_convoys: usize,
}

/// A Refinery, Witness or BeadStore that matters to the Rig.
#[derive(Clone, Debug)]
pub struct Child {
    /// The object.
    pub reference: ChildRef,
    /// This Rig created it: its controller reference has the Rig's uid.
    pub ours: bool,
    /// It does for the Rig what the Rig's own child would do: it names the Rig and, for a Refinery,
    /// the same target branch.
    pub same_duty: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// It is in the middle of work that another object would have to start again.
    pub busy: bool,
    /// Its place among objects with the same duty.
    pub seniority: Seniority,
    /// Its `Ready` condition.
    pub readiness: Readiness,
}

/// Identifies one child object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChildRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl std::fmt::Display for ChildRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A child's `Ready` condition, as far as it is about the child's present generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// There is no such condition yet, or its status is Unknown.
    Unknown,
    /// The condition is True.
    Ready,
    /// The condition is False.
    NotReady {
        /// The condition's reason.
        reason: String,
        /// The condition's message.
        message: String,
    },
}

/// What a Rig needs to know of one of its Polecats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolecatFact {
    /// `namespace/name`.
    pub name: String,
    /// `status.phase`; Idle when there is none yet.
    pub phase: PolecatPhase,
    /// `spec.desiredState` is Working.
    pub wanted: bool,
    /// It has a slot or a pod, so it may be at work whatever its phase is.
    pub holds_slot: bool,
}
