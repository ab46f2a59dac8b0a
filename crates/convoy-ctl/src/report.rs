//! From the verdict to the Convoy's status, and one event a change.

use std::collections::BTreeSet;
use std::time::Duration;

use gastown_api::conditions::{self, Status};
use gastown_api::names::{condition, manager, reason};
use gastown_api::{Convoy, ConvoyBead, ConvoyBeadPhase, ConvoyPhase, ConvoyStatus};
use gastown_core::convoy::{BeadPhase, Line, Phase, Said, Verdict};
use gastown_runtime::apply::{self, StatusOwner};
use gastown_runtime::events::Note;
use jiff::Timestamp;
use kube::{Api, ResourceExt as _};

use crate::Context;

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

/// The longest reason of a bead that the schema takes.
const REASON: usize = 512;

/// The status that the verdict makes; `refused` is why a Polecat could not be made.
pub fn status(
    convoy: &Convoy,
    verdict: &Verdict,
    refused: Option<&str>,
    now: Timestamp,
) -> ConvoyStatus {
    let before = convoy.status.clone().unwrap_or_default();
    let mut all = before.conditions;
    let mut set = |kind: &str, said: &Said| {
        let holds = said.holds.map_or(Status::Unknown, Status::from);
        conditions::set(
            &mut all,
            kind,
            holds,
            &said.reason,
            &said.message,
            convoy.metadata.generation,
            now,
        );
    };
    let failed = refused.map(|why| Said {
        holds: Some(false),
        reason: reason::CHILD_CREATION_FAILED.to_owned(),
        message: why.to_owned(),
    });
    set(condition::READY, failed.as_ref().unwrap_or(&verdict.ready));
    set(condition::PROGRESSING, failed.as_ref().unwrap_or(&verdict.progressing));
    set(condition::COMPLETE, &verdict.complete);
    set(condition::DEGRADED, &verdict.degraded);
    match &verdict.valid {
        Some(valid) => set(condition::VALID, valid),
        None => conditions::remove(&mut all, condition::VALID),
    }
    let second = || Some(conditions::time(now));
    ConvoyStatus {
        phase: Some(match verdict.phase {
            Phase::InProgress => ConvoyPhase::InProgress,
            Phase::Complete => ConvoyPhase::Complete,
            Phase::Failed => ConvoyPhase::Failed,
        }),
        progress: Some(verdict.progress()),
        completed_beads: verdict.completed.clone(),
        pending_beads: verdict.pending.clone(),
        beads: beads(&verdict.lines),
        failed_beads: verdict.failed.clone(),
        started_at: before.started_at.or_else(second),
        completed_at: (verdict.phase == Phase::Complete)
            .then(|| before.completed_at.or_else(second))
            .flatten(),
        conditions: all,
    }
}

/// As many as there is room for, in their order; those that are done give way first.
fn beads(lines: &[Line]) -> Vec<ConvoyBead> {
    let open = lines.iter().filter(|line| line.phase != BeadPhase::Done).count();
    let mut room =
        (ConvoyStatus::MAX_BEADS.min(open), ConvoyStatus::MAX_BEADS.saturating_sub(open));
    let mut fits = |line: &&Line| {
        let room = if line.phase == BeadPhase::Done { &mut room.1 } else { &mut room.0 };
        let fits = *room > 0;
        *room = room.saturating_sub(1);
        fits
    };
    lines.iter().filter(|line| fits(line)).map(bead).collect()
}

fn bead(line: &Line) -> ConvoyBead {
    ConvoyBead {
        id: line.id.clone(),
        phase: match line.phase {
            BeadPhase::Unknown => ConvoyBeadPhase::Unknown,
            BeadPhase::Open => ConvoyBeadPhase::Open,
            BeadPhase::Blocked => ConvoyBeadPhase::Blocked,
            BeadPhase::Ready => ConvoyBeadPhase::Ready,
            BeadPhase::Working => ConvoyBeadPhase::Working,
            BeadPhase::Submitted => ConvoyBeadPhase::Submitted,
            BeadPhase::Done => ConvoyBeadPhase::Done,
            BeadPhase::Failed => ConvoyBeadPhase::Failed,
        },
        polecat: line.polecat.clone(),
        merge_request: line.request.clone(),
        reason: Some(line.reason.chars().take(REASON).collect())
            .filter(|reason: &String| !reason.is_empty()),
    }
}

