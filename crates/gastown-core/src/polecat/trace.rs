//! The spans of a Polecat's life that are over, from a snapshot. They are exported, and decide nothing.

use gastown_api::MergePhase;
use gastown_trace::{Attempt, Beginning, Life, LifeFacts, Request, Span, Usage};
use jiff::{SignedDuration, Timestamp};

use super::facts::{PodFacts, RequestFacts, Snapshot};
use super::ledger::{End, Ledger};
use super::trace_facts::{Begin, Marks};

/// What landed longer ago than this was exported whole by an earlier process.
const RECENT: SignedDuration = SignedDuration::from_mins(10);

/// Where the spans of this life belong.
pub fn life(s: &Snapshot) -> Life {
    Life::of(&s.uid, s.trace.traceparent.as_deref())
}

/// The marks of a pod that has ended.
pub(super) fn marks(pod: &PodFacts, ended: i64, end: End, reason: &str) -> Marks {
    let second = |time: Option<Timestamp>| time.map(Timestamp::as_second);
    Marks {
        attempt: pod.attempt,
        pod: pod.uid.clone(),
        begin: pod.trace.begin.clone(),
        created: pod.created.as_second(),
        init: second(pod.trace.init),
        agent: second(pod.trace.agent),
        agent_ended: second(pod.trace.agent_ended),
        ended,
        reason: reason.to_owned(),
        failed: matches!(end, End::Retries | End::Stuck | End::Unknown),
    }
}

/// How the wait for the next attempt's pod begins.
pub(super) fn begin(s: &Snapshot, ledger: &Ledger, agent: &str) -> Begin {
    let sent_back = s.latest_request().filter(|r| r.phase == MergePhase::Rework);
    let before = ledger.last.as_ref().map(|last| last.at);
    let returned = sent_back.and_then(|r| r.trace.ended).map(Timestamp::as_second);
    Begin {
        since: before.max(returned).unwrap_or(s.created.as_second()),
        claimed: s.trace.claimed.filter(|_| before.is_none()).map(Timestamp::as_second),
        cause: sent_back.and_then(|request| cause(s, request)),
        agent: agent.to_owned(),
    }
}

/// The span of the run that sent a request back.
fn cause(s: &Snapshot, request: &RequestFacts) -> Option<String> {
    let run = request.trace.red_run.as_ref()?;
    let parent = life(s).root().to_string();
    let context = Request::of(&request.uid, Some(&parent), Some(&s.uid)).gate(run);
    Some(context.to_string())
}

/// The spans that are over. What they show has been written.
pub fn spans(s: &Snapshot) -> Vec<Span> {
    let nothing = Ledger::default();
    let ledger = s.ledger.as_ref().unwrap_or(&nothing);
    let mut attempts: Vec<Attempt> =
        ledger.marks.iter().filter_map(|marks| ended(marks, ledger)).collect();
    let running = s.pods.iter().filter(|pod| !ledger.accounts_for(&pod.uid));
    attempts.extend(running.map(running_attempt));
    let landed = landed(s, ledger);
    let ended = end(s, ledger, landed);
    life(s).spans(&LifeFacts {
        namespace: s.namespace.clone(),
        name: s.name.clone(),
        rig: s.rig.name().to_owned(),
        bead: s.bead.clone().unwrap_or_default(),
        created: s.created,
        attempts,
        submitted: submitted(s, ledger),
        closed: landed.and_then(|(at, closed)| Some((at, closed?))),
        failure: ended
            .filter(|(_, result)| *result == "deleted")
            .map(|_| "deleted before it landed".to_owned()),
        ended,
        usage: (ledger.usage != crate::report::Usage::default()).then_some(Usage {
            input_tokens: ledger.usage.input_tokens,
            output_tokens: ledger.usage.output_tokens,
            cost_usd: ledger.usage.cost_usd,
        }),
    })
}

fn beginning(begin: &Begin) -> Option<Beginning> {
    Some(Beginning {
        since: Timestamp::from_second(begin.since).ok()?,
        claimed: begin.claimed.and_then(|at| Timestamp::from_second(at).ok()),
        cause: begin.cause.as_ref().and_then(|cause| cause.parse().ok()),
    })
}

/// An attempt whose pod has ended.
fn ended(marks: &Marks, ledger: &Ledger) -> Option<Attempt> {
    let time = |second| Timestamp::from_second(second).ok();
    let agent = marks.begin.as_ref().map(|begin| begin.agent.clone()).unwrap_or_default();
    Some(Attempt {
        number: marks.attempt,
        pod_uid: marks.pod.clone(),
        beginning: marks.begin.as_ref().and_then(beginning),
        created: time(marks.created)?,
        init: marks.init.and_then(time),
        agent: marks.agent.and_then(time),
        agent_ended: marks.agent_ended.and_then(time),
        end: Some(gastown_trace::End {
            at: time(marks.ended)?,
            reason: marks.reason.clone(),
            failure: marks.failed.then(|| marks.reason.clone()),
            agent,
            model: ledger.model.clone().unwrap_or_default(),
        }),
    })
}

fn running_attempt(pod: &PodFacts) -> Attempt {
    Attempt {
        number: pod.attempt,
        pod_uid: pod.uid.clone(),
        beginning: pod.trace.begin.as_ref().and_then(beginning),
        created: pod.created,
        ..Attempt::default()
    }
}

/// From the end of the last attempt to the MergeRequest of its commit.
fn submitted(s: &Snapshot, ledger: &Ledger) -> Option<(Timestamp, String, Timestamp)> {
    let last = ledger.last.as_ref().filter(|last| last.end == End::Done)?;
    let request = s.request_of(ledger).filter(|r| r.attempt == ledger.attempt)?;
    Some((Timestamp::from_second(last.at).ok()?, request.name.clone(), request.created))
}

/// When the work landed, and when the bead was closed for that, where that is known. A bead that was
/// opened again since counts as closed at once.
fn landed(s: &Snapshot, ledger: &Ledger) -> Option<(Timestamp, Option<Timestamp>)> {
    let request = s.request_of(ledger).filter(|r| r.phase == MergePhase::Landed)?;
    let (bead, at) = (&s.deliveries.bead, request.landed_at?);
    let is_closed = bead.closed_for.contains(&request.uid);
    Some((at, is_closed.then(|| bead.closed_at.unwrap_or(at).max(at))))
}

/// Whether a life that has landed not long before `now` lacks nothing but the close of its bead to be
/// exported whole.
pub fn lacks_close(now: Timestamp, s: &Snapshot) -> bool {
    let nothing = Ledger::default();
    let ledger = s.ledger.as_ref().unwrap_or(&nothing);
    let Some((at, None)) = landed(s, ledger) else { return false };
    s.bead.is_some() && s.bead_store && !s.deleting && now.duration_since(at) < RECENT
}

/// When the life was over, and as what.
fn end(
    s: &Snapshot,
    ledger: &Ledger,
    landed: Option<(Timestamp, Option<Timestamp>)>,
) -> Option<(Timestamp, &'static str)> {
    if let Some((at, closed)) = landed {
        let is_over = closed.is_some() || s.bead.is_none() || !s.bead_store || s.deleting;
        return is_over.then(|| (closed.unwrap_or(at), "landed"));
    }
    let last = ledger.last.as_ref();
    let last_at = last.and_then(|last| Timestamp::from_second(last.at).ok());
    if last.is_some_and(|last| last.end == End::DoneWithoutChanges) {
        return last_at.map(|at| (at, "completed"));
    }
    let deleted = s.trace.deleted?;
    Some((last_at.map_or(deleted, |at| at.max(deleted)), "deleted"))
}
