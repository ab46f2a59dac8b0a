//! From the wanted status to the object's: the same status for the same decision.

use std::time::Duration;

use gastown_api::conditions::time;
use gastown_api::names::{condition, manager, reason};
use gastown_api::{DesiredState, Outcome, Polecat, PolecatStatus, SavedWork, Usage, conditions};
use gastown_core::polecat::{self, End, Snapshot, StatusDraft};
use gastown_core::report;
use gastown_runtime::apply::{Applied, Details, StatusOwner};
use gastown_runtime::events::Note;
use jiff::Timestamp;
use kube::{Api, Resource as _, ResourceExt as _};

use crate::context::Context;
use crate::error::Error;

/// The conditions that this controller owns.
const CONDITIONS: [&str; 8] = [
    condition::READY,
    condition::WORKING,
    condition::PROGRESSING,
    condition::AVAILABLE,
    condition::DEGRADED,
    condition::CLAIMED,
    condition::ADMITTED,
    condition::SUBMITTED,
];

/// The part of a Polecat's status that this controller owns.
const OWNER: StatusOwner = StatusOwner {
    manager: manager::POLECAT,
    fields: &[
        "phase",
        "assignedBead",
        "branch",
        "commit",
        "baseCommit",
        "podName",
        "podActive",
        "lastActivity",
        "agent",
        "agentImage",
        "agentModel",
        "outcome",
        "saved",
        "attempts",
        "mergeRequest",
        "usage",
        "startedAt",
        "finishedAt",
        "traceID",
    ],
    conditions: &CONDITIONS,
};

/// What may wait while a pod starts: everything, as long as nothing keeps it from running.
const STARTING_DETAILS: Details = OWNER.everything();

/// The status. `agent_image` is the image of agents whose Polecat names none. Pure.
pub(crate) fn status(
    polecat: &Polecat,
    s: &Snapshot,
    draft: &StatusDraft,
    agent_image: &str,
    now: Timestamp,
) -> PolecatStatus {
    let mut present = polecat.status.as_ref().map(|st| st.conditions.clone()).unwrap_or_default();
    present.retain(|c| draft.conditions.iter().any(|wanted| wanted.type_ == c.type_));
    conditions::merge(&mut present, draft.conditions.clone(), polecat.meta().generation, now);
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let settings = s.spec.as_ref().ok().map(|spec| &spec.pod).filter(|_| draft.attempts > 0);
    PolecatStatus {
        phase: Some(draft.phase),
        // cleared when Idle is desired, as the Go operator does, and kept otherwise
        assigned_bead: polecat.spec.bead_id.clone().filter(|_| s.desired != DesiredState::Idle),
        branch: draft.branch.as_ref().map(ToString::to_string),
        commit: draft.commit.as_ref().map(ToString::to_string),
        base_commit: draft.base.as_ref().map(ToString::to_string),
        pod_name: draft.pod.as_ref().map(|(name, _)| name.clone()),
        pod_active: Some(draft.pod.as_ref().is_some_and(|(_, runs)| *runs)),
        last_activity: draft.activity.map(time),
        // witness-ctl writes it
        activity: None,
        agent: settings.map(|p| p.agent.as_str().to_owned()),
        agent_image: settings.map(|p| p.image.clone().unwrap_or_else(|| agent_image.to_owned())),
        agent_model: draft.model.clone().or_else(|| settings.and_then(|p| p.model.clone())),
        outcome: draft.outcome.as_ref().map(|last| Outcome {
            exit: exit(last.end).to_owned(),
            reason: last.reason.chars().take(64).collect(),
            message: last.message.clone(),
            finished_at: Timestamp::from_second(last.at).ok().map(time),
        }),
        saved: draft.saved.iter().map(saved).collect(),
        attempts: i32::try_from(draft.attempts).ok(),
        merge_request: draft.request.clone(),
        usage: (draft.usage != report::Usage::default()).then(|| Usage {
            turns: whole(draft.usage.turns),
            input_tokens: whole(draft.usage.input_tokens),
            output_tokens: whole(draft.usage.output_tokens),
            cache_read_tokens: whole(draft.usage.cache_read_tokens),
            cache_write_tokens: whole(draft.usage.cache_write_tokens),
            cost_usd: draft.usage.cost_usd,
        }),
        started_at: draft.started.map(time),
        finished_at: draft.finished.map(time),
        trace_id: trace_id(polecat, s, draft),
        conditions: present,
    }
}