/// How often a convoy is written for no more than what its beads are at: with many beads each step
/// of each would be a write of them all.
pub const DETAILS_EVERY: Duration = Duration::from_secs(3);

/// Whether nothing is new but what beads are at, and in which words. After no status at all
/// everything is.
pub fn is_detail(before: Option<&ConvoyStatus>, after: &ConvoyStatus) -> bool {
    let said = |status: &ConvoyStatus| {
        let said = status
            .conditions
            .iter()
            .map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone(), c.observed_generation));
        said.collect::<Vec<_>>()
    };
    let rest = |status: &ConvoyStatus| ConvoyStatus {
        beads: Vec::new(),
        conditions: Vec::new(),
        ..status.clone()
    };
    before.is_some_and(|before| said(before) == said(after) && rest(before) == rest(after))
}

/// Writes the status if it says anything new, and events about what is wrong since.
pub async fn publish(
    convoy: &Convoy,
    status: &ConvoyStatus,
    verdict: &Verdict,
    context: &Context,
) -> Result<(), apply::Error> {
    let api: Api<Convoy> =
        Api::namespaced(context.runtime.client.clone(), &convoy.namespace().unwrap_or_default());
    if OWNER.apply(&api, convoy, status).await? {
        context.pace.wrote(convoy);
        say(convoy, status, verdict, context);
    }
    Ok(())
}

fn say(convoy: &Convoy, status: &ConvoyStatus, verdict: &Verdict, context: &Context) {
    let before = convoy.status.clone().unwrap_or_default();
    let set_aside: BTreeSet<&String> = before.failed_beads.iter().collect();
    if status.failed_beads.iter().any(|bead| !set_aside.contains(bead)) {
        let note = Note::warning(
            condition::DEGRADED,
            verdict.degraded.reason.as_str(),
            &verdict.degraded.message,
        );
        context.runtime.events.publish(convoy, note);
    }
    let now = conditions::find(&status.conditions, condition::READY)
        .filter(|ready| ready.status == "False");
    let old =
        conditions::find(&before.conditions, condition::READY).map(|ready| ready.reason.as_str());
    if let Some(now) = now.filter(|now| old != Some(now.reason.as_str())) {
        context
            .runtime
            .events
            .publish(convoy, Note::warning(condition::READY, now.reason.as_str(), &now.message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize, phase: BeadPhase) -> Line {
        Line {
            id: format!("gt-{n:04}"),
            phase,
            polecat: None,
            request: None,
            reason: "日".repeat(600),
        }
    }

    #[test]
    fn steps_of_beads_are_details_and_news_of_the_convoy_are_not() {
        let shown = ConvoyStatus {
            progress: Some("0/1".into()),
            beads: beads(&[line(1, BeadPhase::Ready)]),
            ..ConvoyStatus::default()
        };
        let step = ConvoyStatus { beads: beads(&[line(1, BeadPhase::Working)]), ..shown.clone() };
        assert!(is_detail(Some(&shown), &step));
        let news = ConvoyStatus { progress: Some("1/1".into()), ..step.clone() };
        assert!(!is_detail(Some(&shown), &news));
        assert!(!is_detail(None, &step), "an erased status is written at once");
    }

    #[test]
    fn beads_that_are_not_done_are_shown_first_and_in_their_order() {
        let lines: Vec<Line> = (0..300)
            .map(|n| line(n, if n < 250 { BeadPhase::Done } else { BeadPhase::Working }))
            .collect();
        let shown = beads(&lines);
        assert_eq!(shown.len(), ConvoyStatus::MAX_BEADS);
        assert_eq!(shown.iter().filter(|bead| bead.phase == ConvoyBeadPhase::Working).count(), 50);
        assert!(shown.is_sorted_by_key(|bead| &bead.id));
        assert_eq!(shown[0].reason.as_ref().map(|reason| reason.chars().count()), Some(REASON));
        let many: Vec<Line> = (0..300).map(|n| line(n, BeadPhase::Blocked)).collect();
        assert_eq!(beads(&many).len(), ConvoyStatus::MAX_BEADS);
    }
}
