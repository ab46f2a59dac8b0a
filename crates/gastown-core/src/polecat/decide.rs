//! The decision about one Polecat. Read it from the top: the rules are called in the order in which
//! they apply, and each is in the file of its topic.

use gastown_api::MergePhase;
use jiff::Timestamp;

use super::bead_comment::{BeadComment, bead_comment};
use super::claim::ClaimFacts;
use super::claim_intent::{ClaimIntent, awaits_close, claim_intent};
use super::escalation::{Escalation, escalation, loss};
use super::facts::{PodFacts, Snapshot};
use super::ledger::Ledger;
use super::ledger_update::updated_ledger;
use super::next::{Next, next};
use super::plan::{Action, Plan};
use super::pods::{
    delete_finished_pods, drain_reason, name_is_free, pod_inputs, stop_pods, wake_for,
};
use super::status::{State, idle_until, status};
use super::submission::{Submission, expires_at, submission};
use crate::admission::{Candidate, Decision};
use crate::retry::Delivery;

/// What a snapshot means before a slot of the rig is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// The ledger as the annotation has it.
    written: Ledger,
    /// The ledger with everything that the snapshot shows.
    ledger: Ledger,
    /// The next step of a Polecat without a live pod.
    next: Next,
    /// The annotation could not be read, and is needed.
    frozen: bool,
}

/// Brings the ledger up to date and finds the next step.
pub fn assess(now: Timestamp, s: &Snapshot) -> Assessment {
    let written = match &s.ledger {
        Ok(ledger) => ledger.clone(),
        // what is being deleted needs no past
        Err(_) if s.deleting => Ledger::default(),
        Err(error) => return frozen(&error.to_string()),
    };
    let mut ledger = updated_ledger(now, s, &written);
    let next = next(now, s, &mut ledger);
    Assessment { written, ledger, next, frozen: false }
}

/// The ledger cannot be read: nothing is started, stopped or written until a person has looked.
fn frozen(error: &str) -> Assessment {
    let message = format!(
        "the annotation gastown.io/ledger cannot be read: {error}; remove it to start over"
    );
    let next = Next::stuck("LedgerUnreadable", message);
    Assessment { written: Ledger::default(), ledger: Ledger::default(), next, frozen: true }
}

impl Assessment {
    /// The candidate for a slot, if the Polecat would start a pod now.
    pub fn candidate(&self, now: Timestamp, s: &Snapshot) -> Option<Candidate> {
        let priority = s.spec.as_ref().map_or(2, |spec| spec.priority);
        self.can_start(now, s).then(|| Candidate {
            priority,
            created: s.created,
            key: s.key(),
            uid: s.uid.clone(),
        })
    }

    fn can_start(&self, now: Timestamp, s: &Snapshot) -> bool {
        !self.frozen
            && s.live(now).next().is_none()
            && drain_reason(s).is_none()
            && self.next == Next::Start
            && name_is_free(s, &self.ledger)
    }
}

