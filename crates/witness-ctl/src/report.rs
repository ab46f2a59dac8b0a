//! From decisions to statuses; pure.

use gastown_api::conditions::time;
use gastown_api::names::{condition, manager, reason};
use gastown_api::{
    Delivery, DeliveryState, Escalation, EscalationPhase, EscalationStatus, Polecat, PolecatStatus,
    PolecatsSummary, Route, Witness, WitnessPhase, WitnessStatus, conditions,
};
use gastown_core::escalation::{Ledger, Plan};
use gastown_core::witness::{Summary, Verdict};
use gastown_runtime::apply::StatusOwner;
use jiff::{SignedDuration, Timestamp};

pub(crate) const WITNESS: StatusOwner = StatusOwner {
    manager: manager::WITNESS,
    fields: &["phase", "lastCheckTime", "polecatsSummary"],
    conditions: &[condition::READY, condition::DEGRADED],
};

pub(crate) const POLECAT: StatusOwner = StatusOwner {
    manager: manager::WITNESS,
    fields: &["activity"],
    conditions: &[condition::HEALTHY],
};

pub(crate) const ESCALATION: StatusOwner = StatusOwner {
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

/// When only the time of the look has changed, it is written this often.
const CHECKED_EVERY: SignedDuration = SignedDuration::from_mins(5);
/// Longest closing reason that the schema takes.
const REASON_MAX: usize = 4096;

fn small(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The status of a Witness that serves.
pub(crate) fn witness(object: &Witness, summary: &Summary, now: Timestamp) -> WitnessStatus {
    let before = object.status.clone().unwrap_or_default();
    let sick = summary.sick();
    let mut all = before.conditions.clone();
    let (generation, words) = (object.metadata.generation, sick.clone());
    let words = words.unwrap_or_else(|| "every polecat at work gets on".to_owned());
    let (ready, degraded) = if sick.is_none() {
        ("AllHealthy", reason::HEALTHY)
    } else {
        ("IssuesDetected", "IssuesDetected")
    };
    conditions::set(&mut all, condition::READY, sick.is_none(), ready, &words, generation, now);
    conditions::set(
        &mut all,
        condition::DEGRADED,
        sick.is_some(),
        degraded,
        &words,
        generation,
        now,
    );
    let status = WitnessStatus {
        phase: Some(match (sick.is_some(), summary.running) {
            (true, _) => WitnessPhase::Degraded,
            (false, 0) => WitnessPhase::Pending,
            (false, _) => WitnessPhase::Active,
        }),
        last_check_time: before.last_check_time.clone(),
        polecats_summary: Some(PolecatsSummary {
            total: small(summary.total),
            running: small(summary.running),
            succeeded: small(summary.succeeded),
            failed: small(summary.failed.len()),
            stuck: small(summary.stuck.len()),
        }),
        conditions: all,
    };
    checked(&before, status, now)
}

/// The status of a Witness whose rig has an older one.
pub(crate) fn duplicate(object: &Witness, serving: &str, now: Timestamp) -> WitnessStatus {
    let before = object.status.clone().unwrap_or_default();
    let mut all = before.conditions.clone();
    conditions::remove(&mut all, condition::DEGRADED);
    let words = format!("rig {} is watched by the older Witness {serving}", object.spec.rig_ref);
    conditions::set(
        &mut all,
        condition::READY,
        false,
        reason::DUPLICATE,
        &words,
        object.metadata.generation,
        now,
    );
    WitnessStatus { conditions: all, ..WitnessStatus::default() }
}

/// The time of the look is news with other news, or after a while.
fn checked(before: &WitnessStatus, mut status: WitnessStatus, now: Timestamp) -> WitnessStatus {
    let old =
        before.last_check_time.as_ref().is_none_or(|t| now.duration_since(t.0) >= CHECKED_EVERY);
    if old || *before != status {
        status.last_check_time = Some(time(now));
    }
    status
}

/// What of a Polecat's status is ours; nothing is left of it when no agent is at work.
pub(crate) fn polecat(
    object: &Polecat,
    verdict: Option<&Verdict>,
    now: Timestamp,
) -> PolecatStatus {
    let Some(verdict) = verdict else { return PolecatStatus::default() };
    let mut all = object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let generation = object.metadata.generation;
    conditions::set(
        &mut all,
        condition::HEALTHY,
        verdict.healthy,
        verdict.reason,
        &verdict.message,
        generation,
        now,
    );
    PolecatStatus { activity: Some(verdict.activity), conditions: all, ..PolecatStatus::default() }
}

/// The status of an Escalation, wholly made of its spec and its ledger.
pub(crate) fn escalation(
    object: &Escalation,
    plan: &Plan,
    ledger: &Ledger,
    routes: &[Route],
    now: Timestamp,
) -> EscalationStatus {
    let mut all = object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let (told, reason, words) = delivered(plan, ledger, routes);
    conditions::set(
        &mut all,
        condition::DELIVERED,
        told,
        reason,
        &words,
        object.metadata.generation,
        now,
    );
    let settled = ledger.settled.as_ref().map(|s| s.why.clone());
    let closed = object.spec.closed.as_ref().map(|c| format!("{}: {}", c.by, c.reason)).or(settled);
    let mut deliveries: Vec<Delivery> = ledger
        .told
        .iter()
        .map(|t| Delivery {
            route: t.route.clone(),
            severity: t.severity,
            state: t.state,
            attempts: i32::try_from(t.attempts).unwrap_or(i32::MAX),
            last_attempt_at: Some(time(t.last)),
            next_attempt_at: t.next.filter(|_| plan.phase == EscalationPhase::Open).map(time),
            message: t.why.clone(),
        })
        .collect();
    // Routes that are no more may have left theirs.
    deliveries.sort_by(|a, b| {
        b.last_attempt_at.as_ref().map(|t| t.0).cmp(&a.last_attempt_at.as_ref().map(|t| t.0))
    });
    deliveries.truncate(16);
    deliveries.sort_by(|a, b| a.route.cmp(&b.route));
    EscalationStatus {
        phase: Some(plan.phase),
        severity: Some(plan.severity),
        raises: Some(i32::try_from(ledger.raises).unwrap_or(i32::MAX)),
        last_raised_at: ledger.raised.map(time),
        severity_raised_at: ledger.stale.last().copied().map(time),
        closed_reason: closed
            .filter(|_| plan.phase == EscalationPhase::Closed)
            .map(|r| r.chars().take(REASON_MAX).collect()),
        deliveries,
        conditions: all,
    }
}

fn delivered(plan: &Plan, ledger: &Ledger, routes: &[Route]) -> (bool, &'static str, String) {
    let due: Vec<_> = routes.iter().filter(|r| r.min_severity <= plan.severity).collect();
    let state = |r: &Route| {
        ledger
            .told
            .iter()
            .find(|t| t.route == r.name() && t.severity >= plan.severity)
            .map(|t| t.state)
    };
    let named = |state_is: &dyn Fn(Option<DeliveryState>) -> bool| {
        let names: Vec<_> = due.iter().filter(|r| state_is(state(r))).map(|r| r.name()).collect();
        names.join(", ")
    };
    let failed = named(&|s| s == Some(DeliveryState::Failed));
    let waiting = named(&|s| !matches!(s, Some(DeliveryState::Failed | DeliveryState::Sent)));
    match plan.phase {
        _ if due.is_empty() => (
            false,
            "NoRoute",
            format!("no route of the rig's Witness takes severity {}", plan.severity.as_str()),
        ),
        _ if !failed.is_empty() => (false, "DeliveryFailed", format!("tried in vain: {failed}")),
        EscalationPhase::Open if !waiting.is_empty() => {
            (false, "DeliveryPending", format!("tried again: {waiting}"))
        }
        _ if !waiting.is_empty() => (false, "NotNeeded", format!("not told any more: {waiting}")),
        _ => (true, "Told", named(&|_| true)),
    }
}
