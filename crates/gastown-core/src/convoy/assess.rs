//! What the status of a Convoy shows.

use std::collections::BTreeSet;

use gastown_api::conditions::{Draft, Status};
use gastown_api::names::{condition, reason};
use gastown_api::{ConvoyBead, ConvoyBeadPhase, ConvoyPhase, FailurePolicy};

use super::evaluation::{Evaluation, list};
use super::facts::{BeadFact, End, StoreState};
use super::graph::Graph;
use super::obstacle::{Obstacle, find_invalid};

/// What the status of a Convoy shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The phase of the Convoy: InProgress, Complete or Failed.
    pub phase: ConvoyPhase,
    /// Each bead once, in the spec's order.
    pub beads: Vec<ConvoyBead>,
    /// Beads that are done, in the spec's order.
    pub completed: Vec<String>,
    /// Beads that are not done.
    pub pending: Vec<String>,
    /// Beads that failed; they are pending too.
    pub failed: Vec<String>,
    /// `Ready`: the facts are read from their sources, and the beads can be worked on.
    pub ready: Draft,
    /// `Complete`: all beads are done.
    pub complete: Draft,
    /// `Progressing`: work on a bead is under way.
    pub progressing: Draft,
    /// `Degraded`: some beads failed.
    pub degraded: Draft,
    /// `Valid`: the beads can be worked on as they are listed. Only for a Convoy that dispatches.
    pub valid: Option<Draft>,
}

impl Assessment {
    /// Whether work on a bead is under way.
    pub fn has_work(&self) -> bool {
        let is_work =
            |phase| matches!(phase, ConvoyBeadPhase::Working | ConvoyBeadPhase::Submitted);
        self.beads.iter().any(|bead| is_work(bead.phase))
    }

    /// How the Convoy ended, if it did.
    pub fn end(&self) -> Option<End> {
        match self.phase {
            ConvoyPhase::Pending | ConvoyPhase::InProgress | ConvoyPhase::Unknown => None,
            ConvoyPhase::Complete => Some(End::Complete),
            ConvoyPhase::Failed => Some(End::Failed),
        }
    }

    /// `done/total`, as `status.progress`.
    pub fn progress(&self) -> String {
        format!("{}/{}", self.completed.len(), self.beads.len())
    }
}

/// The assessment of a Convoy that creates `starting` Polecats now, or none because of `obstacle`.
pub(super) fn assess(
    evaluation: &Evaluation<'_>,
    beads: Vec<ConvoyBead>,
    obstacle: Option<Obstacle>,
    starting: usize,
) -> Assessment {
    let ids = |phase: &dyn Fn(ConvoyBeadPhase) -> bool| -> Vec<String> {
        beads.iter().filter(|bead| phase(bead.phase)).map(|bead| bead.id.clone()).collect()
    };
    let completed = ids(&|phase| phase == ConvoyBeadPhase::Done);
    let pending = ids(&|phase| phase != ConvoyBeadPhase::Done);
    let failed = ids(&|phase| phase == ConvoyBeadPhase::Failed);
    let phase = if pending.is_empty() && !beads.is_empty() {
        ConvoyPhase::Complete
    } else if starting == 0 && nothing_can_start(evaluation, &beads, &failed) {
        ConvoyPhase::Failed
    } else {
        ConvoyPhase::InProgress
    };
    let count = format!("{} of {} beads are done", completed.len(), beads.len());
    Assessment {
        phase,
        ready: ready(evaluation, phase, &count),
        complete: complete(phase, &count, beads.len(), &failed),
        progressing: progressing(evaluation, phase, &beads, obstacle, starting),
        degraded: degraded(&beads),
        valid: evaluation.snapshot.dispatch.then(|| valid(evaluation)),
        beads,
        completed,
        pending,
        failed,
    }
}

/// Whether a Convoy in which beads failed is over: no work is under way, and each bead that is left
/// failed too, depends on one that did, or is not started after a failure.
fn nothing_can_start(evaluation: &Evaluation<'_>, beads: &[ConvoyBead], failed: &[String]) -> bool {
    let snapshot = evaluation.snapshot;
    if !snapshot.dispatch || snapshot.suspended || snapshot.deleting || failed.is_empty() {
        return false;
    }
    let Some(facts) = evaluation.beads() else { return false };
    if find_invalid(evaluation).is_some() {
        return false;
    }
    let failed: BTreeSet<String> = failed.iter().cloned().collect();
    let graph = Graph::new(facts, &evaluation.finished);
    let stops = snapshot.failure_policy == FailurePolicy::Stop;
    beads.iter().all(|bead| match bead.phase {
        ConvoyBeadPhase::Done | ConvoyBeadPhase::Failed => true,
        ConvoyBeadPhase::Working | ConvoyBeadPhase::Submitted | ConvoyBeadPhase::Unknown => false,
        ConvoyBeadPhase::Blocked => stops || graph.depends_on(&bead.id, &failed),
        ConvoyBeadPhase::Open | ConvoyBeadPhase::Ready => stops,
    })
}

fn ready(evaluation: &Evaluation<'_>, phase: ConvoyPhase, count: &str) -> Draft {
    let synced = || Draft::new(condition::READY, true, reason::SYNCED, count);
    if phase == ConvoyPhase::Complete {
        return synced();
    }
    if let StoreState::Unavailable(why) = &evaluation.snapshot.store {
        return Draft::new(condition::READY, false, reason::BEAD_STORE_UNAVAILABLE, why);
    }
    match find_invalid(evaluation).filter(|_| evaluation.snapshot.dispatch) {
        Some(invalid) => Draft::new(condition::READY, false, invalid.reason, invalid.message),
        None => synced(),
    }
}

