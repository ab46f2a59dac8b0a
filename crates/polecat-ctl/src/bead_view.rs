//! What a decision about a Polecat needs to know of its bead, read from the rig's store where that
//! is due: its priority where the spec has none, and whether it was closed for what has landed.

use gastown_api::names::reason;
use gastown_api::{DesiredState, Polecat, PolecatPhase};
use gastown_core::polecat::{BeadView, awaits_close, lacks_close};
use gastown_core::retry;
use gastown_runtime::telemetry;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::context::Context;
use crate::error::Error;
use crate::{claims, gather};

/// A bead is read again after this time: a person may have changed its priority.
const KEPT: SignedDuration = SignedDuration::from_mins(5);
/// One that could not be read is tried again after this time.
const RETRY: SignedDuration = SignedDuration::from_secs(30);

/// Reads the bead again where it decides about something.
pub(crate) async fn refresh(ctx: &Context, polecat: &Polecat, now: Timestamp) {
    let (uid, rig) = (polecat.uid().unwrap_or_default(), &polecat.spec.rig);
    let before = ctx.deliveries(&uid).bead;
    let Some(bead) = claims::bead(polecat).filter(|_| ctx.has_bead_store(rig)) else { return };
    let is_early = before.again.is_some_and(|again| again > now);
    if polecat.metadata.deletion_timestamp.is_some() || (is_early && before.tries > 0) {
        return;
    }
    let is_submitted = polecat.status.as_ref().is_some_and(|status| status.merge_request.is_some());
    let lands = is_submitted && {
        let s = gather::snapshot(ctx, polecat, now);
        awaits_close(&s) || (telemetry::is_exported() && lacks_close(now, &s))
    };
    // The first reading for a landing does not wait for the next one of the priority.
    if !lands && (is_early || !needs_priority(polecat)) {
        return;
    }
    let tries = if lands { before.tries.saturating_add(1) } else { 0 };
    let view = match ctx.services.bead(rig, bead).await {
        Ok(bead) => BeadView {
            priority: u8::try_from(bead.priority).ok().filter(|priority| *priority <= 4),
            closed_for: bead.closed_for.into_iter().collect(),
            closed_at: bead.closed_at.parse().ok(),
            ..before
        },
        Err(Error::Bead { reason: reason::BEAD_NOT_FOUND, .. }) => {
            BeadView { priority: None, ..before }
        }
        Err(error) => {
            let again = now.checked_add(RETRY).ok();
            tracing::debug!(bead, error = &error as &dyn std::error::Error, "reading it failed");
            ctx.update_deliveries(&uid, |d| d.bead = BeadView { again, tries, ..before });
            return;
        }
    };
    let wait = if lands { SignedDuration::from_secs(retry::respawn_delay(tries)) } else { KEPT };
    let again = now.checked_add(wait).ok();
    ctx.update_deliveries(&uid, |d| d.bead = BeadView { again, tries, ..view });
}

/// Whether the bead's priority decides about the Polecat. Pure.
fn needs_priority(polecat: &Polecat) -> bool {
    let status = polecat.status.as_ref();
    let is_over = match status.and_then(|status| status.phase) {
        Some(PolecatPhase::Done) => status.is_some_and(|status| status.merge_request.is_some()),
        Some(PolecatPhase::Stuck | PolecatPhase::Terminated) => true,
        Some(PolecatPhase::Idle | PolecatPhase::Working | PolecatPhase::Unknown) | None => false,
    };
    polecat.spec.priority.is_none()
        && polecat.spec.desired_state == DesiredState::Working
        && !is_over
}
