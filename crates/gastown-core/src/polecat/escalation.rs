//! The Escalation of a Polecat that needs a person: raised until witness-ctl has accepted it, and
//! settled when no person is needed any more. Repeating a request changes nothing there.

use std::fmt::Write as _;

use gastown_api::DesiredState;
use jiff::Timestamp;

use super::deliveries::{ESCALATION_TRIES, EscalationRequest};
use super::facts::Snapshot;
use super::ledger::Ledger;
use super::next::Next;
use super::plan::EscalationInputs;
use super::saved_work;
use crate::retry::{Delivery, Due};

/// The longest summary, in characters.
const MAX_SUMMARY: usize = 1000;

/// What to do about the Escalation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Escalation {
    /// Nothing: no request is wanted, or witness-ctl has accepted it.
    Nothing,
    /// Send a request now.
    Due(EscalationInputs),
    /// Send it again at this time.
    Later(Timestamp),
}

/// The request that is wanted now. `live`: the Polecat has a live pod.
pub(super) fn escalation(
    now: Timestamp,
    s: &Snapshot,
    ledger: &Ledger,
    next: &Next,
    live: bool,
) -> Escalation {
    if !s.witness || (s.deleting && s.force_delete) {
        return Escalation::Nothing;
    }
    let Some(request) = request(s, ledger, next, live) else { return Escalation::Nothing };
    if s.deleting && s.deliveries.escalation.tries(&request) >= ESCALATION_TRIES {
        return Escalation::Nothing;
    }
    send(now, s, &s.deliveries.escalation, "stuck", request)
}

/// Lost work is reported once, and stays reported until a person closes it: it does not come back.
pub(super) fn loss(now: Timestamp, s: &Snapshot, ledger: &Ledger) -> Escalation {
    let Some(lost) = ledger.lost_last() else { return Escalation::Nothing };
    if !s.witness || (s.deleting && s.force_delete) {
        return Escalation::Nothing;
    }
    let request = EscalationRequest::Raise {
        spent: true,
        summary: cut(&format!("Work of Polecat {} is {}", s.key(), lost.text())),
        details: format!(
            "{}Nothing has to be done for the Polecat to go on.",
            saved_work::describe(&ledger.saved)
        ),
    };
    if s.deleting && s.deliveries.loss.tries(&request) >= ESCALATION_TRIES {
        return Escalation::Nothing;
    }
    send(now, s, &s.deliveries.loss, "lost", request)
}

fn send(
    now: Timestamp,
    s: &Snapshot,
    delivery: &Delivery<EscalationRequest>,
    cause: &str,
    request: EscalationRequest,
) -> Escalation {
    match delivery.due(now, &request) {
        Due::Acknowledged(()) => Escalation::Nothing,
        Due::Later(until, ()) => Escalation::Later(until),
        Due::Now => Escalation::Due(EscalationInputs {
            rig: s.rig.name().to_owned(),
            cause: format!("polecat/{}/{cause}", s.key()),
            request,
        }),
    }
}

fn cut(summary: &str) -> String {
    summary.chars().take(MAX_SUMMARY).collect()
}

/// The request that makes witness-ctl know whether a person is needed; none where it cannot know
/// otherwise.
fn request(s: &Snapshot, ledger: &Ledger, next: &Next, live: bool) -> Option<EscalationRequest> {
    if let Next::Stuck { reason, message, spent } = next
        && !live
        && !s.deleting
        && s.desired == DesiredState::Working
    {
        return Some(raise(s, ledger, reason, message, *spent));
    }
    let raised = match &s.deliveries.escalation {
        // what an earlier process may have raised is what the status still shows
        Delivery::Untried => s.shown_stuck,
        Delivery::Acknowledged { request, .. } => {
            matches!(request, EscalationRequest::Raise { .. })
        }
        Delivery::Failed { .. } => true,
    };
    let why = match (s.deleting, s.desired) {
        (true, _) => "the Polecat is being deleted",
        (_, DesiredState::Idle | DesiredState::Terminated | DesiredState::Unknown) => {
            "spec.desiredState is not Working"
        }
        _ => "the Polecat continues",
    };
    raised.then(|| EscalationRequest::Settle { why: why.to_owned() })
}

