//! What keeps every bead of a Convoy from being started.

use std::collections::{BTreeMap, BTreeSet};

use gastown_api::FailurePolicy;
use gastown_api::names::reason;

use super::evaluation::{Evaluation, list};
use super::facts::{BeadFact, Rig, RigState, Snapshot, StoreState};
use super::graph::Graph;

/// Why no Polecat is created for any bead of the Convoy.
pub(super) struct Obstacle {
    /// As a condition's reason.
    pub reason: &'static str,
    /// As a condition's message.
    pub message: String,
}

impl Obstacle {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// The first obstacle, if there is any; `failed` are the beads that failed.
pub(super) fn find(evaluation: &Evaluation<'_>, failed: &BTreeSet<String>) -> Option<Obstacle> {
    let snapshot = evaluation.snapshot;
    if snapshot.deleting {
        return Some(Obstacle::new("Terminating", "the convoy is being deleted"));
    }
    if !snapshot.dispatch {
        let message = "the convoy tracks its beads and starts none: spec.dispatch is false";
        return Some(Obstacle::new(reason::IN_PROGRESS, message));
    }
    if let Some(invalid) = find_invalid(evaluation) {
        return Some(invalid);
    }
    let rig = evaluation.rig()?;
    if snapshot.suspended {
        let message = "spec.suspend is true: no more beads are started";
        Some(Obstacle::new(reason::SUSPENDED, message))
    } else if rig.suspended {
        let message = format!("rig {} is suspended (spec.suspend)", rig.name);
        Some(Obstacle::new(reason::RIG_SUSPENDED, message))
    } else if snapshot.failure_policy == FailurePolicy::Unknown {
        let message = "spec.failurePolicy has a value that this version of convoy-ctl does not know: no bead is started";
        Some(Obstacle::new("Stopped", message))
    } else if snapshot.failure_policy == FailurePolicy::Stop && !failed.is_empty() {
        let message = format!("spec.failurePolicy is Stop and {} failed", list(failed));
        Some(Obstacle::new("Stopped", message))
    } else {
        None
    }
}

/// The first of the obstacles that make the beads impossible to work on as they are listed. It
/// stays until somebody changes the Convoy, the Rig or the beads.
pub(super) fn find_invalid(evaluation: &Evaluation<'_>) -> Option<Obstacle> {
    let snapshot = evaluation.snapshot;
    let rig = match &snapshot.rig {
        RigState::Unnamed => return Some(Obstacle::new("NoRig", "spec.rigRef is empty")),
        RigState::Missing(name) => {
            return Some(Obstacle::new(
                reason::RIG_NOT_FOUND,
                format!("rig {name} does not exist"),
            ));
        }
        RigState::Present(rig) => rig,
    };
    if let Some(obstacle) = find_in_rig(rig, snapshot) {
        return Some(obstacle);
    }
    let beads = match &snapshot.store {
        StoreState::Missing => {
            return Some(Obstacle::new(
                reason::NO_BEAD_STORE,
                format!(
                    "rig {} has no BeadStore, so its beads cannot be read: set spec.beads of the Rig or create a BeadStore for it",
                    rig.name
                ),
            ));
        }
        StoreState::Unavailable(why) => {
            return Some(Obstacle::new(reason::BEAD_STORE_UNAVAILABLE, why.clone()));
        }
        StoreState::Read(beads) => beads,
    };
    find_absent(evaluation, rig, beads).or_else(|| find_cycle(evaluation, beads))
}

fn find_in_rig(rig: &Rig, snapshot: &Snapshot) -> Option<Obstacle> {
    if rig.deleting {
        let message = format!("rig {} is being deleted", rig.name);
        return Some(Obstacle::new("RigTerminating", message));
    }
    if !rig.allows_namespace {
        let message = format!("rig {} does not allow namespace {}", rig.name, snapshot.namespace);
        return Some(Obstacle::new(reason::NAMESPACE_NOT_ALLOWED, message));
    }
    None
}

/// Tracked beads that the store does not hold: beads of other rigs first, then unknown ones.
fn find_absent(
    evaluation: &Evaluation<'_>,
    rig: &Rig,
    beads: &BTreeMap<String, BeadFact>,
) -> Option<Obstacle> {
    let absent = evaluation
        .tracked
        .iter()
        .copied()
        .filter(|id| !beads.contains_key(*id) && !evaluation.finished.contains(*id));
    let has_our_prefix = |id: &&str| {
        rig.prefixes.iter().any(|prefix| {
            id.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('-'))
        })
    };
    let (unknown, foreign): (Vec<&str>, Vec<&str>) = absent.partition(has_our_prefix);
    let what_to_do = "nothing is started until spec.trackedBeads or the bead store is corrected";
    if !foreign.is_empty() {
        let message = format!("{} not of rig {}: {what_to_do}", list_with_verb(&foreign), rig.name);
        return Some(Obstacle::new("ForeignBead", message));
    }
    if !unknown.is_empty() {
        let message = format!(
            "{} not in the bead store of rig {}: {what_to_do}",
            list_with_verb(&unknown),
            rig.name
        );
        return Some(Obstacle::new("UnknownBead", message));
    }
    None
}

fn find_cycle(evaluation: &Evaluation<'_>, beads: &BTreeMap<String, BeadFact>) -> Option<Obstacle> {
    const MAX_SHOWN: usize = 12;
    let cycle = Graph::new(beads, &evaluation.finished).cycle(&evaluation.tracked)?;
    let mut shown = cycle.iter().take(MAX_SHOWN).map(AsRef::<str>::as_ref).collect::<Vec<_>>();
    if cycle.len() > MAX_SHOWN {
        shown.push("…");
    }
    Some(Obstacle::new(
        "DependencyCycle",
        format!(
            "these beads wait for each other: {}; nothing is started until one of the dependencies is removed",
            shown.join(" → ")
        ),
    ))
}

/// `gt-1 is`, `gt-1, gt-2 are`.
fn list_with_verb(ids: &[&str]) -> String {
    format!("{} {}", list(ids), if ids.len() == 1 { "is" } else { "are" })
}
