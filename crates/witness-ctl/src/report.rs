//! From snapshots and what happened to statuses (pure), and publishing these.

use std::time::Duration;

use gastown_api::conditions::{self, Draft, time};
use gastown_api::names::{condition, manager, reason};
use gastown_api::{
    Delivery, DeliveryState, Escalation, EscalationPhase, EscalationStatus, Polecat, PolecatStatus,
    PolecatsSummary, Route, Witness, WitnessPhase, WitnessStatus,
};
use gastown_core::escalation::{DeliveryRecord, EscalationState, Plan};
use gastown_core::witness::{Assessment, Summary};
use gastown_runtime::apply::{Applied, Details, StatusOwner};
use gastown_runtime::events::Note;
use gastown_types::text;
use jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt as _};

use crate::context::Context;
use crate::error::{Error, object_name};

const WITNESS: StatusOwner = StatusOwner {
    manager: manager::WITNESS,
    fields: &["phase", "lastCheckTime", "polecatsSummary"],
    conditions: &[condition::READY, condition::DEGRADED],
};

/// What changes with each polecat that starts or ends.
const WITNESS_DETAILS: Details = Details {
    fields: &["phase", "lastCheckTime", "polecatsSummary"],
    conditions: &[],
    reasons: &[],
};

const POLECAT: StatusOwner = StatusOwner {
    manager: manager::WITNESS,
    fields: &["activity"],
    conditions: &[condition::HEALTHY, condition::SAVED],
};

/// What changes while an agent makes progress. The last status of an attempt does not wait, nor does
/// what polecat-ctl acts on: that Healthy is False, and why.
const POLECAT_DETAILS: Details =
    Details { fields: &["activity"], conditions: &[], reasons: &[condition::HEALTHY] };

/// What may wait of an attempt's first status while the agent makes progress: all of it. A short
/// attempt is over before.
const FIRST_DETAILS: Details =
    Details { fields: &["activity"], conditions: &[condition::HEALTHY], reasons: &[] };

const ESCALATION: StatusOwner = StatusOwner {
    manager: manager::WITNESS,
    fields: &[
        "phase",
        "severity",
        "raises",
        "lastRaisedAt",
        "severityRaisedAt",
        "closedReason",
        "deliveries",
    ],
    conditions: &[condition::DELIVERED],
};

/// `lastCheckTime` is written this often when nothing else changes.
const CHECKED_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// The longest closing reason that the schema takes, in characters.
const MAX_REASON: usize = 4096;
/// How many deliveries a status shows.
const MAX_DELIVERIES: usize = 16;

fn int(count: impl TryInto<i32>) -> i32 {
    count.try_into().unwrap_or(i32::MAX)
}

/// The status of a rig's active Witness.
pub(crate) fn witness(object: &Witness, summary: &Summary, now: Timestamp) -> WitnessStatus {
    let before = object.status.clone().unwrap_or_default();
    let issues = summary.issues();
    let degraded = issues.is_some();
    let (ready_reason, degraded_reason) = if degraded {
        (reason::ISSUES_DETECTED, reason::ISSUES_DETECTED)
    } else {
        (reason::ALL_HEALTHY, reason::HEALTHY)
    };
    let message = issues.unwrap_or_else(|| "every polecat at work is making progress".to_owned());
    let drafts = [
        Draft::new(condition::READY, !degraded, ready_reason, message.clone()),
        Draft::new(condition::DEGRADED, degraded, degraded_reason, message),
    ];
    let mut all = before.conditions.clone();
    conditions::merge(&mut all, drafts, object.metadata.generation, now);
    let status = WitnessStatus {
        phase: Some(match (degraded, summary.running) {
            (true, _) => WitnessPhase::Degraded,
            (false, 0) => WitnessPhase::Pending,
            (false, _) => WitnessPhase::Active,
        }),
        last_check_time: before.last_check_time.clone(),
        polecats_summary: Some(PolecatsSummary {
            total: int(summary.total),
            running: int(summary.running),
            succeeded: int(summary.succeeded),
            failed: int(summary.failed.len()),
            stuck: int(summary.stuck.len()),
        }),
        conditions: all,
    };
    checked(&before, status, now)
}

