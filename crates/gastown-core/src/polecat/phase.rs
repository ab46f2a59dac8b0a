//! What a person sees: phase and conditions, the Go operator's and ours, from the same facts as the
//! decision.

use gastown_api::names::{condition, reason};
use jiff::Timestamp;

use super::claim::ClaimFacts;
use super::decide::{Next, Submission, rest_phase};
use super::facts::{Desired, PodFacts, PodPhase, RequestPhase, Snapshot};
use super::ledger::{End, Ledger};
use super::plan::{Phase, Shown, Told, View};
use crate::admission::Slot;

/// What the view is made from.
pub(super) struct State<'a> {
    pub s: &'a Snapshot,
    pub ledger: &'a Ledger,
    pub live: &'a [&'a PodFacts],
    pub next: &'a Next,
    pub drain: Option<&'static str>,
    pub submit: &'a Submission,
}

/// One line of the table of conditions.
struct Line {
    phase: Phase,
    ready: (bool, String, String),
    working: (bool, String),
    progressing: (bool, String),
    available: (bool, String),
    degraded: Option<String>,
    admitted: (bool, String, String),
    warning: bool,
}

impl Line {
    /// Nothing runs, nothing is wrong; `reason` says why.
    fn rest(phase: Phase, why: &str, message: &str, ready: bool) -> Self {
        let all = || (false, why.to_owned());
        Self {
            phase,
            ready: (ready, why.to_owned(), message.to_owned()),
            working: all(),
            progressing: all(),
            available: all(),
            degraded: None,
            admitted: (false, why.to_owned(), message.to_owned()),
            warning: false,
        }
    }

    fn admitted(self) -> Self {
        Self { admitted: (true, reason::ADMITTED.to_owned(), String::new()), ..self }
    }
}

/// The status.
pub(super) fn view(state: &State) -> View {
    let State { s, ledger, live, .. } = state;
    let line = line(state);
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
    let at_rest = matches!(line.phase, Phase::Done | Phase::Stuck | Phase::Terminated);
    View {
        phase: line.phase,
        told: Some(Told {
            warning: line.warning,
            reason: line.ready.1.clone(),
            note: line.ready.2.clone(),
        }),
        pod: newest.map(|p| (p.name.clone(), p.phase == PodPhase::Running)),
        attempts: live.iter().map(|p| p.attempt).max().unwrap_or(0).max(ledger.attempt),
        branch: ledger.branch.clone().filter(|_| ledger.commit.is_some()),
        commit: ledger.commit.clone(),
        base: ledger.base.clone(),
        outcome: ledger.last.clone(),
        request: match state.submit {
            Submission::Made { request, .. } => Some(request.clone()),
            _ => None,
        },
        usage: ledger.usage,
        model: ledger.model.clone(),
        started,
        finished: last_at.filter(|_| at_rest),
        activity: newest.and_then(settled).or(last_at),
        conditions: conditions(state, line),
    }
}

/// The pod's last step that is worth a write: its start once it runs, its end once it is over, and
/// none between.
fn settled(pod: &PodFacts) -> Option<Timestamp> {
    match pod.phase {
        PodPhase::Succeeded | PodPhase::Failed => pod.ended.or(pod.started),
        PodPhase::Running | PodPhase::Unknown => pod.started,
        PodPhase::Pending => None,
    }
}

fn line(state: &State) -> Line {
    let State { s, ledger, live, next, drain, .. } = state;
    if let Some(pod) = live.iter().max_by_key(|p| p.attempt) {
        return with_pod(state, pod);
    }
    if s.deleting {
        return Line::rest(rest_phase(s.desired), "Deleting", "it is being deleted", false);
    }
    if drain.is_some() && s.desired != Desired::Working {
        return match s.desired {
            Desired::Terminated => Line::rest(
                Phase::Terminated,
                reason::TERMINATED,
                "terminated; its work is saved",
                true,
            ),
            _ => Line::rest(Phase::Idle, reason::IDLE, "idle, as spec.desiredState says", true),
        };
    }
    match next {
        Next::Finished => done(ledger),
        Next::Stuck { reason, message, .. } => stuck(reason, message, ledger.attempt > 0),
        Next::Wait { reason, message, .. } => waiting(reason, message),
        Next::Claim => Line { warning: false, ..waiting("Claiming", "its bead is being claimed") },
        Next::Start => match &s.slot {
            Slot::AtCapacity { used, cap, position } => {
                let text = format!(
                    "{used} of {cap} polecats of rig {}, position {position}",
                    s.rig.name()
                );
                Line { warning: false, ..waiting(reason::AT_CAPACITY, &text) }
            }
            Slot::Granted | Slot::Unasked => Line {
                warning: false,
                ..waiting("PodTerminating", "the pod of the attempt before is going")
            },
        },
    }
}

fn done(ledger: &Ledger) -> Line {
    let message = ledger.last.as_ref().map(|l| l.message.clone()).unwrap_or_default();
    let completed = || (false, reason::COMPLETED.to_owned());
    let line = Line {
        ready: (true, reason::POD_SUCCEEDED.to_owned(), message),
        working: completed(),
        progressing: completed(),
        available: (true, reason::WORK_COMPLETE.to_owned()),
        ..Line::rest(Phase::Done, "", "", true)
    };
    line.admitted()
}

