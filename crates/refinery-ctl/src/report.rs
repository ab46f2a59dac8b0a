//! From what is known to the statuses that people read. Pure.

use gastown_api::conditions::time;
use gastown_api::names::{condition, reason};
use gastown_api::{
    MergePhase, MergeRequestStatus, MergesSummary, Refinery, RefineryPhase, RefineryStatus,
};
use gastown_core::admission::shown_position;
use gastown_core::train::{
    BROKEN_FOR, Built, EndPhase, FAULTS_WITHOUT_DELAY, Facts, Judgement, RequestId, RunState,
    Source, Target, Verdict, queue, target_is_broken,
};
use gastown_types::CommitId;
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::conditions::{Wanted, condition, settle, unknown};
use crate::memory::{Entry, Train};

/// Where a request is and why, in words: phase, reason, message.
fn situation(
    facts: &Facts,
    id: &RequestId,
    e: &Entry,
    problem: Option<&(String, String)>,
) -> (MergePhase, String, String) {
    let queued = |reason: &str, message: String| (MergePhase::Queued, reason.to_owned(), message);
    let spec = &e.object.spec;
    if let Some(end) = &e.ledger.end {
        let phase = match end.phase {
            EndPhase::Landed => MergePhase::Landed,
            EndPhase::Rework => MergePhase::Rework,
            EndPhase::Rejected => MergePhase::Rejected,
            EndPhase::Superseded => MergePhase::Superseded,
        };
        return (phase, end.reason.clone(), end.message.clone());
    }
    let run =
        facts.runs.iter().find(|r| r.request == *id && !matches!(r.state, RunState::Broken(_)));
    if let Some(run) = run {
        return match &run.state {
            RunState::Running(m) if !m.is_empty() => {
                (MergePhase::Testing, "GatePending".into(), format!("Job {}: {m}", run.job))
            }
            _ if e.build.as_ref().is_some_and(|b| b.base == run.candidate) => {
                let message = format!(
                    "its gate failed; Job {} tests the target alone, to know whose fault it is",
                    run.job
                );
                (MergePhase::Testing, "TargetRunning".into(), message)
            }
            _ => (
                MergePhase::Testing,
                "GateRunning".into(),
                format!("Job {} tests {}", run.job, run.candidate),
            ),
        };
    }
    if spec.hold {
        return queued("Held", "spec.hold is set".into());
    }
    if let Some((reason, message)) = problem {
        return queued(reason, message.clone());
    }
    if let Target::Absent { .. } = facts.target {
        return queued(
            "TargetNotFound",
            format!("the remote has no branch {}", spec.target_branch),
        );
    }
    if let Source::Missing { .. } = e.source {
        let message =
            format!("branch {} on the remote does not hold commit {}", e.branch, e.commit);
        return queued("SourceCommitMissing", message);
    }
    if let (Target::At { tip, .. }, true) = (&facts.target, is_blocked(facts, id)) {
        return queued("TargetBroken", broken(&spec.target_branch, tip));
    }
    match (&e.note, e.not_before) {
        (Some((reason, message)), Some(t)) if t > facts.now => queued(reason, message.clone()),
        // Between the gate's word and the push; said as one step with the test, so that it does not
        // look queued again.
        _ if let Some(commit) = about_to_land(facts, id) => (
            MergePhase::Testing,
            "GatePassed".into(),
            format!("{commit} passed its gate and lands next"),
        ),
        _ => queued("Waiting", "it waits for its turn".into()),
    }
}

fn is_blocked(facts: &Facts, id: &RequestId) -> bool {
    facts.requests.iter().any(|r| r.id == *id && target_is_broken(facts, r))
}

pub(crate) fn broken(branch: &str, tip: &CommitId) -> String {
    let again = BROKEN_FOR / 60;
    format!(
        "the gate fails on {branch} itself at {}: nobody is blamed; it is tested again when {branch} moves, or in {again} min",
        tip.short()
    )
}

/// Whether the gate passes on the present tip; nothing when it has not run there.
pub(crate) fn target_health(facts: &Facts) -> Option<bool> {
    let (Target::At { tip, .. }, Some(gate)) = (&facts.target, &facts.gate) else { return None };
    if facts.requests.iter().any(|r| r.end.is_none() && target_is_broken(facts, r)) {
        return Some(false);
    }
    // What became the tip was tested before, and so was a tip that a request was red on.
    let verdicts = facts.requests.iter().flat_map(|r| r.verdicts.iter());
    verdicts
        .filter(|v| v.candidate == *tip && v.gate == *gate)
        .map(|v| v.result == Judgement::Pass)
        .max()
}

