//! The status of a Refinery. Pure.

use gastown_api::conditions::{Draft, Status, time};
use gastown_api::names::{condition, reason};
use gastown_api::{MergePhase, MergesSummary, Refinery, RefineryPhase, RefineryStatus};
use gastown_core::train::{
    BROKEN_RUNS_RETRIED_SOON, End, GateResult, Request, Snapshot, Target, queue, target_is_broken,
};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::conditions::only;
use super::request::broken_target;
use crate::metrics::Queue;
use crate::train::{Entry, Train};

/// Whether a Refinery that shows no request under test is to show one.
pub(crate) fn starts_processing(refinery: &Refinery, status: &RefineryStatus) -> bool {
    let shown = refinery.status.as_ref().and_then(|status| status.phase);
    status.phase == Some(RefineryPhase::Processing) && shown != status.phase
}

/// The status of an active Refinery; `refinery` is its newest known version.
pub(crate) fn status(snapshot: &Snapshot, train: &Train, refinery: &Refinery) -> RefineryStatus {
    let present = refinery.status.as_ref();
    let target = refinery.spec.target_branch.as_str();
    let waiting = queue(snapshot);
    let is_tested = |r: &&&Request| snapshot.runs.iter().any(|run| run.request == r.id);
    let current = waiting.iter().find(is_tested).and_then(|r| train.entries.get(&r.id));
    let author = current.map(Entry::author_name);
    let last = ends(snapshot).filter(|e| e.phase == MergePhase::Landed).max_by_key(|e| e.at);
    let target_commit = match &snapshot.target {
        Target::At { tip, .. } => Some(tip.to_string()),
        Target::Unknown | Target::Absent { .. } => present.and_then(|p| p.target_commit.clone()),
    };
    let pending = i32::try_from(waiting.len()).unwrap_or(i32::MAX);
    let cannot_work = train.problem.is_some() || train.gates_held.is_some();
    let phase = if cannot_work || matches!(snapshot.target, Target::Absent { .. }) {
        RefineryPhase::Error
    } else if author.is_some() {
        RefineryPhase::Processing
    } else {
        RefineryPhase::Idle
    };
    let drafts = vec![
        ready(snapshot, train, target),
        processing(author.as_deref()),
        gated(snapshot, train),
        target_healthy(snapshot, target),
    ];
    let conditions = present.map(|p| p.conditions.as_slice()).unwrap_or_default();
    RefineryStatus {
        phase: Some(phase),
        queue_length: pending,
        current_merge: author,
        last_merge_time: last
            .map(|e| time(e.at))
            .or_else(|| present.and_then(|p| p.last_merge_time.clone())),
        merges_summary: Some(summary(snapshot, present.and_then(|p| p.merges_summary), pending)),
        target_commit,
        last_landed_commit: last
            .and_then(|e| e.landed.as_ref().map(ToString::to_string))
            .or_else(|| present.and_then(|p| p.last_landed_commit.clone())),
        conditions: only(conditions, drafts, refinery.metadata.generation, snapshot.now),
    }
}

/// What the metrics show of a queue of this length.
pub(crate) fn queue_metrics(length: i32, train: &Train, s: &Snapshot) -> Queue {
    let open = train.entries.values().filter(|e| e.is_open());
    let oldest = open.filter_map(|e| Some(e.object().creation_timestamp()?.0)).min();
    let target = (target_health(s) == Some(false)).then_some(reason::TARGET_BROKEN);
    let gate = gate_problem(train).map(|_| reason::GATE_BROKEN);
    let held = train.gates_held.as_ref().map(|held| held.why.reason);
    let remote = train.problem.as_ref().map(|why| why.reason);
    let all = target.into_iter().chain(gate).chain(held).chain(remote);
    let mut blocked: Vec<_> = all.map(|why| reason::documented(why, "").0).collect();
    blocked.sort();
    blocked.dedup();
    Queue { length: usize::try_from(length).unwrap_or_default(), oldest, blocked }
}

/// The status of an inactive Refinery.
pub(crate) fn inactive_status(
    present: Option<&RefineryStatus>,
    pending: usize,
    reason: &'static str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> RefineryStatus {
    let mut status = present.cloned().unwrap_or_default();
    let drafts = [condition::READY, condition::PROCESSING]
        .map(|type_| Draft::new(type_, false, reason, message));
    status.conditions = only(&status.conditions, drafts.into(), generation, now);
    status.phase = Some(RefineryPhase::Error);
    status.queue_length = i32::try_from(pending).unwrap_or(i32::MAX);
    status.current_merge = None;
    status
}

