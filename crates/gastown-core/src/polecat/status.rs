//! The status that is wanted: phase and conditions, the Go operator's and ours, from the same facts
//! as the decision.

use gastown_api::conditions::{Draft, Status};
use gastown_api::names::{condition, reason};
use gastown_api::{DesiredState, MergePhase, PolecatPhase};
use jiff::Timestamp;

use super::claim::ClaimFacts;
use super::facts::{PodFacts, PodPhase, Snapshot, later};
use super::ledger::{End, Ledger};
use super::next::Next;
use super::plan::{EventDraft, StatusDraft};
use super::pods::obeys_until;
use super::submission::Submission;
use crate::admission::Decision;

/// What the status is made from.
pub(super) struct State<'a> {
    pub now: Timestamp,
    pub s: &'a Snapshot,
    pub ledger: &'a Ledger,
    pub live: &'a [&'a PodFacts],
    pub next: &'a Next,
    pub drain: Option<&'static str>,
    pub submission: &'a Submission,
    pub admission: &'a Decision,
}

/// One row of the table of phases and conditions.
struct Row {
    phase: PolecatPhase,
    ready: Draft,
    working: Draft,
    progressing: Draft,
    available: Draft,
    degraded: Draft,
    admitted: Draft,
    /// The Event of a change to this row is a Warning.
    warning: bool,
}

impl Row {
    /// Nothing runs and nothing is wrong; `why` is the reason of all conditions but `Degraded`.
    fn rest(phase: PolecatPhase, why: &str, message: &str, ready: bool) -> Self {
        let off = |type_| Draft::new(type_, false, why.to_owned(), "");
        Self {
            phase,
            ready: Draft::new(condition::READY, ready, why.to_owned(), message),
            working: off(condition::WORKING),
            progressing: off(condition::PROGRESSING),
            available: off(condition::AVAILABLE),
            degraded: Draft::new(condition::DEGRADED, false, reason::HEALTHY, ""),
            admitted: Draft::new(condition::ADMITTED, false, why.to_owned(), message),
            warning: false,
        }
    }

    fn admitted(self) -> Self {
        Self { admitted: Draft::new(condition::ADMITTED, true, reason::ADMITTED, ""), ..self }
    }

    /// Lost work is shown until the next attempt has ended.
    fn losing(self, ledger: &Ledger) -> Self {
        match ledger.lost_last() {
            Some(lost) if self.degraded.status != Status::True => {
                let degraded =
                    Draft::new(condition::DEGRADED, true, reason::WORK_LOST, lost.text());
                Self { degraded, ..self }
            }
            _ => self,
        }
    }
}

/// The status.
pub(super) fn status(state: &State) -> StatusDraft {
    let State { s, ledger, live, .. } = state;
    let row = row(state).losing(ledger);
    let newest = live
        .iter()
        .copied()
        .max_by_key(|p| p.attempt)
        .or_else(|| s.pods.iter().max_by_key(|p| (p.attempt, p.created)));
    let last_at = ledger.last.as_ref().and_then(|l| Timestamp::from_second(l.at).ok());
    let begun = newest.filter(|p| p.phase != PodPhase::Pending);
    let started = ledger
        .started
        .and_then(|t| Timestamp::from_second(t).ok())
        .or_else(|| begun.and_then(|p| p.started));
    let ended =
        matches!(row.phase, PolecatPhase::Done | PolecatPhase::Stuck | PolecatPhase::Terminated);
    StatusDraft {
        phase: row.phase,
        event: EventDraft {
            warning: row.warning,
            reason: row.ready.reason.to_string(),
            message: row.ready.message.clone(),
        },
        lost: ledger.lost_last().cloned(),
        saved: ledger.saved.clone(),
        pod: newest.map(|p| (p.name.clone(), p.phase == PodPhase::Running)),
        attempts: live.iter().map(|p| p.attempt).max().unwrap_or(0).max(ledger.attempt),
        branch: ledger.branch.clone().filter(|_| ledger.commit.is_some()),
        commit: ledger.commit.clone(),
        base: ledger.base.clone(),
        outcome: ledger.last.clone(),
        request: match state.submission {
            Submission::Made { request, .. } => Some(request.clone()),
            _ => None,
        },
        usage: ledger.usage,
        model: ledger.model.clone(),
        started,
        finished: last_at.filter(|_| ended),
        activity: newest.and_then(activity).or(last_at),
        conditions: conditions(state, row),
    }
}

/// The pod's last step that is worth a write: its start once it runs, its end once it is over, and
/// none between.
fn activity(pod: &PodFacts) -> Option<Timestamp> {
    match pod.phase {
        PodPhase::Succeeded | PodPhase::Failed => pod.ended.or(pod.started),
        PodPhase::Running | PodPhase::Unknown => pod.started,
        PodPhase::Pending => None,
    }
}