fn raise(
    s: &Snapshot,
    ledger: &Ledger,
    reason: &str,
    message: &str,
    spent: bool,
) -> EscalationRequest {
    let summary = format!("Polecat {} needs a person: {reason}: {message}", s.key());
    let mut details = String::new();
    if let Some(bead) = &s.bead {
        let _ = writeln!(details, "Bead {bead}.");
    }
    if let (Some(branch), Some(commit)) = (&ledger.branch, &ledger.commit) {
        let _ = writeln!(details, "Branch {branch} holds {}.", commit.short());
    }
    details.push_str(&saved_work::describe(&ledger.saved));
    details.push_str(
        "The Polecat continues when its spec or the annotation gastown.io/retry changes.",
    );
    EscalationRequest::Raise { spent, summary: cut(&summary), details }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, snapshot};
    use super::super::ledger::{End, Last};
    use super::super::saved_work::Lost;
    use super::*;

    fn stuck() -> Next {
        Next::Stuck {
            reason: "AttemptsSpent".to_owned(),
            message: "all 8 attempts are spent".to_owned(),
            spent: true,
        }
    }

    fn wanted(s: &Snapshot, next: &Next) -> Escalation {
        escalation(at(10), s, &Ledger::default(), next, false)
    }

    fn due(s: &Snapshot, next: &Next) -> EscalationRequest {
        match wanted(s, next) {
            Escalation::Due(inputs) => inputs.request,
            other => panic!("{other:?}"),
        }
    }

    fn failed(
        request: &EscalationRequest,
        tries: u32,
        until: Timestamp,
    ) -> Delivery<EscalationRequest> {
        Delivery::Failed { request: request.clone(), error: (), tries, until }
    }

    #[test]
    fn a_stuck_polecat_is_escalated_once_and_settled_when_it_continues() {
        let mut s = Snapshot { witness: true, ..snapshot() };
        assert_eq!(wanted(&s, &Next::Start), Escalation::Nothing);
        let raise = due(&s, &stuck());
        assert!(
            matches!(&raise, EscalationRequest::Raise { spent: true, summary, .. } if summary.contains("AttemptsSpent")),
            "{raise:?}"
        );
        s.deliveries.escalation = failed(&raise, 1, at(20));
        assert_eq!(wanted(&s, &stuck()), Escalation::Later(at(20)));
        s.deliveries.escalated("polecat/dev/toast/stuck", &raise);
        assert_eq!(wanted(&s, &stuck()), Escalation::Nothing);
        let settle = due(&s, &Next::Start);
        assert!(matches!(&settle, EscalationRequest::Settle { .. }), "{settle:?}");
        s.deliveries.escalation = failed(&settle, 1, at(5));
        assert_eq!(due(&s, &Next::Start), settle);
        s.deliveries.escalated("polecat/dev/toast/stuck", &settle);
        assert_eq!(wanted(&s, &Next::Start), Escalation::Nothing);
        due(&s, &stuck());
    }

    #[test]
    fn what_an_earlier_process_raised_is_settled_too() {
        let s = Snapshot { witness: true, shown_stuck: true, ..snapshot() };
        assert!(matches!(due(&s, &Next::Finished), EscalationRequest::Settle { .. }));
        assert!(matches!(due(&s, &stuck()), EscalationRequest::Raise { .. }));
    }

    #[test]
    fn a_witness_that_does_not_answer_delays_a_deletion_for_a_bounded_number_of_tries() {
        let mut s = Snapshot { witness: true, shown_stuck: true, deleting: true, ..snapshot() };
        let request = due(&s, &stuck());
        assert!(matches!(&request, EscalationRequest::Settle { .. }), "{request:?}");
        s.deliveries.escalation = failed(&request, ESCALATION_TRIES, at(20));
        assert_eq!(wanted(&s, &stuck()), Escalation::Nothing);
    }

    #[test]
    fn lost_work_is_reported_once_and_never_taken_back() {
        let gone = Lost { attempt: 2, what: vec!["branch side: a broken object".into()], more: 0 };
        let last = Last {
            end: End::Drained,
            reason: "WorkLost".into(),
            message: String::new(),
            at: 0,
            until: None,
            saved: Some(false),
        };
        let ledger = Ledger { attempt: 2, lost: Some(gone), last: Some(last), ..Ledger::default() };
        let mut s = Snapshot { witness: true, ..snapshot() };
        let Escalation::Due(inputs) = loss(at(10), &s, &ledger) else { panic!("not reported") };
        assert_eq!(inputs.cause, "polecat/dev/toast/lost");
        let EscalationRequest::Raise { summary, .. } = &inputs.request else { panic!("settled") };
        assert!(summary.ends_with("attempt 2: branch side: a broken object"), "{summary}");
        s.deliveries.loss = failed(&inputs.request, 1, at(20));
        assert_eq!(loss(at(10), &s, &ledger), Escalation::Later(at(20)));
        s.deliveries.escalated("polecat/dev/toast/lost", &inputs.request);
        assert_eq!(loss(at(10), &s, &ledger), Escalation::Nothing);
        assert_eq!(loss(at(10), &s, &Ledger { attempt: 3, ..ledger }), Escalation::Nothing);
    }

    #[test]
    fn without_a_witness_nothing_is_escalated() {
        let s = Snapshot { shown_stuck: true, ..snapshot() };
        assert_eq!(wanted(&s, &stuck()), Escalation::Nothing);
    }
}
