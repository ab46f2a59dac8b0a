//! The ledger brought up to date with a snapshot: pods that are over are accounted for, a landing
//! is added, a lost ledger is rebuilt from the MergeRequests.

use gastown_api::MergePhase;
use jiff::Timestamp;

use super::facts::{PodFacts, RigFacts, Snapshot};
use super::kept::{Kept, kept};
use super::ledger::{End, Landed, Last, Ledger, sanitize};
use super::outcome::{Expected, Outcome, RespawnCause, outcome};
use super::saved_work;
use super::trace::marks;
use crate::report::{InitResult, Usage};
use crate::retry;

/// How often in a row an agent's claim that its credentials were refused is believed.
const MAX_CLAIMED_WAITS: u32 = 50;

/// A model's service that asks to wait for longer than this many seconds needs a person.
const MAX_SERVICE_WAIT: i64 = 86_400;

/// A TTL up to this long deletes the Polecat while its MergeRequest still proves the landing.
const SHORT_TTL_SECONDS: i64 = 86_400;

/// The ledger after everything that the snapshot shows.
pub(super) fn updated_ledger(now: Timestamp, s: &Snapshot, ledger: &Ledger) -> Ledger {
    let mut after = ledger.clone();
    let mut ended: Vec<&PodFacts> =
        s.pods.iter().filter(|p| p.over(now) && !ledger.accounts_for(&p.uid)).collect();
    ended.sort_by_key(|p| (p.attempt, p.created));
    for pod in ended {
        account(now, s, pod, &mut after);
    }
    rebuild(s, &mut after);
    add_landing(now, s, &mut after);
    drop_saved(now, s, &mut after);
    after
}

/// Puts one pod's outcome into the ledger.
fn account(now: Timestamp, s: &Snapshot, pod: &PodFacts, ledger: &mut Ledger) {
    let sent_back = s
        .requests
        .iter()
        .filter(|r| r.phase == MergePhase::Rework)
        .map(|r| r.commit.clone())
        .collect();
    let is_rework = s.latest_request().is_some_and(|r| r.phase == MergePhase::Rework);
    let expected = Expected {
        changes: s.spec.as_ref().map_or(true, |spec| spec.expect_changes),
        sent_back,
        sent_back_changes: ledger.changes.clone().filter(|_| is_rework),
        oom_before: ledger.respawns.oom > 0,
    };
    let outcome = outcome(pod, &expected, now);
    let (at, kept) = (pod.over_at(now).as_second(), kept(pod));

    let existing: Vec<&str> = s.pods.iter().map(|p| p.uid.as_str()).collect();
    ledger.add_pod(&pod.uid, &existing);
    // a straggler of an earlier attempt adds its usage, and decides nothing
    let decides = pod.attempt >= ledger.attempt;
    ledger.attempt = ledger.attempt.max(pod.attempt);
    ledger.usage = sum(ledger.usage, pod.run.as_ref().map(|r| r.usage).unwrap_or_default());
    if let Some(model) = pod.run.as_ref().and_then(|r| r.model.as_deref()) {
        ledger.model = Some(sanitize(model));
    }
    ledger.started = ledger.started.or_else(|| pod.started.map(Timestamp::as_second));
    if let Some(sync) = &pod.sync {
        saved_work::add(&mut ledger.saved, pod.attempt, sync);
    }
    if let Kept::Lost(lost) = &kept {
        ledger.lost = Some(lost.clone());
    }
    if !decides {
        return;
    }
    ledger.retry.clone_from(&s.retry);
    ledger.spec = pod.asked.clone().unwrap_or_default();
    if pod.branch.is_some() && pod.branch != ledger.branch {
        ledger.branch.clone_from(&pod.branch);
        (ledger.ours, ledger.commit, ledger.base, ledger.changes) = (false, None, None, None);
    }
    ledger.ours |= pod.init.as_ref().is_some_and(|i| i.result == InitResult::Ready);
    if let Some(sync) = &pod.sync
        && sync.commit.is_some()
    {
        ledger.commit.clone_from(&sync.commit);
        ledger.base.clone_from(&sync.base);
        if outcome.end == End::Done {
            ledger.changes = sync.changes.as_deref().map(sanitize);
        }
    }
    conclude(ledger, outcome, at, now.as_second(), &s.uid);
    if let Some(last) = &mut ledger.last {
        last.saved = Some(kept == Kept::Saved);
        ledger.marks = Some(marks(pod, at, last.end, &last.reason));
    }
}

