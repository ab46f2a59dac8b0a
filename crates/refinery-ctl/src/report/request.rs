//! The status of a request. Pure.

use std::collections::HashMap;

use gastown_api::conditions::{Draft, time};
use gastown_api::names::condition;
use gastown_api::{MergePhase, MergeRequest, MergeRequestStatus};
use gastown_core::admission::shown_position;
use gastown_core::train::{
    BROKEN_TARGET_SECONDS, Built, GateResult, Request, RequestId, Run, RunState, Snapshot, Source,
    Target, Verdict, queue, target_is_broken,
};
use gastown_types::CommitId;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::conditions::only;
use crate::trace;
use crate::train::{Entry, Train};

/// Nothing else keeps the request than those before it.
const WAITING: &str = "Waiting";

/// Where a request is, and why.
struct State {
    phase: MergePhase,
    reason: String,
    message: String,
}

impl State {
    fn queued(reason: &str, message: impl Into<String>) -> Self {
        Self::new(MergePhase::Queued, reason, message)
    }

    fn testing(reason: &str, message: impl Into<String>) -> Self {
        Self::new(MergePhase::Testing, reason, message)
    }

    fn new(phase: MergePhase, reason: &str, message: impl Into<String>) -> Self {
        Self { phase, reason: reason.to_owned(), message: message.into() }
    }
}

/// The places of the waiting requests in the queue, from 1.
pub(crate) struct Positions(HashMap<RequestId, usize>);

impl Positions {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let waiting = queue(snapshot);
        Self(waiting.iter().enumerate().map(|(at, r)| (r.id.clone(), at + 1)).collect())
    }
}

/// The status of a request that an active Refinery takes care of.
pub(crate) fn status(
    snapshot: &Snapshot,
    train: &Train,
    id: &RequestId,
    e: &Entry,
    positions: &Positions,
) -> MergeRequestStatus {
    let State { phase, reason, message } = state(snapshot, train, id, e);
    let (object, history) = (e.object(), &e.scratch.history);
    let end = e.durable.record.end.as_ref();
    let present = object.status.as_ref();
    let shown = present.and_then(|s| s.position).and_then(|p| usize::try_from(p).ok());
    let position = positions.0.get(id).map(|actual| shown_position(shown, *actual));
    let is_testing = phase == MergePhase::Testing;
    let has_landed = phase == MergePhase::Landed;
    let drafts = vec![
        Draft::new(condition::READY, has_landed, reason.clone(), message.clone()),
        Draft::new(condition::PROGRESSING, is_testing, reason.clone(), message),
    ];
    // From the first change of the phase on, so that they cost no write.
    let is_shown = present.is_some_and(|s| s.trace_id.is_some());
    let is_traced = is_shown || present.and_then(|s| s.phase) != Some(phase);
    let conditions = present.map(|s| s.conditions.as_slice()).unwrap_or_default();
    MergeRequestStatus {
        phase: Some(phase),
        reason: Some(reason),
        position: position.and_then(|p| i32::try_from(p).ok()),
        tested_commit: end.and_then(|end| end.tested.as_ref()).map(ToString::to_string),
        landed_commit: end.and_then(|end| end.landed.as_ref()).map(ToString::to_string),
        queued_at: history.queued_at.clone().or_else(|| object.creation_timestamp()),
        started_testing_at: history.started_testing_at.clone(),
        finished_at: end.filter(|_| is_traced).map(|end| time(end.at)),
        trace_id: is_traced.then(|| trace::place(object).trace().to_string()),
        landed_at: end.filter(|end| end.phase == MergePhase::Landed).map(|end| time(end.at)),
        attempts: history.attempts.clone(),
        conditions: only(conditions, drafts, object.metadata.generation, snapshot.now),
    }
}

/// Whether the status is the request's first one and shows no more than that it waits for its turn.
pub(crate) fn waits_for_its_turn(request: &MergeRequest, status: &MergeRequestStatus) -> bool {
    request.status.is_none()
        && status.phase == Some(MergePhase::Queued)
        && status.reason.as_deref() == Some(WAITING)
}