/// Decides. Deterministic: the same inputs give the same plan. `assessment` is that of `s` at
/// `now`, `admission` the rig's answer where [`Assessment::candidate`] asked for a slot.
pub fn decide(now: Timestamp, s: &Snapshot, assessment: &Assessment, admission: &Decision) -> Plan {
    let Assessment { written, ledger, next, frozen } = assessment;
    let live: Vec<&PodFacts> = s.live(now).collect();
    if *frozen {
        let (drain, submission) = (None, &Submission::Nothing);
        let state = State { now, s, ledger, live: &live, next, drain, submission, admission };
        return Plan { actions: Vec::new(), status: status(&state), wake: None };
    }
    let idle = live.is_empty();
    let drain = drain_reason(s);
    let submission = submission(now, s, ledger);
    let intent = claim_intent(s, ledger, next, &submission, !idle);
    let claims = s.claim == ClaimFacts::Free && intent == ClaimIntent::Take;
    let comment = bead_comment(now, s, ledger, next, &submission, !idle);
    let escalation = escalation(now, s, ledger, next, !idle);
    let loss = loss(now, s, ledger);
    let expiry = expires_at(s, ledger, &submission, idle);
    let starts = *admission == Decision::Granted && assessment.can_start(now, s);

    let mut actions = Vec::new();
    let needed = !idle || needed_later(next, drain) || claims || s.claim == ClaimFacts::Held;
    patch_metadata(s, written, ledger, needed, &mut actions);
    delete_finished_pods(now, s, ledger, drain, &live, &mut actions);
    stop_pods(now, s, drain, &live, &mut actions);
    if claims {
        actions.push(Action::Claim);
    } else if s.claim == ClaimFacts::Held && intent == ClaimIntent::Release {
        actions.push(Action::ReleaseClaim);
    }
    if let BeadComment::Due(inputs) = &comment {
        actions.push(Action::Comment(inputs.clone()));
    }
    for escalation in [&escalation, &loss] {
        if let Escalation::Due(inputs) = escalation {
            actions.push(Action::Escalate(inputs.clone()));
        }
    }
    let sent = comment == BeadComment::Nothing
        && escalation == Escalation::Nothing
        && loss == Escalation::Nothing;
    if s.deleting && s.finalizer && idle && sent {
        actions.push(Action::PatchMetadata { ledger: None, finalizer: false });
    }
    if starts && let Ok(spec) = &s.spec {
        actions.push(Action::StartPod(Box::new(pod_inputs(s, ledger, spec))));
    }
    if let Submission::Due(inputs) = &submission {
        actions.push(Action::Submit(inputs.clone()));
    }
    if expiry.is_some_and(|t| t <= now) {
        actions.push(Action::DeletePolecat);
    }
    let state =
        State { now, s, ledger, live: &live, next, drain, submission: &submission, admission };
    let read_bead = s.deliveries.bead.again.filter(|_| awaits_close(s));
    let others = [idle_until(s, ledger), read_bead];
    let others = others.into_iter().flatten();
    let others = others.filter(|t| *t > now);
    let wake = wake(now, s, next, &submission, &live, expiry).into_iter().chain(others).min();
    let comment = if let BeadComment::Later(until) = comment { Some(until) } else { None };
    let [escalation, loss] = [escalation, loss].map(|e| match e {
        Escalation::Later(until) => Some(until),
        _ => None,
    });
    Plan {
        actions,
        status: status(&state),
        wake: [wake, comment, escalation, loss].into_iter().flatten().min(),
    }
}

/// The finalizer is held while a pod may hold work, and while another pod is to come.
fn needed_later(next: &Next, drain: Option<&str>) -> bool {
    drain.is_none() && matches!(next, Next::Start | Next::Claim | Next::Wait { .. })
}

/// One patch for labels, finalizer and ledger. `needed`: the finalizer is needed.
fn patch_metadata(
    s: &Snapshot,
    written: &Ledger,
    ledger: &Ledger,
    needed: bool,
    actions: &mut Vec<Action>,
) {
    let changed = written != ledger;
    // A Polecat that is being deleted takes no new finalizer; it loses the old one in an action of
    // its own.
    let finalizer = if s.deleting { s.finalizer } else { needed || (s.finalizer && !changed) };
    if changed || (!s.deleting && (!s.labelled || finalizer != s.finalizer)) {
        let ledger = changed.then(|| Box::new(ledger.clone()));
        actions.push(Action::PatchMetadata { ledger, finalizer });
    }
}

/// When to decide again although nothing changed.
fn wake(
    now: Timestamp,
    s: &Snapshot,
    next: &Next,
    submission: &Submission,
    live: &[&PodFacts],
    expiry: Option<Timestamp>,
) -> Option<Timestamp> {
    let waiting = live.is_empty() && drain_reason(s).is_none();
    let retry = match next {
        Next::Wait { until, .. } if waiting => *until,
        _ => None,
    };
    let submit = match (submission, &s.deliveries.submission) {
        (Submission::Wait { until, .. }, _) => *until,
        (
            Submission::Made { phase: MergePhase::Queued, .. },
            Delivery::Acknowledged { answer, .. },
        ) if s.requests.is_empty() => Some(answer.until),
        _ => None,
    };
    let pods = live.iter().filter_map(|p| wake_for(s, p)).filter(|t| *t > now).min();
    [retry, submit, pods, expiry].into_iter().flatten().filter(|t| *t > now).min()
}
