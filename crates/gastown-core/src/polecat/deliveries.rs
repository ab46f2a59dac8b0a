//! The requests of a Polecat whose fate this process remembers, and their back-off.

use std::collections::BTreeSet;

use gastown_api::names::reason;
use gastown_types::CommitId;
use jiff::{SignedDuration, Timestamp};

use super::ledger::sanitize;
use crate::retry::{Delivery, request_delay};

/// A deletion waits for this many tries to comment on the bead, and not longer.
pub const COMMENT_TRIES: u32 = 3;

/// A deletion waits for this many tries to settle the Escalation, and not longer.
pub const ESCALATION_TRIES: u32 = 3;

/// An acknowledged MergeRequest that the watch does not show after this long is submitted again.
const VISIBLE_SECONDS: i64 = 30;

/// A comment that the store refused is sent again after this long: its permissions or its branch
/// may have changed.
const REFUSED_COMMENT_SECONDS: i64 = 600;

/// What this process remembers of one Polecat's requests. Losing it costs repeated requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// Submitting a commit to refinery-ctl.
    pub submission: Delivery<CommitId, Submitted, Failure>,
    /// Creating a pod. Whatever the attempt: what refuses one pod (a quota, a policy, a closed
    /// bead) refuses the next.
    pub pod: Delivery<(), (), Failure>,
    /// Commenting on the bead; the request is the comment's text.
    pub comment: Delivery<String>,
    /// Raising or settling the Escalation at witness-ctl.
    pub escalation: Delivery<EscalationRequest>,
    /// Raising the Escalation about lost work.
    pub loss: Delivery<EscalationRequest>,
    /// Actions at the API server; the request is what was attempted on which object.
    pub action: Delivery<String, (), ()>,
    /// The bead, as its store was read last.
    pub bead: BeadView,
}

/// What is known of a Polecat's bead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BeadView {
    /// Its priority, from 0 (first) to 4.
    pub priority: Option<u8>,
    /// The uids of the landed MergeRequests that the store closed it for: a bead that is open all
    /// the same was reopened, and is anybody's.
    pub closed_for: BTreeSet<String>,
    /// When the store closed it last, by its own time.
    pub closed_at: Option<Timestamp>,
    /// When it is read again; none where it was never tried.
    pub again: Option<Timestamp>,
    /// How many times in a row it was read for a landing that the store had not closed it for.
    pub tries: u32,
}

/// The end of the cause of an Escalation about lost work, which is lost without its Polecat too.
pub const LOSS: &str = "/lost";

/// refinery-ctl's acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The MergeRequest's name.
    pub merge_request: String,
    /// When it is submitted again if the watch has not shown it.
    pub until: Timestamp,
}

/// Why a request failed, as a condition shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason, in CamelCase: `PodCreateFailed`, `BeadUnavailable`, …
    pub reason: String,
    /// One sentence: the other side's (a quota, a policy, an admission webhook), or what is
    /// missing.
    pub message: String,
}

/// What witness-ctl is asked to do with a Polecat's Escalation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EscalationRequest {
    /// Open it: a person is needed.
    Raise {
        /// The Polecat has given up, and will not continue by itself.
        spent: bool,
        /// One sentence.
        summary: String,
        /// What a person needs to know besides; may be empty.
        details: String,
    },
    /// Close it: no person is needed any more.
    Settle {
        /// Why not.
        why: String,
    },
}

impl Deliveries {
    /// refinery-ctl acknowledged `commit` with this MergeRequest.
    pub fn submitted(&mut self, now: Timestamp, commit: &CommitId, merge_request: String) {
        let until = now.checked_add(SignedDuration::from_secs(VISIBLE_SECONDS)).unwrap_or(now);
        self.submission.acknowledge(commit.clone(), Submitted { merge_request, until });
    }

    /// refinery-ctl did not take `commit`.
    pub fn submit_failed(&mut self, now: Timestamp, commit: &CommitId, failure: Failure) {
        self.submission.fail(now, commit.clone(), failure, request_delay);
    }

    /// A pod was created.
    pub fn pod_created(&mut self) {
        self.pod = Delivery::Untried;
    }