/// The request's candidate on the present tip, when its gate has passed it.
fn about_to_land<'a>(facts: &'a Facts, id: &RequestId) -> Option<&'a CommitId> {
    let Target::At { tip, .. } = &facts.target else { return None };
    let request = facts.requests.iter().find(|r| r.id == *id)?;
    let build = request.build.as_ref().filter(|b| b.base == *tip)?;
    let Built::Candidate(commit) = &build.built else { return None };
    let gate = facts.gate.as_ref()?;
    let passed =
        |v: &Verdict| v.candidate == *commit && v.gate == *gate && v.result == Judgement::Pass;
    request.verdicts.iter().any(passed).then_some(commit)
}

/// A request's status.
pub(crate) fn request_status(
    facts: &Facts,
    train: &Train,
    id: &RequestId,
    e: &Entry,
) -> MergeRequestStatus {
    let (phase, reason, message) = situation(facts, id, e, train.problem.as_ref());
    let end = e.ledger.end.as_ref();
    let shown =
        e.object.status.as_ref().and_then(|s| s.position).and_then(|p| usize::try_from(p).ok());
    let actual =
        queue(facts).iter().position(|r| r.id == *id).map(|p| shown_position(shown, p + 1));
    let position = actual.and_then(|p| i32::try_from(p).ok());
    let under_way = phase == MergePhase::Testing;
    let wanted = [
        condition(
            condition::READY,
            phase == MergePhase::Landed,
            &reason,
            &message,
            e.object.metadata.generation,
        ),
        condition(
            condition::PROGRESSING,
            under_way,
            &reason,
            &message,
            e.object.metadata.generation,
        ),
    ];
    let present = e.object.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let queued = e.history.queued_at.clone().or_else(|| e.object.creation_timestamp());
    MergeRequestStatus {
        phase: Some(phase),
        reason: Some(reason),
        position,
        tested_commit: end.and_then(|end| end.tested.as_ref()).map(ToString::to_string),
        landed_commit: end.and_then(|end| end.landed.as_ref()).map(ToString::to_string),
        queued_at: queued,
        started_testing_at: e.history.started_testing_at.clone(),
        landed_at: end.filter(|end| end.phase == EndPhase::Landed).map(|end| time(end.at)),
        attempts: e.history.attempts.clone(),
        conditions: settle(present, &wanted, facts.now),
    }
}