/// The status of a Witness whose rig has an older one, `active`.
pub(crate) fn duplicate(object: &Witness, active: &Witness, now: Timestamp) -> WitnessStatus {
    let mut all = object.status.clone().unwrap_or_default().conditions;
    conditions::remove(&mut all, condition::DEGRADED);
    let message = format!(
        "rig {} is watched by the older Witness {}/{}",
        object.spec.rig_ref,
        active.namespace().unwrap_or_default(),
        active.name_any()
    );
    let draft = Draft::new(condition::READY, false, reason::DUPLICATE, message);
    conditions::merge(&mut all, [draft], object.metadata.generation, now);
    WitnessStatus { conditions: all, ..WitnessStatus::default() }
}

/// Sets `lastCheckTime` when something else has changed, or it is [`CHECKED_EVERY`] old.
fn checked(before: &WitnessStatus, mut status: WitnessStatus, now: Timestamp) -> WitnessStatus {
    let old =
        before.last_check_time.as_ref().is_none_or(|t| now.duration_since(t.0) >= CHECKED_EVERY);
    if old || *before != status {
        status.last_check_time = Some(time(now));
    }
    status
}

/// Our part of a Polecat's status: activity and health while an agent is at work, and whether its
/// work is saved where that is to be shown.
pub(crate) fn polecat(
    object: &Polecat,
    assessment: Option<&Assessment>,
    saved: Option<Draft>,
    now: Timestamp,
) -> PolecatStatus {
    let mut all = object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    all.retain(|c| c.type_ != condition::HEALTHY || assessment.is_some());
    all.retain(|c| c.type_ != condition::SAVED || saved.is_some());
    let healthy =
        assessment.map(|a| Draft::new(condition::HEALTHY, a.healthy, a.reason, a.message.clone()));
    let drafts = healthy.into_iter().chain(saved);
    conditions::merge(&mut all, drafts, object.metadata.generation, now);
    PolecatStatus {
        activity: assessment.map(|a| a.activity),
        conditions: all,
        ..PolecatStatus::default()
    }
}

/// The status of an Escalation: all of it follows from its spec and its state.
pub(crate) fn escalation(
    object: &Escalation,
    plan: &Plan,
    state: &EscalationState,
    routes: &[Route],
    now: Timestamp,
) -> EscalationStatus {
    let mut all = object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    conditions::merge(&mut all, [delivered(plan, state, routes)], object.metadata.generation, now);
    let settled = state.settled.as_ref().map(|s| s.why.clone());
    let closed = object.spec.closed.as_ref().map(|c| format!("{}: {}", c.by, c.reason)).or(settled);
    EscalationStatus {
        phase: Some(plan.phase),
        severity: Some(plan.severity),
        raises: Some(int(state.raises)),
        last_raised_at: state.raised.map(time),
        severity_raised_at: state.stale.last().copied().map(time),
        closed_reason: closed
            .filter(|_| plan.phase == EscalationPhase::Closed)
            .map(|reason| text::block(&reason, MAX_REASON)),
        deliveries: deliveries(plan, state),
        conditions: all,
    }
}

/// The latest deliveries, by route. Routes that the Witness does not have any more may have left
/// theirs.
fn deliveries(plan: &Plan, state: &EscalationState) -> Vec<Delivery> {
    let mut latest: Vec<_> = state.deliveries.iter().collect();
    latest.sort_by_key(|d| std::cmp::Reverse(d.last));
    latest.truncate(MAX_DELIVERIES);
    latest.sort_by(|a, b| a.route.cmp(&b.route));
    let delivery = |d: &DeliveryRecord| Delivery {
        route: d.route.clone(),
        severity: d.severity,
        state: d.state,
        attempts: int(d.attempts),
        last_attempt_at: Some(time(d.last)),
        next_attempt_at: d.next.filter(|_| plan.phase == EscalationPhase::Open).map(time),
        message: d.why.clone(),
    };
    latest.into_iter().map(delivery).collect()
}

