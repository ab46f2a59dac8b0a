//! From the assessment to the Convoy's status, and Events about what went wrong since.

use std::collections::BTreeSet;
use std::time::Duration;

use gastown_api::conditions::{self, Draft};
use gastown_api::names::{condition, manager, reason};
use gastown_api::{Convoy, ConvoyBead, ConvoyBeadPhase, ConvoyPhase, ConvoyStatus};
use gastown_core::convoy::Assessment;
use gastown_runtime::apply::StatusOwner;
use gastown_runtime::events::Note;
use jiff::Timestamp;
use kube::{Api, ResourceExt as _};

use crate::context::Context;
use crate::error::Error;

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

/// How often the status of a Convoy is written when only details of it changed: with many beads
/// each step of each one would write them all.
pub(crate) const DETAILS_EVERY: Duration = Duration::from_secs(3);

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

/// Whether two statuses differ in details only: the beads' entries and the messages of conditions.
/// Without a status before, nothing is a detail.
pub(crate) fn is_only_details(before: Option<&ConvoyStatus>, after: &ConvoyStatus) -> bool {
    let without_messages = |status: &ConvoyStatus| {
        let parts = status
            .conditions
            .iter()
            .map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone(), c.observed_generation));
        parts.collect::<Vec<_>>()
    };
    let rest = |status: &ConvoyStatus| ConvoyStatus {
        beads: Vec::new(),
        conditions: Vec::new(),
        ..status.clone()
    };
    before.is_some_and(|before| {
        without_messages(before) == without_messages(after) && rest(before) == rest(after)
    })
}

/// Writes the status if it differs from the present one, and then publishes Events.
pub(crate) async fn publish(
    convoy: &Convoy,
    status: &ConvoyStatus,
    assessment: &Assessment,
    ctx: &Context,
) -> Result<(), Error> {
    let namespace = convoy.namespace().unwrap_or_default();
    let api: Api<Convoy> = Api::namespaced(ctx.runtime.client.clone(), &namespace);
    let written = OWNER.apply(&api, convoy, status).await;
    if written.map_err(|source| Error::Report { convoy: convoy.name_any(), source })? {
        ctx.pace.wrote(convoy);
        publish_events(convoy, status, assessment, ctx);
    }
    Ok(())
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
    fn steps_of_beads_are_details_and_progress_of_the_convoy_is_not() {
        let shown = ConvoyStatus {
            progress: Some("0/1".into()),
            beads: shown_beads(&[bead(1, ConvoyBeadPhase::Ready)]),
            ..ConvoyStatus::default()
        };
        let step = ConvoyStatus {
            beads: shown_beads(&[bead(1, ConvoyBeadPhase::Working)]),
            ..shown.clone()
        };
        assert!(is_only_details(Some(&shown), &step));
        let progress = ConvoyStatus { progress: Some("1/1".into()), ..step.clone() };
        assert!(!is_only_details(Some(&shown), &progress));
        assert!(!is_only_details(None, &step), "an erased status is written at once");
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