/// The status of a request that nobody works on, and why not.
pub(crate) fn waiting_status(
    present: Option<&MergeRequestStatus>,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> MergeRequestStatus {
    let mut status = present.cloned().unwrap_or_default();
    let wanted = [
        condition(condition::READY, false, reason, message, generation),
        condition(condition::PROGRESSING, false, reason, message, generation),
    ];
    status.conditions = settle(&status.conditions, &wanted, now);
    status.phase = Some(MergePhase::Queued);
    status.reason = Some(reason.to_owned());
    status.position = None;
    status
}

/// Ended requests by what became of them; never less than what was counted before, since old ones
/// are deleted.
fn summary(facts: &Facts, before: Option<MergesSummary>, pending: i32) -> MergesSummary {
    let count = |wanted: &[EndPhase]| {
        let n = facts
            .requests
            .iter()
            .filter(|r| r.end.as_ref().is_some_and(|e| wanted.contains(&e.phase)))
            .count();
        i32::try_from(n).unwrap_or(i32::MAX)
    };
    let before = before.unwrap_or_default();
    let succeeded = count(&[EndPhase::Landed]).max(before.succeeded);
    let failed = count(&[EndPhase::Rework, EndPhase::Rejected]).max(before.failed);
    MergesSummary { total: succeeded.saturating_add(failed), succeeded, failed, pending }
}

/// A serving Refinery's status.
pub(crate) fn refinery_status(
    facts: &Facts,
    train: &Train,
    refinery: &Refinery,
    present: Option<&RefineryStatus>,
) -> RefineryStatus {
    let (generation, target) = (refinery.metadata.generation, refinery.spec.target_branch.as_str());
    let waiting = queue(facts);
    let current = waiting.iter().find(|r| facts.runs.iter().any(|run| run.request == r.id));
    let current = current.and_then(|r| train.entries.get(&r.id));
    let author = current.map(|e| {
        e.object.spec.polecat_ref.as_ref().map_or_else(|| e.object.name_any(), |p| p.name.clone())
    });
    let working = current.is_some();
    let last = facts
        .requests
        .iter()
        .filter_map(|r| r.end.as_ref())
        .filter(|e| e.phase == EndPhase::Landed)
        .max_by_key(|e| e.at);
    let tip = match &facts.target {
        Target::At { tip, .. } => Some(tip.to_string()),
        Target::Unknown | Target::Absent { .. } => present.and_then(|p| p.target_commit.clone()),
    };
    let absent = matches!(facts.target, Target::Absent { .. });
    let pending = i32::try_from(waiting.len()).unwrap_or(i32::MAX);
    let ready = match &train.problem {
        Some((reason, message)) => condition(condition::READY, false, reason, message, generation),
        None if absent => condition(
            condition::READY,
            false,
            "TargetNotFound",
            "the remote has no such target branch",
            generation,
        ),
        None => condition(condition::READY, true, reason::IDLE, "it takes requests", generation),
    };
    let processing = match &author {
        Some(name) => condition(
            condition::PROCESSING,
            true,
            reason::PROCESSING,
            &format!("the work of {name} is tested"),
            generation,
        ),
        None => {
            condition(condition::PROCESSING, false, reason::IDLE, "nothing is tested", generation)
        }
    };
    let phase = match (&train.problem, absent, working) {
        (Some(_), ..) | (_, true, _) => RefineryPhase::Error,
        (_, _, true) => RefineryPhase::Processing,
        _ => RefineryPhase::Idle,
    };
    let before = present.map(|p| p.conditions.as_slice()).unwrap_or_default();
    RefineryStatus {
        phase: Some(phase),
        queue_length: pending,
        current_merge: author,
        last_merge_time: last
            .map(|e| time(e.at))
            .or_else(|| present.and_then(|p| p.last_merge_time.clone())),
        merges_summary: Some(summary(facts, present.and_then(|p| p.merges_summary), pending)),
        target_commit: tip,
        last_landed_commit: last
            .and_then(|e| e.landed.as_ref().map(ToString::to_string))
            .or_else(|| present.and_then(|p| p.last_landed_commit.clone())),
        conditions: settle(
            before,
            &[
                ready,
                processing,
                gated(facts, train, generation),
                healthy(facts, target, generation),
            ],
            facts.now,
        ),
    }
}

fn healthy(facts: &Facts, target: &str, generation: Option<i64>) -> Wanted {
    let kind = condition::TARGET_HEALTHY;
    match (target_health(facts), &facts.target) {
        (Some(true), _) => {
            condition(kind, true, "GatePassed", &format!("the gate passed on {target}"), generation)
        }
        (Some(false), Target::At { tip, .. }) => {
            condition(kind, false, "TargetBroken", &broken(target, tip), generation)
        }
        _ => unknown(
            kind,
            "NotTested",
            &format!("the gate has not run on {target} as it is"),
            generation,
        ),
    }
}

/// What keeps gates from running at all: so many runs in a row that infrastructure broke are no
/// accident.
pub(crate) fn gate_problem(train: &Train) -> Option<String> {
    let broken = |e: &&Entry| e.ledger.end.is_none() && e.ledger.faults > FAULTS_WITHOUT_DELAY;
    let e = train.entries.values().filter(broken).min_by_key(|e| e.object.name_any())?;
    let said = e.note.as_ref().map(|(_, m)| m.as_str()).unwrap_or_default();
    Some(format!("{} runs of the gate on {} broke: {said}", e.ledger.faults, e.object.name_any()))
}

fn gated(facts: &Facts, train: &Train, generation: Option<i64>) -> Wanted {
    if facts.gate.is_none() {
        return condition(
            condition::GATED,
            false,
            reason::NO_GATES,
            "spec.testCommand is empty: everything lands untested",
            generation,
        );
    }
    match gate_problem(train) {
        Some(message) => unknown(condition::GATED, "GateBroken", &message, generation),
        None => condition(
            condition::GATED,
            true,
            reason::GATES_DEFINED,
            "spec.testCommand is the gate",
            generation,
        ),
    }
}

/// The status of a Refinery that does not serve.
pub(crate) fn standing_status(
    present: Option<&RefineryStatus>,
    pending: usize,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> RefineryStatus {
    let mut status = present.cloned().unwrap_or_default();
    let wanted = [
        condition(condition::READY, false, reason, message, generation),
        condition(condition::PROCESSING, false, reason, message, generation),
    ];
    status.conditions = settle(&status.conditions, &wanted, now);
    status.phase = Some(RefineryPhase::Error);
    status.queue_length = i32::try_from(pending).unwrap_or(i32::MAX);
    status.current_merge = None;
    status
}