fn ends(snapshot: &Snapshot) -> impl Iterator<Item = &End> {
    snapshot.requests.iter().filter_map(|r| r.end.as_ref())
}

/// Ended requests by their outcome; never less than the counts before, since old requests are
/// deleted.
fn summary(snapshot: &Snapshot, before: Option<MergesSummary>, pending: i32) -> MergesSummary {
    let count = |phases: &[MergePhase]| {
        let n = ends(snapshot).filter(|e| phases.contains(&e.phase)).count();
        i32::try_from(n).unwrap_or(i32::MAX)
    };
    let before = before.unwrap_or_default();
    let succeeded = count(&[MergePhase::Landed]).max(before.succeeded);
    let failed = count(&[MergePhase::Rework, MergePhase::Rejected]).max(before.failed);
    MergesSummary { total: succeeded.saturating_add(failed), succeeded, failed, pending }
}

fn ready(snapshot: &Snapshot, train: &Train, target: &str) -> Draft {
    let held = train.gates_held.as_ref().map(|held| &held.why);
    match (train.problem.as_ref().or(held), &snapshot.target) {
        (Some(why), _) => Draft::new(condition::READY, false, why.reason, why.message.clone()),
        (None, Target::Absent { .. }) => {
            let message = format!("the remote has no branch {target}");
            Draft::new(condition::READY, false, "TargetNotFound", message)
        }
        (None, _) => {
            Draft::new(condition::READY, true, reason::IDLE, "the Refinery accepts requests")
        }
    }
}

fn processing(author: Option<&str>) -> Draft {
    match author {
        Some(name) => {
            let message = format!("the work of {name} is being tested");
            Draft::new(condition::PROCESSING, true, reason::PROCESSING, message)
        }
        None => {
            Draft::new(condition::PROCESSING, false, reason::IDLE, "no request is being tested")
        }
    }
}

fn gated(snapshot: &Snapshot, train: &Train) -> Draft {
    if snapshot.gate.is_none() {
        let message = "spec.testCommand is empty: everything lands untested";
        return Draft::new(condition::GATED, false, reason::NO_GATES, message);
    }
    match gate_problem(train) {
        Some(message) => Draft::new(condition::GATED, Status::Unknown, "GateBroken", message),
        None => Draft::new(
            condition::GATED,
            true,
            reason::GATES_DEFINED,
            "spec.testCommand is the gate",
        ),
    }
}

/// Why gates do not run at all, if a request had this many broken runs in a row.
pub(crate) fn gate_problem(train: &Train) -> Option<String> {
    let is_stuck =
        |e: &&Entry| e.is_open() && e.cached.history.broken_runs > BROKEN_RUNS_RETRIED_SOON;
    let e = train.entries.values().filter(is_stuck).min_by_key(|e| e.object().name_any())?;
    let (runs, name) = (e.cached.history.broken_runs, e.object().name_any());
    let last = e.scratch.why.as_ref().map(|why| why.message.as_str()).unwrap_or_default();
    Some(format!("infrastructure broke {runs} gate runs of MergeRequest {name} in a row: {last}"))
}

fn target_healthy(snapshot: &Snapshot, target: &str) -> Draft {
    let type_ = condition::TARGET_HEALTHY;
    match (target_health(snapshot), &snapshot.target) {
        (Some(true), _) => {
            Draft::new(type_, true, "GatePassed", format!("the gate passed on {target}"))
        }
        (Some(false), Target::At { tip, .. }) => {
            Draft::new(type_, false, "TargetBroken", broken_target(target, tip))
        }
        _ => {
            let message = format!("the gate has not run on the present commit of {target}");
            Draft::new(type_, Status::Unknown, "NotTested", message)
        }
    }
}

/// Whether the gate passes on the present tip; `None` when it has not run there.
pub(crate) fn target_health(snapshot: &Snapshot) -> Option<bool> {
    let (Target::At { tip, .. }, Some(gate)) = (&snapshot.target, &snapshot.gate) else {
        return None;
    };
    if snapshot.requests.iter().any(|r| r.end.is_none() && target_is_broken(snapshot, r)) {
        return Some(false);
    }
    // The commit that became the tip was tested before, and so was a tip on which a request failed.
    let verdicts = snapshot.requests.iter().flat_map(|r| r.history.verdicts.iter());
    verdicts
        .filter(|v| v.candidate == *tip && v.gate == *gate)
        .map(|v| v.result == GateResult::Pass)
        .max()
}