fn row(state: &State) -> Row {
    let State { now, s, ledger, live, next, drain, .. } = state;
    if let Some(pod) = live.iter().max_by_key(|p| p.attempt) {
        return with_pod(state, pod);
    }
    if s.deleting {
        let phase = match s.desired {
            DesiredState::Terminated => PolecatPhase::Terminated,
            DesiredState::Idle | DesiredState::Working | DesiredState::Unknown => {
                PolecatPhase::Idle
            }
        };
        return Row::rest(phase, "Deleting", "the Polecat is being deleted", false);
    }
    if drain.is_some() {
        match s.desired {
            DesiredState::Terminated => return terminated(ledger),
            DesiredState::Idle => return idle(*now, s, ledger),
            DesiredState::Working | DesiredState::Unknown => {}
        }
    }
    match next {
        Next::Finished => done(ledger, state.submission),
        Next::Stuck { reason, message, .. } => stuck(reason, message, ledger.attempt > 0),
        Next::Wait { reason, message, .. } => waiting(reason, message),
        Next::Claim => Row { warning: false, ..waiting("Claiming", "its bead is being claimed") },
        Next::Start => start(s, state.admission),
    }
}

/// Nothing is wanted of it.
fn idle(now: Timestamp, s: &Snapshot, ledger: &Ledger) -> Row {
    match idle_until(s, ledger) {
        Some(end) if end <= now => {
            let message = "idle for longer than spec.maxIdleSeconds";
            Row::rest(PolecatPhase::Terminated, reason::IDLE_TOO_LONG, message, true)
        }
        _ => Row::rest(PolecatPhase::Idle, reason::IDLE, "spec.desiredState is Idle", true),
    }
}

/// When a Polecat of which nothing is wanted ends by `spec.maxIdleSeconds`.
pub(super) fn idle_until(s: &Snapshot, ledger: &Ledger) -> Option<Timestamp> {
    let limit = s.max_idle_seconds.filter(|_| s.desired == DesiredState::Idle)?;
    let last = ledger.last.as_ref().and_then(|last| Timestamp::from_second(last.at).ok());
    later(last.unwrap_or(s.created), limit)
}

/// The task was ended. Its work is called saved only where the sidecar has stated so.
fn terminated(ledger: &Ledger) -> Row {
    let phase = PolecatPhase::Terminated;
    let Some(last) = &ledger.last else {
        return Row::rest(phase, reason::TERMINATED, "terminated before anything ran", true);
    };
    match last.saved {
        Some(true) => Row::rest(phase, reason::TERMINATED, "terminated; its work is saved", true),
        None => {
            let message = format!("terminated; its last attempt: {}", last.message);
            Row::rest(phase, reason::TERMINATED, &message, true)
        }
        Some(false) => {
            let why = match ledger.lost_last() {
                Some(_) => reason::WORK_LOST,
                None => reason::OUTCOME_UNKNOWN,
            };
            let message = format!("terminated; its last attempt: {}", last.message);
            let row = Row::rest(phase, why, &message, false);
            Row { warning: true, ..row }
        }
    }
}

/// The next attempt could start, but for the rig's slots or the name of its pod.
fn start(s: &Snapshot, admission: &Decision) -> Row {
    let row = match admission {
        Decision::AtCapacity { used, cap, position } => {
            let message =
                format!("{used} of {cap} polecats of rig {}, position {position}", s.rig.name());
            waiting(reason::AT_CAPACITY, &message)
        }
        Decision::Granted | Decision::NotAsked => {
            waiting("PodTerminating", "the pod of the attempt before is being deleted")
        }
    };
    Row { warning: false, ..row }
}

/// The work is done. Where it cannot be submitted, that is what is shown.
fn done(ledger: &Ledger, submission: &Submission) -> Row {
    let message = ledger.last.as_ref().map(|l| l.message.clone()).unwrap_or_default();
    let ready = match submission {
        Submission::Wait { reason, message, .. } => {
            Draft::new(condition::READY, false, reason.clone(), message)
        }
        Submission::Never { reason, message } => {
            Draft::new(condition::READY, false, *reason, message)
        }
        _ => Draft::new(condition::READY, true, reason::POD_SUCCEEDED, message),
    };
    let row = Row {
        available: Draft::new(condition::AVAILABLE, true, reason::WORK_COMPLETE, ""),
        warning: ready.status != Status::True,
        ready,
        ..Row::rest(PolecatPhase::Done, reason::COMPLETED, "", true)
    };
    row.admitted()
}

fn stuck(why: &str, message: &str, ran: bool) -> Row {
    let row = Row {
        ready: Draft::new(condition::READY, false, why.to_owned(), message),
        degraded: Draft::new(condition::DEGRADED, true, why.to_owned(), message),
        admitted: Draft::new(condition::ADMITTED, false, why.to_owned(), message),
        warning: true,
        ..Row::rest(PolecatPhase::Stuck, reason::FAILED, "", false)
    };
    if ran { row.admitted() } else { row }
}