/// The trace of the life: shown from the first change of the phase on, so that it costs no write.
fn trace_id(polecat: &Polecat, s: &Snapshot, draft: &StatusDraft) -> Option<String> {
    let present = polecat.status.as_ref();
    let is_shown = present.is_some_and(|status| status.trace_id.is_some());
    let changes = present.and_then(|status| status.phase) != Some(draft.phase);
    (is_shown || changes).then(|| polecat::life(s).trace().to_string())
}

fn saved(work: &polecat::SavedWork) -> SavedWork {
    SavedWork {
        r#ref: work.r#ref.clone(),
        commit: work.commit.to_string(),
        of: work.of.clone(),
        skipped: i32::try_from(work.skipped).unwrap_or(i32::MAX),
    }
}

fn exit(end: End) -> &'static str {
    match end {
        End::Done | End::DoneWithoutChanges => "Completed",
        End::Waits | End::Later => "Waiting",
        End::Drained => "Drained",
        End::Retries => "Failed",
        End::Stuck | End::Unknown => "Stuck",
    }
}

/// Applies the status where it differs, and publishes an Event when the reason of `Ready` changed,
/// and one when work was lost. Returns after which time to come back, when it is too early to write
/// that a pod starts.
pub(crate) async fn publish(
    ctx: &Context,
    polecat: &Polecat,
    status: &PolecatStatus,
    draft: &StatusDraft,
) -> Result<Option<Duration>, Error> {
    let namespace = polecat.namespace().unwrap_or_default();
    let api: Api<Polecat> = Api::namespaced(ctx.runtime.client.clone(), &namespace);
    let details = if starts(&draft.event) { &STARTING_DETAILS } else { &Details::NOTHING };
    match OWNER.apply_paced(&api, polecat, status, details, &ctx.pace).await {
        Ok(applied) => {
            if matches!(applied, Applied::Written(_)) {
                publish_events(ctx, polecat, draft);
            }
            Ok(applied.record(&ctx.shared.own_polecats))
        }
        // deleted meanwhile
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a pod starts, and nothing is known to keep it from running.
fn starts(event: &polecat::EventDraft) -> bool {
    event.reason == reason::POD_PENDING && !event.warning
}

fn publish_events(ctx: &Context, polecat: &Polecat, draft: &StatusDraft) {
    let before =
        |kind: &str| polecat.status.as_ref().and_then(|st| conditions::find(&st.conditions, kind));
    let event = &draft.event;
    // What keeps a pod from running is a Warning. That it runs is an Event where something had kept it
    // from that, or an earlier one had ended.
    let before_ready = before(condition::READY);
    let is_plain = draft.attempts <= 1 && before_ready.is_none_or(|c| c.status == "True");
    let is_routine = starts(event) || (event.reason == reason::POD_RUNNING && is_plain);
    if !is_routine && before_ready.is_none_or(|c| c.reason != event.reason) {
        let note = if event.warning { Note::warning } else { Note::normal };
        ctx.runtime
            .events
            .publish(polecat, note(condition::READY, event.reason.clone(), event.message.clone()));
    }
    let shown = |text: &str| {
        before(condition::DEGRADED)
            .is_some_and(|c| c.reason == reason::WORK_LOST && c.message == text)
    };
    if let Some(text) = draft.lost.as_ref().map(polecat::Lost::text).filter(|text| !shown(text)) {
        ctx.runtime
            .events
            .publish(polecat, Note::warning(reason::WORK_LOST, reason::WORK_LOST, text));
    }
}
