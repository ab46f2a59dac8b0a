//! What a Polecat wants of the claim on its bead.

use gastown_api::DesiredState;

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
    if lands(s, ledger, submission) {
        return ClaimIntent::Take;
    }
    match (s.desired, next) {
        // it has nothing to land, and will not continue by itself: the bead is free for others
        (DesiredState::Terminated, _)
        | (DesiredState::Working, Next::Stuck { spent: true, .. }) => ClaimIntent::Release,
        (DesiredState::Working, Next::Claim | Next::Start | Next::Finished) => ClaimIntent::Take,
        (DesiredState::Idle, _)
        | (DesiredState::Working, Next::Wait { .. } | Next::Stuck { .. }) => ClaimIntent::Keep,
    }
}