/// Records an outcome. `at` is when the pod ended by its node's clock, and is only shown; what
/// decides is counted from `now`. `uid` spreads the waits of many Polecats.
fn conclude(ledger: &mut Ledger, outcome: Outcome, at: i64, now: i64, uid: &str) {
    let Outcome { mut end, respawn, reason, mut message, until, claimed, slow } = outcome;
    let waits = matches!(end, End::Waits | End::Later);
    ledger.waits = if waits { ledger.waits.saturating_add(1) } else { 0 };
    ledger.waiting_since =
        (end == End::Later).then(|| ledger.waiting_since.unwrap_or(now).min(now));
    if end == End::Waits && claimed && ledger.waits > MAX_CLAIMED_WAITS {
        end = End::Stuck;
    }
    if ledger.waiting_since.is_some_and(|since| now.saturating_sub(since) >= MAX_SERVICE_WAIT) {
        end = End::Stuck;
        message = sanitize(&format!("for 24 hours, again and again: {message}"));
    }
    let respawns = &mut ledger.respawns;
    match respawn {
        Some(RespawnCause::Infrastructure) => {
            respawns.infrastructure = respawns.infrastructure.saturating_add(1);
        }
        Some(RespawnCause::OutOfMemory) => respawns.oom = respawns.oom.saturating_add(1),
        Some(RespawnCause::AgentFailed) => respawns.crashed = respawns.crashed.saturating_add(1),
        None => {}
    }
    let until = match end {
        End::Waits if claimed || slow => {
            Some(now.saturating_add(retry::respawn_delay(ledger.waits)))
        }
        End::Waits => Some(now.saturating_add(retry::wait_delay(ledger.waits))),
        End::Later => Some(retry::service_wait_until(now, until, ledger.waits, uid)),
        End::Retries => Some(now.saturating_add(retry::respawn_delay(respawns.total()))),
        End::Done | End::DoneWithoutChanges | End::Drained | End::Stuck | End::Unknown => None,
    };
    ledger.last = Some(Last { end, reason, message, at, until, saved: None });
}

fn sum(a: Usage, b: Usage) -> Usage {
    // an agent's numbers are claims: they must not overflow the sum or make it infinite
    let cost = if b.cost_usd.is_finite() && b.cost_usd >= 0.0 { b.cost_usd } else { 0.0 };
    Usage {
        turns: a.turns.saturating_add(b.turns),
        input_tokens: a.input_tokens.saturating_add(b.input_tokens),
        output_tokens: a.output_tokens.saturating_add(b.output_tokens),
        cache_read_tokens: a.cache_read_tokens.saturating_add(b.cache_read_tokens),
        cache_write_tokens: a.cache_write_tokens.saturating_add(b.cache_write_tokens),
        cost_usd: (a.cost_usd + cost).min(1e9),
    }
}

/// A ledger that was removed: a MergeRequest of the Polecat proves that its attempt finished.
fn rebuild(s: &Snapshot, ledger: &mut Ledger) {
    let Some(request) = s.latest_request().filter(|r| r.attempt > ledger.attempt) else { return };
    // the end of a later attempt's pod will add to this; that of an earlier one changes nothing
    ledger.attempt = request.attempt;
    ledger.commit = Some(request.commit.clone());
    (ledger.base, ledger.changes, ledger.marks) = (None, None, None);
    ledger.ours = true;
    ledger.branch = Some(request.branch.clone());
    ledger.last = Some(Last {
        end: End::Done,
        reason: "WorkComplete".to_owned(),
        message: format!("rebuilt from MergeRequest {}", request.name),
        at: request.created.as_second(),
        until: None,
        saved: None,
    });
}

/// Forgets what was saved beside the branch when it is not kept any longer: the work has landed.
fn drop_saved(now: Timestamp, s: &Snapshot, ledger: &mut Ledger) {
    let (RigFacts::Present { wip_retention, .. }, Some(landed)) = (&s.rig, &ledger.landed) else {
        return;
    };
    if landed.at.saturating_add(*wip_retention) <= now.as_second() {
        ledger.saved.clear();
    }
}

/// Keeps a landing for longer than its MergeRequest exists, unless the Polecat is deleted before.
fn add_landing(now: Timestamp, s: &Snapshot, ledger: &mut Ledger) {
    if ledger.landed.is_some()
        || ledger.end() != Some(End::Done)
        || s.ttl_seconds.is_some_and(|t| t <= SHORT_TTL_SECONDS)
    {
        return;
    }
    let landed = s.request_of(ledger).filter(|r| r.phase == MergePhase::Landed);
    if let Some(request) = landed {
        let at = request.landed_at.unwrap_or(request.created).min(now).as_second();
        ledger.landed = Some(Landed { request: request.name.clone(), at });
    }
}
