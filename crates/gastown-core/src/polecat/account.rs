//! From a snapshot to the ledger as it should be: pods that are over are accounted for, a person's
//! wish re-arms, a landing is noted, a lost ledger is rebuilt from the merge requests.

use jiff::Timestamp;

use super::facts::{PodFacts, RequestPhase, Snapshot};
use super::ledger::{End, Last, Ledger, tame};
use super::outcome::{Expected, Fault, Outcome, judge};
use crate::report::{InitResult, Usage};
use crate::retry;

/// An agent that claims again and again that its credentials are refused is believed this often.
const MAX_CLAIMED_WAITS: u32 = 50;

/// A TTL up to this long deletes the Polecat while its MergeRequest still proves the landing.
const SHORT_TTL_SECONDS: i64 = 86_400;

/// The ledger after everything that the snapshot shows.
pub fn remember(now: Timestamp, s: &Snapshot, ledger: &Ledger) -> Ledger {
    let mut after = ledger.clone();
    let mut ended: Vec<&PodFacts> =
        s.pods.iter().filter(|p| p.over(now) && !ledger.accounts_for(&p.uid)).collect();
    ended.sort_by_key(|p| (p.attempt, p.created));
    for pod in ended {
        account(now, s, pod, &mut after);
    }
    rebuild(s, &mut after);
    note_landing(s, &mut after);
    after
}

/// Puts one pod's outcome into the ledger.
fn account(now: Timestamp, s: &Snapshot, pod: &PodFacts, ledger: &mut Ledger) {
    let sent_back = s
        .requests
        .iter()
        .filter(|r| r.phase == RequestPhase::Rework)
        .map(|r| r.commit.clone())
        .collect();
    let expected = Expected {
        changes: s.spec.as_ref().map_or(true, |spec| spec.expect_changes),
        sent_back,
        oom_before: ledger.respawns.oom > 0,
    };
    let outcome = judge(pod, &expected, now);
    let at = pod.over_at(now).as_second();

    let existing: Vec<&str> = s.pods.iter().map(|p| p.uid.as_str()).collect();
    ledger.note_pod(&pod.uid, &existing);
    // a straggler of an attempt that is behind us has told what it used, and decides nothing
    let decides = pod.attempt >= ledger.attempt;
    ledger.attempt = ledger.attempt.max(pod.attempt);
    ledger.usage = sum(ledger.usage, pod.run.as_ref().map(|r| r.usage).unwrap_or_default());
    if let Some(model) = pod.run.as_ref().and_then(|r| r.model.as_deref()) {
        ledger.model = Some(tame(model));
    }
    ledger.started = ledger.started.or_else(|| pod.started.map(Timestamp::as_second));
    if !decides {
        return;
    }
    ledger.retry.clone_from(&s.retry);
    ledger.spec = pod.asked.clone().unwrap_or_default();
    if pod.branch.is_some() && pod.branch != ledger.branch {
        ledger.branch.clone_from(&pod.branch);
        (ledger.ours, ledger.commit, ledger.base) = (false, None, None);
    }
    ledger.ours |= pod.init.as_ref().is_some_and(|i| i.result == InitResult::Ready);
    if let Some(sync) = &pod.sync
        && sync.commit.is_some()
    {
        ledger.commit.clone_from(&sync.commit);
        ledger.base.clone_from(&sync.base);
    }
    conclude(ledger, outcome, at, now.as_second());
}

fn conclude(ledger: &mut Ledger, outcome: Outcome, at: i64, now: i64) {
    let Outcome { mut end, fault, reason, message, until, claimed } = outcome;
    ledger.waits = if end == End::Waits { ledger.waits.saturating_add(1) } else { 0 };
    if claimed && ledger.waits > MAX_CLAIMED_WAITS {
        end = End::Stuck;
    }
    let respawns = &mut ledger.respawns;
    match fault {
        Some(Fault::Infrastructure) => {
            respawns.infrastructure = respawns.infrastructure.saturating_add(1)
        }
        Some(Fault::Oom) => respawns.oom = respawns.oom.saturating_add(1),
        Some(Fault::Crashed) => respawns.crashed = respawns.crashed.saturating_add(1),
        None => {}
    }
    let until = match end {
        End::Waits if claimed => Some(now.saturating_add(retry::respawn_delay(ledger.waits))),
        End::Waits => Some(now.saturating_add(retry::wait_delay(ledger.waits))),
        End::Later => Some(retry::rate_limit_until(now, until)),
        End::Retries => Some(at.saturating_add(retry::respawn_delay(respawns.total()))),
        End::Done | End::DoneWithoutChanges | End::Drained | End::Stuck => None,
    };
    ledger.last = Some(Last { end, reason, message, at, until });
}

fn sum(a: Usage, b: Usage) -> Usage {
    // an agent's numbers are claims; they must not overflow or poison the sum
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

/// A ledger that was taken away: a request of ours proves that its attempt finished.
fn rebuild(s: &Snapshot, ledger: &mut Ledger) {
    let Some(request) = s.latest_request().filter(|r| r.attempt > ledger.attempt) else { return };
    // a live pod of a later attempt will tell more; an older one changes nothing
    ledger.attempt = request.attempt;
    ledger.commit = Some(request.commit.clone());
    ledger.base = None;
    ledger.ours = true;
    ledger.branch = Some(request.branch.clone());
    ledger.last = Some(Last {
        end: End::Done,
        reason: "WorkComplete".to_owned(),
        message: format!("known from MergeRequest {}", request.name),
        at: request.created.as_second(),
        until: None,
    });
}

/// Remembers a landing for longer than its MergeRequest lives, unless the Polecat goes first.
fn note_landing(s: &Snapshot, ledger: &mut Ledger) {
    if ledger.landed.is_some()
        || ledger.end() != Some(End::Done)
        || s.ttl_seconds.is_some_and(|t| t <= SHORT_TTL_SECONDS)
    {
        return;
    }
    let landed = ledger
        .commit
        .as_ref()
        .and_then(|c| s.request_for(c))
        .filter(|r| r.phase == RequestPhase::Landed);
    if let Some(request) = landed {
        let at = request.landed_at.unwrap_or(request.created).as_second();
        ledger.landed = Some(super::ledger::Landed { request: request.name.clone(), at });
    }
}
