//! What a Polecat wants of the claim on its bead.

use gastown_api::{DesiredState, MergePhase};

use super::claim::ClaimFacts;
use super::facts::Snapshot;
use super::ledger::Ledger;
use super::next::Next;
use super::submission::{Submission, lands};

/// What a Polecat wants of its bead's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimIntent {
    /// To take it: it works, is about to, or has work that has landed or is to.
    Take,
    /// To keep it where it holds it.
    Keep,
    /// To release it.
    Release,
}

/// The rules, in their order. `live`: it has a live pod.
pub(super) fn claim_intent(
    s: &Snapshot,
    ledger: &Ledger,
    next: &Next,
    submission: &Submission,
    live: bool,
) -> ClaimIntent {
    if live {
        return if s.deleting { ClaimIntent::Keep } else { ClaimIntent::Take };
    }
    if s.deleting {
        return ClaimIntent::Release;
    }
    if is_spent(s) {
        return ClaimIntent::Release;
    }
    if lands(s, ledger, submission) {
        return ClaimIntent::Take;
    }
    match (s.desired, next) {
        // it has nothing to land, and will not continue by itself: the bead is free for others
        (DesiredState::Terminated, _)
        | (DesiredState::Working, Next::Stuck { spent: true, .. }) => ClaimIntent::Release,
        (DesiredState::Working, Next::Claim | Next::Start | Next::Finished) => ClaimIntent::Take,
        (DesiredState::Idle | DesiredState::Unknown, _)
        | (DesiredState::Working, Next::Wait { .. } | Next::Stuck { .. }) => ClaimIntent::Keep,
    }
}

/// Whether the store closed the bead for what has landed: then the store alone decides whether it is
/// begun again, and a person who reopens it does not wait for this Polecat.
fn is_spent(s: &Snapshot) -> bool {
    let mut landed = s.requests.iter().filter(|r| r.phase == MergePhase::Landed).peekable();
    landed.peek().is_some() && landed.all(|r| s.deliveries.bead.closed_for.contains(&r.uid))
}

/// Whether the Polecat holds its bead for work that has landed, and the store is not known to have
/// closed the bead for that.
pub fn awaits_close(s: &Snapshot) -> bool {
    let has_landed = s.requests.iter().any(|r| r.phase == MergePhase::Landed);
    s.claim == ClaimFacts::Held && s.bead_store && !s.deleting && has_landed && !is_spent(s)
}
