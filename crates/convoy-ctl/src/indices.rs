//! What is looked up of the watched objects, and under which keys.

use gastown_api::{Convoy, MergeRequest, Polecat};
use gastown_core::convoy::PolecatState;
use gastown_runtime::index::Index;

/// What is looked up of the watched objects. Clones share.
#[derive(Clone, Default)]
pub(crate) struct Indices {
    /// Polecats by [`bead_key`], with and without their Rig.
    pub(crate) polecats_by_bead: Index<Polecat>,
    /// Polecats that are at work or want to be, by their Rig.
    pub(crate) active_by_rig: Index<Polecat>,
    /// MergeRequests by [`bead_key`], with and without their Rig.
    pub(crate) requests_by_bead: Index<MergeRequest>,
    /// Convoys by their Rig.
    pub(crate) convoys_by_rig: Index<Convoy>,
    /// Convoys by [`bead_key`] of each bead that they track.
    pub(crate) convoys_by_bead: Index<Convoy>,
}

/// The key of a bead of a Rig, or of the bead of this id in any.
pub(crate) fn bead_key(rig: Option<&str>, bead: &str) -> String {
    format!("{}/{bead}", rig.unwrap_or_default())
}

/// Both keys of what belongs to a bead.
pub(crate) fn bead_keys(rig: &str, bead: Option<&str>) -> Vec<String> {
    bead.map(|bead| vec![bead_key(Some(rig), bead), bead_key(None, bead)]).unwrap_or_default()
}

/// Whether a Polecat has a slot of its Rig, or wants one.
pub(crate) fn is_active(polecat: &Polecat) -> bool {
    polecat_state(polecat) == PolecatState::Active
}

pub(crate) fn polecat_state(polecat: &Polecat) -> PolecatState {
    let phase = polecat.status.as_ref().and_then(|status| status.phase);
    PolecatState::of(phase, polecat.spec.desired_state)
}