fn waiting(why: &str, message: &str) -> Row {
    Row {
        available: Draft::new(condition::AVAILABLE, false, reason::NOT_READY, ""),
        warning: true,
        ..Row::rest(PolecatPhase::Idle, why, message, false)
    }
}

fn with_pod(state: &State, pod: &PodFacts) -> Row {
    let State { now, s, ledger, drain, .. } = state;
    let available = Draft::new(condition::AVAILABLE, false, reason::NOT_READY, "");
    if let Some(why) = pod.drain.as_deref().or(*drain) {
        let message = draining(*now, s, pod, why);
        let row = Row {
            progressing: Draft::new(condition::PROGRESSING, true, "Draining", ""),
            available,
            ..Row::rest(PolecatPhase::Working, "Draining", &message, false)
        };
        return row.admitted();
    }
    // Something was missing; until a pod gets further than the last one did, that is what is shown.
    if let Some(last) = ledger
        .last
        .as_ref()
        .filter(|l| matches!(l.end, End::Waits | End::Later))
        .filter(|_| !pod.agent_started && pod.attempt == ledger.attempt)
    {
        return waiting(&last.reason, &last.message);
    }
    let running = pod.phase == PodPhase::Running;
    let why = if running { reason::POD_RUNNING } else { reason::POD_PENDING };
    let mut message = format!("attempt {} in pod {}", pod.attempt, pod.name);
    if let Some(saving) = &s.saving {
        message = format!("{message}; not on the remote yet: {saving}");
    }
    let row = Row {
        working: Draft::new(condition::WORKING, true, reason::WORKING, ""),
        progressing: Draft::new(condition::PROGRESSING, true, why, ""),
        available,
        ..Row::rest(PolecatPhase::Working, why, &message, true)
    };
    let row = match &pod.waiting {
        Some((why, message)) => Row {
            ready: Draft::new(condition::READY, false, why.clone(), message.clone()),
            progressing: Draft::new(condition::PROGRESSING, false, why.clone(), ""),
            warning: true,
            ..row
        },
        None => row,
    };
    row.admitted()
}

/// What a drained pod does. A pod whose work is not saved stays, however long that takes.
fn draining(now: Timestamp, s: &Snapshot, pod: &PodFacts, why: &str) -> String {
    let overdue = obeys_until(s, pod).is_some_and(|t| t <= now) && pod.saved != Some(true);
    match &s.saving {
        Some(saving) => format!("the pod stays until its work is saved ({why}): {saving}"),
        None if overdue => format!(
            "the pod stays until its work is saved ({why}); see the log of its container git-sync"
        ),
        None => format!("the agent is being stopped and its work is being saved ({why})"),
    }
}

fn conditions(state: &State, row: Row) -> Vec<Draft> {
    let Row { ready, working, progressing, available, degraded, admitted, .. } = row;
    let mut all = vec![ready, working, progressing, available, degraded, admitted];
    all.extend(claimed(state.s));
    all.extend(submitted(state.submission));
    all
}

fn claimed(s: &Snapshot) -> Option<Draft> {
    let bead = s.bead.as_deref().filter(|_| s.claim != ClaimFacts::NotNeeded)?;
    let held = s.claim == ClaimFacts::Held;
    Some(Draft::new(condition::CLAIMED, held, s.claim.reason(), s.claim.message(bead)))
}

fn submitted(submission: &Submission) -> Option<Draft> {
    let draft = |holds: bool, reason: &str, message: String| {
        Some(Draft::new(condition::SUBMITTED, holds, reason.to_owned(), message))
    };
    match submission {
        Submission::Nothing => None,
        Submission::Due(_) => draft(false, "Submitting", String::new()),
        Submission::Wait { reason, message, .. } => draft(false, reason, message.clone()),
        Submission::Never { reason, message } => draft(false, reason, message.clone()),
        Submission::Made { request, phase, reason, .. } => match phase {
            // one message for all that goes well: refinery-ctl shows the landing
            MergePhase::Queued | MergePhase::Testing | MergePhase::Landed | MergePhase::Unknown => {
                draft(true, "Submitted", format!("MergeRequest {request}"))
            }
            MergePhase::Rework => {
                draft(false, "Rework", format!("MergeRequest {request} was sent back: {reason}"))
            }
            MergePhase::Rejected => {
                draft(false, "Rejected", format!("MergeRequest {request} was rejected: {reason}"))
            }
            MergePhase::Superseded => draft(
                false,
                "Superseded",
                format!("MergeRequest {request} was superseded: {reason}"),
            ),
        },
    }
}