    /// No pod could be created.
    pub fn pod_failed(&mut self, now: Timestamp, reason: &str, message: &str) {
        // Asking beadstore-ctl again is cheap; a pod that the API server refuses is refused again,
        // most likely.
        let pause = if reason == reason::POD_CREATE_FAILED { 2 } else { 1 };
        let failure = Failure { reason: reason.to_owned(), message: sanitize(message) };
        self.pod.fail(now, (), failure, |tries| pause * request_delay(tries));
    }

    /// The store has the comment.
    pub fn commented(&mut self, text: &str) {
        self.comment.acknowledge(text.to_owned(), ());
    }

    /// The store did not take the comment. `refused`: sending it again soon would not help.
    pub fn comment_failed(&mut self, now: Timestamp, text: &str, refused: bool) {
        let text = text.to_owned();
        if refused {
            self.comment.refuse(now, text, (), COMMENT_TRIES, REFUSED_COMMENT_SECONDS);
        } else {
            self.comment.fail(now, text, (), request_delay);
        }
    }

    /// witness-ctl accepted the request about a cause.
    pub fn escalated(&mut self, cause: &str, request: &EscalationRequest) {
        self.escalation_of(cause).acknowledge(request.clone(), ());
    }

    /// witness-ctl did not accept the request about a cause.
    pub fn escalation_failed(&mut self, now: Timestamp, cause: &str, request: &EscalationRequest) {
        self.escalation_of(cause).fail(now, request.clone(), (), request_delay);
    }

    fn escalation_of(&mut self, cause: &str) -> &mut Delivery<EscalationRequest> {
        if cause.ends_with(LOSS) { &mut self.loss } else { &mut self.escalation }
    }

    /// An action at the API server failed; returns how often in a row it has.
    pub fn action_failed(&mut self, now: Timestamp, what: &str) -> u32 {
        self.action.fail(now, what.to_owned(), (), request_delay);
        self.action.tries(&what.to_owned())
    }

    /// No action failed.
    pub fn actions_succeeded(&mut self) {
        self.action = Delivery::Untried;
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{at, commit};
    use super::*;
    use crate::retry::Due;

    fn wait<Q: PartialEq, A, E>(delivery: &Delivery<Q, A, E>, request: &Q) -> i64 {
        match delivery.due(at(0), request) {
            Due::Later(until, _) => until.as_second() - at(0).as_second(),
            Due::Now | Due::Acknowledged(_) => 0,
        }
    }

    #[test]
    fn each_request_has_its_delays() {
        let mut all = Deliveries::default();
        let failure = || Failure { reason: "NoRefinery".into(), message: String::new() };
        let waits = (1..=6).map(|_| {
            all.submit_failed(at(0), &commit(1), failure());
            all.comment_failed(at(0), "gave up", false);
            all.escalation_failed(
                at(0),
                "polecat/dev/toast/stuck",
                &EscalationRequest::Settle { why: String::new() },
            );
            all.pod_failed(at(0), "PodCreateFailed", "quota");
            (
                wait(&all.submission, &commit(1)),
                wait(&all.comment, &"gave up".to_owned()),
                wait(&all.pod, &()),
            )
        });
        assert_eq!(
            waits.collect::<Vec<_>>(),
            [(1, 1, 2), (2, 2, 4), (4, 4, 8), (8, 8, 16), (16, 16, 32), (30, 30, 60)]
        );
        assert_eq!(wait(&all.escalation, &EscalationRequest::Settle { why: String::new() }), 30);
        all.pod_created();
        all.pod_failed(at(0), "BeadUnavailable", "no answer");
        assert_eq!(wait(&all.pod, &()), 1, "beadstore-ctl is asked again sooner");
        all.comment_failed(at(0), "gave up", true);
        assert_eq!(wait(&all.comment, &"gave up".to_owned()), 600);
        all.comment_failed(at(0), "was deleted", true);
        assert_eq!(all.comment.tries(&"was deleted".to_owned()), COMMENT_TRIES);
    }

    #[test]
    fn an_acknowledged_submission_is_expected_in_the_watch_within_a_bounded_time() {
        let mut all = Deliveries::default();
        all.submitted(at(0), &commit(1), "toast-1".into());
        let answer = Submitted { merge_request: "toast-1".into(), until: at(30) };
        assert_eq!(all.submission.due(at(99), &commit(1)), Due::Acknowledged(&answer));
    }
}
