//! From the assessment to the Convoy's status, and Events about what went wrong since.

use std::collections::BTreeSet;
use std::time::Duration;

use gastown_api::conditions::{self, Draft};
use gastown_api::names::{condition, manager, reason};
use gastown_api::{Convoy, ConvoyBead, ConvoyBeadPhase, ConvoyPhase, ConvoyStatus};
use gastown_core::convoy::Assessment;
use gastown_runtime::apply::{Applied, Details, StatusOwner};
use gastown_runtime::events::Note;
use jiff::Timestamp;
use kube::{Api, ResourceExt as _};

use crate::context::Context;
use crate::error::Error;
use crate::trace;

const OWNER: StatusOwner = StatusOwner {
    manager: manager::CONVOY,
    fields: &[
        "phase",
        "progress",
        "completedBeads",
        "pendingBeads",
        "beads",
        "failedBeads",
        "startedAt",
        "completedAt",
        "traceID",
    ],
    conditions: &[
        condition::READY,
        condition::COMPLETE,
        condition::PROGRESSING,
        condition::DEGRADED,
        condition::VALID,
    ],
};

/// How many characters the reason of a bead may have.
const MAX_REASON: usize = 512;

/// With many beads each step of each one would write them all.
const DETAILS: Details = Details {
    fields: &["beads", "progress", "completedBeads", "pendingBeads"],
    conditions: &[],
    reasons: &[condition::PROGRESSING],
};

/// The status as it should be. `refused` is the API server's message about a Polecat that could not
/// be created. Pure.
pub(crate) fn status(
    convoy: &Convoy,
    assessment: &Assessment,
    refused: Option<&str>,
    now: Timestamp,
) -> ConvoyStatus {
    let before = convoy.status.clone().unwrap_or_default();
    let mut all = before.conditions;
    conditions::merge(&mut all, drafts(assessment, refused), convoy.metadata.generation, now);
    if assessment.valid.is_none() {
        conditions::remove(&mut all, condition::VALID);
    }
    let second = || Some(conditions::time(now));
    // From the first change of the phase on, so that it costs no write.
    let is_traced = before.trace_id.is_some() || before.phase != Some(assessment.phase);
    ConvoyStatus {
        phase: Some(assessment.phase),
        progress: Some(assessment.progress()),
        completed_beads: assessment.completed.clone(),
        pending_beads: assessment.pending.clone(),
        beads: shown_beads(&assessment.beads),
        failed_beads: assessment.failed.clone(),
        started_at: before.started_at.or_else(second),
        completed_at: (assessment.phase == ConvoyPhase::Complete)
            .then(|| before.completed_at.or_else(second))
            .flatten(),
        trace_id: is_traced.then(|| trace::place(convoy).trace().to_string()),
        conditions: all,
    }
}

fn drafts(assessment: &Assessment, refused: Option<&str>) -> Vec<Draft> {
    let unless_refused = |draft: &Draft| match refused {
        Some(why) => Draft::new(draft.type_, false, reason::CHILD_CREATION_FAILED, why),
        None => draft.clone(),
    };
    let mut drafts = vec![
        unless_refused(&assessment.ready),
        unless_refused(&assessment.progressing),
        assessment.complete.clone(),
        assessment.degraded.clone(),
    ];
    drafts.extend(assessment.valid.clone());
    drafts
}

/// As many beads as the status has room for, in their order. Those that are done give way to those
/// that are not.
fn shown_beads(beads: &[ConvoyBead]) -> Vec<ConvoyBead> {
    let is_done = |bead: &ConvoyBead| bead.phase == ConvoyBeadPhase::Done;
    let open = beads.iter().filter(|bead| !is_done(bead)).count();
    let mut room_for_open = ConvoyStatus::MAX_BEADS.min(open);
    let mut room_for_done = ConvoyStatus::MAX_BEADS.saturating_sub(open);
    let fits = |bead: &&ConvoyBead| {
        let room = if is_done(bead) { &mut room_for_done } else { &mut room_for_open };
        let fits = *room > 0;
        *room = room.saturating_sub(1);
        fits
    };
    let shown = |bead: &ConvoyBead| ConvoyBead {
        reason: bead.reason.as_ref().map(|reason| reason.chars().take(MAX_REASON).collect()),
        ..bead.clone()
    };
    beads.iter().filter(fits).map(shown).collect()
}

/// Writes the status if it differs from the present one, and then publishes Events. When only
/// details differ and it is too early to write them, returns after which time to come back.
pub(crate) async fn publish(
    convoy: &Convoy,
    status: &ConvoyStatus,
    assessment: &Assessment,
    ctx: &Context,
) -> Result<Option<Duration>, Error> {
    let namespace = convoy.namespace().unwrap_or_default();
    let api: Api<Convoy> = Api::namespaced(ctx.runtime.client.clone(), &namespace);
    let applied = OWNER.apply_paced(&api, convoy, status, &DETAILS, &ctx.pace).await;
    let applied = applied.map_err(|source| Error::Report { convoy: convoy.name_any(), source })?;
    if let Applied::Written(_) = applied {
        publish_events(convoy, status, assessment, ctx);
    }
    Ok(applied.record(&ctx.own))
}

/// An Event when another bead failed, and one when `Ready` becomes False for another reason.
fn publish_events(convoy: &Convoy, status: &ConvoyStatus, assessment: &Assessment, ctx: &Context) {
    let before = convoy.status.clone().unwrap_or_default();
    let had_failed: BTreeSet<&String> = before.failed_beads.iter().collect();
    if status.failed_beads.iter().any(|bead| !had_failed.contains(bead)) {
        let degraded = &assessment.degraded;
        let note = Note::warning(condition::DEGRADED, &*degraded.reason, &degraded.message);
        ctx.runtime.events.publish(convoy, note);
    }
    let ready = conditions::find(&status.conditions, condition::READY)
        .filter(|ready| ready.status == "False");
    let old =
        conditions::find(&before.conditions, condition::READY).map(|ready| ready.reason.as_str());
    if let Some(ready) = ready.filter(|ready| old != Some(ready.reason.as_str())) {
        let note = Note::warning(condition::READY, ready.reason.as_str(), &ready.message);
        ctx.runtime.events.publish(convoy, note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bead(n: usize, phase: ConvoyBeadPhase) -> ConvoyBead {
        ConvoyBead {
            id: format!("gt-{n:04}"),
            phase,
            polecat: None,
            merge_request: None,
            reason: Some("日".repeat(600)),
        }
    }

    #[test]
    fn beads_that_are_not_done_are_shown_first_and_in_their_order() {
        let all: Vec<ConvoyBead> = (0..300)
            .map(|n| {
                bead(n, if n < 250 { ConvoyBeadPhase::Done } else { ConvoyBeadPhase::Working })
            })
            .collect();
        let shown = shown_beads(&all);
        assert_eq!(shown.len(), ConvoyStatus::MAX_BEADS);
        assert_eq!(shown.iter().filter(|bead| bead.phase == ConvoyBeadPhase::Working).count(), 50);
        assert!(shown.is_sorted_by_key(|bead| &bead.id));
        assert_eq!(shown[0].reason.as_ref().map(|reason| reason.chars().count()), Some(MAX_REASON));
        let many: Vec<ConvoyBead> = (0..300).map(|n| bead(n, ConvoyBeadPhase::Blocked)).collect();
        assert_eq!(shown_beads(&many).len(), ConvoyStatus::MAX_BEADS);
    }
}