/// The status of a request that no active Refinery takes care of, for this reason.
pub(crate) fn waiting_status(
    present: Option<&MergeRequestStatus>,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> MergeRequestStatus {
    let mut status = present.cloned().unwrap_or_default();
    let drafts = [condition::READY, condition::PROGRESSING]
        .map(|type_| Draft::new(type_, false, reason.to_owned(), message));
    status.conditions = only(&status.conditions, drafts.into(), generation, now);
    status.phase = Some(MergePhase::Queued);
    status.reason = Some(reason.to_owned());
    status.position = None;
    status
}

fn state(snapshot: &Snapshot, train: &Train, id: &RequestId, e: &Entry) -> State {
    if let Some(end) = &e.durable.record.end {
        return State::new(end.phase, &end.reason, end.message.clone());
    }
    let is_running = |r: &&Run| r.request == *id && !matches!(r.state, RunState::Broken(_));
    if let Some(run) = snapshot.runs.iter().find(is_running) {
        return under_test(e, run);
    }
    let spec = &e.object().spec;
    if spec.hold {
        return State::queued("Held", "spec.hold is true");
    }
    if let Some(why) = &train.problem {
        return State::queued(why.reason, why.message.clone());
    }
    if let Target::Absent { .. } = snapshot.target {
        let message = format!("the remote has no branch {}", spec.target_branch);
        return State::queued("TargetNotFound", message);
    }
    if let Source::Missing { .. } = e.cached.source {
        let (branch, commit) = (&e.durable.branch, &e.durable.commit);
        let message = format!("branch {branch} on the remote does not have commit {commit}");
        return State::queued("SourceCommitMissing", message);
    }
    let request = snapshot.requests.iter().find(|r| r.id == *id);
    if let (Target::At { tip, .. }, Some(request)) = (&snapshot.target, request)
        && target_is_broken(snapshot, request)
    {
        return State::queued("TargetBroken", broken_target(&spec.target_branch, tip));
    }
    let until = e.scratch.not_before.max(e.scratch.failed_until);
    if let (Some(why), Some(until)) = (&e.scratch.why, until)
        && until > snapshot.now
    {
        return State::queued(why.reason, why.message.clone());
    }
    // Between the verdict and the push; shown as part of the test, so that the request does not look
    // queued again.
    if let Some(commit) = request.and_then(|request| about_to_land(snapshot, request)) {
        let message = format!("{commit} passed its gate and lands next");
        return State::testing("GatePassed", message);
    }
    if let Some(held) = &train.gates_held {
        return State::queued(held.why.reason, held.why.message.clone());
    }
    State::queued(WAITING, "it waits for its turn in the queue")
}

fn under_test(e: &Entry, run: &Run) -> State {
    let job = &run.name;
    match &run.state {
        RunState::Running(message) if !message.is_empty() => {
            State::testing("GatePending", format!("Job {job}: {message}"))
        }
        _ if e.cached.build.as_ref().is_some_and(|b| b.base == run.candidate) => {
            let message = format!(
                "its gate failed; Job {job} tests the target alone to find out which of the two is broken"
            );
            State::testing("TargetRunning", message)
        }
        _ => State::testing("GateRunning", format!("Job {job} tests {}", run.candidate)),
    }
}

/// The request's candidate on the present tip, if its gate has passed it.
fn about_to_land<'a>(snapshot: &Snapshot, request: &'a Request) -> Option<&'a CommitId> {
    let Target::At { tip, .. } = &snapshot.target else { return None };
    let build = request.build.as_ref().filter(|b| b.base == *tip)?;
    let Built::Candidate(commit) = &build.built else { return None };
    let gate = snapshot.gate.as_ref()?;
    let is_pass =
        |v: &Verdict| v.candidate == *commit && v.gate == *gate && v.result == GateResult::Pass;
    request.history.verdicts.iter().any(is_pass).then_some(commit)
}

/// The message for a target on which the gate fails.
pub(crate) fn broken_target(branch: &str, tip: &CommitId) -> String {
    format!(
        "the gate fails on {branch} itself at {}, so no request is blamed; it runs again when {branch} moves, or in {} min",
        tip.short(),
        BROKEN_TARGET_SECONDS / 60
    )
}