fn complete(phase: ConvoyPhase, count: &str, total: usize, failed: &[String]) -> Draft {
    match phase {
        ConvoyPhase::Complete => Draft::new(
            condition::COMPLETE,
            true,
            reason::COMPLETE,
            format!("all {total} beads are done"),
        ),
        ConvoyPhase::Failed => Draft::new(
            condition::COMPLETE,
            false,
            reason::FAILED,
            format!("{count}; no other bead can be started: {} failed", list(failed)),
        ),
        ConvoyPhase::Pending | ConvoyPhase::InProgress | ConvoyPhase::Unknown => {
            Draft::new(condition::COMPLETE, false, reason::IN_PROGRESS, count)
        }
    }
}

fn degraded(beads: &[ConvoyBead]) -> Draft {
    let failed: Vec<String> = beads
        .iter()
        .filter(|bead| bead.phase == ConvoyBeadPhase::Failed)
        .map(with_reason)
        .collect();
    if failed.is_empty() {
        Draft::new(condition::DEGRADED, false, reason::HEALTHY, "no bead failed")
    } else {
        let message = format!("failed beads: {}", list(&failed));
        Draft::new(condition::DEGRADED, true, "BeadsFailed", message)
    }
}

fn progressing(
    evaluation: &Evaluation<'_>,
    phase: ConvoyPhase,
    beads: &[ConvoyBead],
    obstacle: Option<Obstacle>,
    starting: usize,
) -> Draft {
    let draft = |holds: bool, reason, message: String| {
        Draft::new(condition::PROGRESSING, holds, reason, message)
    };
    let count = |phase| beads.iter().filter(|bead| bead.phase == phase).count();
    let working = count(ConvoyBeadPhase::Working) + starting;
    let submitted = count(ConvoyBeadPhase::Submitted);
    let waiting = count(ConvoyBeadPhase::Ready).saturating_sub(starting);
    let has_work = working + submitted > 0;
    match phase {
        ConvoyPhase::Complete => {
            return draft(false, reason::COMPLETE, "all beads are done".to_owned());
        }
        ConvoyPhase::Failed => {
            return draft(false, reason::FAILED, "no other bead can be started".to_owned());
        }
        ConvoyPhase::Pending | ConvoyPhase::InProgress | ConvoyPhase::Unknown => {}
    }
    if let StoreState::Unavailable(why) = &evaluation.snapshot.store {
        return draft(has_work, reason::BEAD_STORE_UNAVAILABLE, why.clone());
    }
    if let Some(obstacle) = obstacle {
        let holds = has_work || !evaluation.snapshot.dispatch;
        return draft(holds, obstacle.reason, obstacle.message);
    }
    if waiting > 0 {
        let (why, message) = waiting_for_room(evaluation, waiting);
        return draft(has_work, why, message);
    }
    if working > 0 {
        let message = format!("{working} beads are worked on, {submitted} wait to land");
        return draft(true, reason::WORKING, message);
    }
    if submitted > 0 {
        return draft(true, "WaitingForLanding", format!("{submitted} beads wait to land"));
    }
    let is_held = |phase| {
        matches!(phase, ConvoyBeadPhase::Open | ConvoyBeadPhase::Blocked | ConvoyBeadPhase::Unknown)
    };
    let held = beads.iter().filter(|bead| is_held(bead.phase)).map(with_reason);
    draft(false, "WaitingForBeads", format!("no bead can be started yet: {}", list(held)))
}

/// Which limit the ready beads wait for, as a reason and a message.
fn waiting_for_room(evaluation: &Evaluation<'_>, waiting: usize) -> (&'static str, String) {
    let (own, rigs) = evaluation.room();
    if rigs <= own {
        let (name, limit) =
            evaluation.rig().map_or(("", 0), |rig| (rig.name.as_str(), rig.max_polecats));
        let message = format!(
            "{waiting} ready beads wait for one of the {limit} polecats of rig {name} (spec.settings.maxPolecats)"
        );
        return (reason::AT_CAPACITY, message);
    }
    let limit = evaluation.snapshot.parallelism.unwrap_or_default();
    ("ParallelismReached", format!("{waiting} ready beads wait: spec.parallelism is {limit}"))
}

fn valid(evaluation: &Evaluation<'_>) -> Draft {
    if let Some(invalid) = find_invalid(evaluation) {
        // What could not be read is neither valid nor invalid.
        let status = match invalid.reason {
            reason::BEAD_STORE_UNAVAILABLE => Status::Unknown,
            _ => Status::False,
        };
        return Draft::new(condition::VALID, status, invalid.reason, invalid.message);
    }
    let snapshot = evaluation.snapshot;
    let is_closed =
        |id: &str| evaluation.beads().and_then(|b| b.get(id)).is_some_and(BeadFact::is_closed);
    let was_never_started =
        |id: &str| !snapshot.polecats.contains_key(id) && !snapshot.requests.contains_key(id);
    let closed: Vec<&str> = evaluation
        .tracked
        .iter()
        .copied()
        .filter(|id| is_closed(id) && was_never_started(id))
        .collect();
    if closed.is_empty() {
        let message = "the beads can be done in the order of their dependencies";
        return Draft::new(condition::VALID, true, "Valid", message);
    }
    let message = format!(
        "closed in the bead store: {}; closed beads are done, and nothing is started for them",
        list(&closed)
    );
    Draft::new(condition::VALID, true, "ClosedBeads", message)
}

/// `gt-1 (AttemptsSpent)`.
fn with_reason(bead: &ConvoyBead) -> String {
    format!("{} ({})", bead.id, bead.reason.as_deref().unwrap_or_default())
}
