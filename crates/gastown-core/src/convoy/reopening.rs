//! Beads that a person reopened after they were done: they are to be done again, whatever landed
//! before.

use gastown_api::MergePhase;

use super::facts::{BeadFact, PolecatFact, PolecatState, RequestFact, Snapshot, StoreState};

/// The bead as the store holds it, where a person reopened it.
///
/// The store holds it as not closed, and it was closed before: it was seen closed, or the store
/// closed it for a landing. A landing that the store has not closed it for yet is no reopening: the
/// store may be behind, or may not be written.
pub(super) fn reopened<'a>(snapshot: &'a Snapshot, id: &str) -> Option<&'a BeadFact> {
    let StoreState::Read(beads) = &snapshot.store else { return None };
    let bead = beads.get(id).filter(|bead| !bead.is_closed())?;
    let was_closed = snapshot.counted.closed.contains(id) || !bead.closed_for.is_empty();
    let has_spent = |request: &RequestFact| bead.closed_for.contains(&request.uid);
    let all_spent = landed(snapshot, id).all(has_spent);
    (was_closed && all_spent).then_some(bead)
}

/// The requests of a bead that landed.
pub(super) fn landed<'a>(
    snapshot: &'a Snapshot,
    id: &str,
) -> impl Iterator<Item = &'a RequestFact> + use<'a> {
    let requests = snapshot.requests.get(id).map_or(&[][..], Vec::as_slice);
    requests.iter().filter(|request| request.phase == MergePhase::Landed)
}

/// Whether a Polecat of a reopened bead did the work that landed before.
pub(super) fn is_spent(polecat: &PolecatFact) -> bool {
    polecat.state == PolecatState::Done && polecat.merged
}