fn stuck(why: &str, message: &str, ran: bool) -> Line {
    let failed = || (false, reason::FAILED.to_owned());
    let line = Line {
        working: failed(),
        progressing: failed(),
        available: failed(),
        degraded: Some(why.to_owned()),
        warning: true,
        ..Line::rest(Phase::Stuck, why, message, false)
    };
    if ran { line.admitted() } else { line }
}

fn waiting(why: &str, message: &str) -> Line {
    Line {
        available: (false, reason::NOT_READY.to_owned()),
        warning: true,
        ..Line::rest(Phase::Idle, why, message, false)
    }
}

fn with_pod(state: &State, pod: &PodFacts) -> Line {
    let State { ledger, drain, .. } = state;
    if let Some(why) = pod.drain.as_deref().or(*drain) {
        let message = format!("the agent is being stopped and its work saved ({why})");
        let line = Line {
            progressing: (true, "Draining".to_owned()),
            ..Line::rest(Phase::Working, "Draining", &message, false)
        };
        return Line { available: (false, reason::NOT_READY.to_owned()), ..line.admitted() };
    }
    // Something lacked; until a pod gets further than the last one did, that is what there is to
    // say.
    if let Some(last) = ledger
        .last
        .as_ref()
        .filter(|l| l.end == End::Waits && !pod.agent_started && pod.attempt == ledger.attempt)
    {
        return waiting(&last.reason, &last.message);
    }
    let running = pod.phase == PodPhase::Running;
    let why = if running { reason::POD_RUNNING } else { reason::POD_PENDING };
    let base = Line::rest(
        Phase::Working,
        why,
        &format!("attempt {} in pod {}", pod.attempt, pod.name),
        true,
    );
    let line = Line {
        working: (true, reason::WORKING.to_owned()),
        progressing: (true, why.to_owned()),
        available: (false, reason::NOT_READY.to_owned()),
        ..base
    };
    match &pod.waiting {
        Some((why, message)) => Line {
            ready: (false, why.clone(), message.clone()),
            progressing: (false, why.clone()),
            warning: true,
            ..line
        }
        .admitted(),
        None => line.admitted(),
    }
}

fn conditions(state: &State, line: Line) -> Vec<Shown> {
    let message = line.ready.2.clone();
    let shown = |kind, (status, reason): (bool, String), message: &str| Shown {
        kind,
        status,
        reason,
        message: message.to_owned(),
    };
    let degraded = match &line.degraded {
        Some(why) => (true, why.clone()),
        None => (false, reason::HEALTHY.to_owned()),
    };
    let degraded_message = if degraded.0 { message.as_str() } else { "" };
    let mut all = vec![
        shown(condition::READY, (line.ready.0, line.ready.1), &message),
        shown(condition::WORKING, line.working, ""),
        shown(condition::PROGRESSING, line.progressing, ""),
        shown(condition::AVAILABLE, line.available, ""),
        shown(condition::DEGRADED, degraded, degraded_message),
        shown(condition::ADMITTED, (line.admitted.0, line.admitted.1), &line.admitted.2),
    ];
    all.extend(claimed(state.s));
    all.extend(submitted(state.submit));
    all
}

fn claimed(s: &Snapshot) -> Option<Shown> {
    let bead = s.bead.as_deref()?;
    let (status, reason, message) = match &s.claim {
        ClaimFacts::NotNeeded => return None,
        ClaimFacts::Held => (true, reason::CLAIMED, format!("bead {bead} is this Polecat's")),
        ClaimFacts::Free => (false, reason::NOT_CLAIMED, format!("bead {bead} is nobody's")),
        ClaimFacts::HeldBy { polecat, .. } => {
            (false, reason::ALREADY_CLAIMED, format!("bead {bead} is claimed by Polecat {polecat}"))
        }
        ClaimFacts::ToLand { request } => {
            (false, reason::WORK_TO_LAND, super::claim::to_land(bead, request))
        }
        ClaimFacts::Unknown(why) => (
            false,
            reason::CLAIM_UNREADABLE,
            format!("the claim on bead {bead} cannot be read: {why}"),
        ),
    };
    Some(Shown { kind: condition::CLAIMED, status, reason: reason.to_owned(), message })
}

fn submitted(submit: &Submission) -> Option<Shown> {
    let (status, reason, message) = match submit {
        Submission::Nothing => return None,
        Submission::Due(_) => (false, "Submitting".to_owned(), String::new()),
        Submission::Wait { reason, message, .. } => (false, reason.clone(), message.clone()),
        Submission::Never { reason, message } => (false, (*reason).to_owned(), message.clone()),
        Submission::Made { request, phase, reason, .. } => match phase {
            // one text for all that goes well: a landing is refinery-ctl's to show
            RequestPhase::Queued | RequestPhase::Testing | RequestPhase::Landed => {
                (true, "Submitted".to_owned(), format!("MergeRequest {request}"))
            }
            RequestPhase::Rework => {
                (false, "Rework".to_owned(), format!("MergeRequest {request} came back: {reason}"))
            }
            RequestPhase::Rejected => (
                false,
                "Rejected".to_owned(),
                format!("MergeRequest {request} was rejected: {reason}"),
            ),
            RequestPhase::Superseded => (
                false,
                "Superseded".to_owned(),
                format!("MergeRequest {request} was superseded: {reason}"),
            ),
        },
    };
    Some(Shown { kind: condition::SUBMITTED, status, reason, message })
}