fn delivered(plan: &Plan, state: &EscalationState, routes: &[Route]) -> Draft {
    let draft = |status: bool, reason: &'static str, message: String| {
        Draft::new(condition::DELIVERED, status, reason, message)
    };
    let due: Vec<_> = routes.iter().filter(|r| r.min_severity <= plan.severity).collect();
    let delivery = |route: &Route| {
        let mut of_route = state.deliveries.iter();
        of_route.find(|d| d.route == route.name() && d.severity >= plan.severity).map(|d| d.state)
    };
    let names = |matches: &dyn Fn(Option<DeliveryState>) -> bool| {
        let names: Vec<_> = due.iter().filter(|r| matches(delivery(r))).map(|r| r.name()).collect();
        names.join(", ")
    };
    let failed = names(&|s| s == Some(DeliveryState::Failed));
    let pending = names(&|s| !matches!(s, Some(DeliveryState::Failed | DeliveryState::Sent)));
    match plan.phase {
        _ if due.is_empty() => draft(
            false,
            "NoRoute",
            format!("no route of the rig's Witness carries severity {}", plan.severity.as_str()),
        ),
        _ if !failed.is_empty() => {
            draft(false, "DeliveryFailed", format!("every attempt failed: {failed}"))
        }
        EscalationPhase::Open if !pending.is_empty() => {
            draft(false, "DeliveryPending", format!("not sent yet: {pending}"))
        }
        _ if !pending.is_empty() => {
            draft(false, "NotNeeded", format!("not sent any more: {pending}"))
        }
        _ => draft(true, "Told", names(&|_| true)),
    }
}

/// Applies the status of an Escalation.
pub(crate) async fn publish_escalation(
    object: &Escalation,
    status: &EscalationStatus,
    ctx: &Context,
) -> Result<(), Error> {
    let namespace = object.namespace().unwrap_or_default();
    let api = Api::<Escalation>::namespaced(ctx.runtime.client.clone(), &namespace);
    let written = ESCALATION.applied(&api, object, status).await;
    if let Some(written) = written.map_err(|e| Error::Report(object_name(object), e))? {
        ctx.own_escalations.record(written);
    }
    Ok(())
}

/// Applies our part of a Polecat's status. Of an agent that makes progress only details change.
pub(crate) async fn publish_polecat(
    object: &Polecat,
    status: &PolecatStatus,
    ctx: &Context,
) -> Result<Applied<Polecat>, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let api = Api::<Polecat>::namespaced(ctx.runtime.client.clone(), &namespace);
    let pace = &ctx.activity_pace;
    let details = if is_first(object, status) { &FIRST_DETAILS } else { &POLECAT_DETAILS };
    let applied = POLECAT.apply_paced(&api, object, status, details, pace).await;
    applied.map_err(|e| Error::Report(object_name(object), e))
}

/// Whether this is the first status of an attempt whose agent makes progress.
fn is_first(object: &Polecat, status: &PolecatStatus) -> bool {
    let before = object.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let healthy = conditions::find(&status.conditions, condition::HEALTHY);
    healthy.is_some_and(|c| c.status == "True")
        && conditions::find(before, condition::HEALTHY).is_none()
}

/// Applies the status of a Witness, and publishes Events about its readiness and its routes. When
/// only details differ and it is too early to write them, returns after which time to come back.
pub(crate) async fn publish_witness(
    object: &Witness,
    status: &WitnessStatus,
    ctx: &Context,
) -> Result<Option<Duration>, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let api = Api::<Witness>::namespaced(ctx.runtime.client.clone(), &namespace);
    let applied = WITNESS.apply_paced(&api, object, status, &WITNESS_DETAILS, &ctx.pace).await;
    let applied = applied.map_err(|e| Error::Report(object_name(object), e))?;
    let events = &ctx.runtime.events;
    if let Some(ready) = conditions::find(&status.conditions, condition::READY) {
        let note = if ready.status == "True" { Note::normal } else { Note::warning };
        events.publish(object, note(condition::READY, &ready.reason, &ready.message));
    }
    let target = object.spec.escalation_target.as_str();
    if object.spec.routes.is_empty() && target != "mayor" {
        let reason = match target {
            "slack" => "SlackNotConfigured",
            "email" => "EmailNotConfigured",
            _ => "UnknownEscalationTarget",
        };
        let message = format!(
            "escalationTarget {target} names no address: Escalations go to the mayor until \
             spec.routes is set"
        );
        events.publish(object, Note::warning("Routes", reason, message));
    }
    Ok(applied.record(&ctx.own_witnesses))
}
