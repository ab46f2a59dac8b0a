//! The agent's escalations: queued here until the witness has made Escalations of them.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use gastown_proto::v1::{RaiseRequest, RaiseResponse};
use gastown_types::{digest, slug, text};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use super::witness::{Backoff, Who, Witness};
use crate::socket::{Answer, Escalation};

/// Escalations that wait for the witness.
const WAITING_MAX: usize = 16;
/// Different escalations of one attempt; an agent with more problems should end.
const DIFFERENT_MAX: usize = 20;
/// Characters of the summary.
const SUMMARY_MAX: usize = 200;
/// Characters of the details.
const DETAILS_MAX: usize = 8 << 10;
/// Bytes of the summary's part of a cause.
const SLUG_MAX: usize = 40;
/// Hexadecimal digits of the summary's digest in a cause.
const DIGEST_DIGITS: usize = 8;
/// How long `gt escalate` waits for the witness's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after each escalation, so that an agent in a loop does not flood the witness.
const SPACING: Duration = Duration::from_secs(1);

type RaiseResult = Result<RaiseResponse, Status>;

/// An escalation that waits for the witness.
struct Queued {
    request: RaiseRequest,
    /// Where its result goes: one for each `gt escalate` that waits.
    waiters: Vec<oneshot::Sender<RaiseResult>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Queued>,
    /// The causes of this attempt so far.
    causes: HashSet<String>,
}

/// The escalations of one attempt.
pub struct Escalations {
    who: Who,
    witness: Option<Witness>,
    queue: Mutex<Queue>,
    added: Notify,
}

impl Escalations {
    /// An empty queue. Without a witness every escalation is refused.
    pub fn new(who: Who, witness: Option<Witness>) -> Self {
        Self { who, witness, queue: Mutex::default(), added: Notify::new() }
    }

    /// Queues an escalation, and waits a moment for the witness's answer.
    pub async fn escalate(&self, escalation: Escalation) -> Answer {
        if self.witness.is_none() {
            return refused(
                "no witness is configured that could receive it; write it into your commit message or `gt done --message`",
            );
        }
        let request = match request(&self.who, &escalation) {
            Ok(request) => request,
            Err(why) => return refused(why),
        };
        let (waiter, result) = oneshot::channel();
        if let Err(why) = self.enqueue(request, waiter) {
            return refused(why);
        }
        match timeout(ANSWER_TIMEOUT, result).await {
            Ok(Ok(Ok(raised))) => {
                let how = if raised.created {
                    "A person is notified"
                } else {
                    "It was raised before, and is counted again"
                };
                accepted(format!("{how}: escalation {}/{}.", raised.namespace, raised.name))
            }
            Ok(Ok(Err(status))) => refused(format!("the witness refused it: {}", status.message())),
            Ok(Err(_)) => refused("the pod is ending"),
            Err(_) => {
                accepted("The witness cannot be reached; the escalation is kept and sent later.")
            }
        }
    }

    fn enqueue(
        &self,
        request: RaiseRequest,
        waiter: oneshot::Sender<RaiseResult>,
    ) -> Result<(), String> {
        let mut queue = self.queue.lock();
        if let Some(same) = queue.waiting.iter_mut().find(|q| q.request.cause == request.cause) {
            same.request = request;
            same.waiters.retain(|w| !w.is_closed());
            same.waiters.push(waiter);
            return Ok(());
        }
        if queue.waiting.len() == WAITING_MAX {
            return Err(format!(
                "{WAITING_MAX} escalations wait for the witness already; this one is not kept"
            ));
        }
        if queue.causes.len() == DIFFERENT_MAX && !queue.causes.contains(&request.cause) {
            return Err(format!(
                "this attempt has raised {DIFFERENT_MAX} different escalations already; go on without this one, or end with `gt done --exit failed`"
            ));
        }
        queue.causes.insert(request.cause.clone());
        queue.waiting.push_back(Queued { request, waiters: vec![waiter] });
        drop(queue);
        self.added.notify_one();
        Ok(())
    }

    fn first(&self) -> Option<RaiseRequest> {
        self.queue.lock().waiting.front().map(|q| q.request.clone())
    }

    /// Removes the first escalation, whose result is final, and sends the result to its waiters. One
    /// that was changed while it was sent stays: it is sent again.
    fn finish(&self, sent: &RaiseRequest, result: &RaiseResult) {
        let mut queue = self.queue.lock();
        if queue.waiting.front().is_some_and(|q| q.request == *sent)
            && let Some(done) = queue.waiting.pop_front()
        {
            for waiter in done.waiters {
                // `gt escalate` may have ended.
                let _ = waiter.send(result.clone());
            }
        }
    }

    /// Sends the queued escalations one after the other, until it is cancelled.
    pub async fn run(&self) {
        let mut backoff = Backoff::default();
        loop {
            let Some(request) = self.first() else {
                self.added.notified().await;
                continue;
            };
            if self.raise(request).await {
                backoff = Backoff::default();
                sleep(SPACING).await;
            } else {
                sleep(backoff.next(fastrand::f64())).await;
            }
        }
    }

    /// Sends one escalation; `false` when it has to be sent again.
    async fn raise(&self, request: RaiseRequest) -> bool {
        let Some(witness) = &self.witness else { return false };
        let result = witness.raise(request.clone()).await;
        let cause = &request.cause;
        match &result {
            Ok(raised) => tracing::info!(
                cause,
                escalation = raised.name,
                "the witness accepted the agent's escalation"
            ),
            Err(e) if is_final(e) => {
                tracing::warn!(cause, error = %e, "the witness refused the agent's escalation");
            }
            Err(e) => {
                tracing::debug!(cause, error = %e, "the agent's escalation is kept");
                return false;
            }
        }
        self.finish(&request, &result);
        true
    }

    /// Sends what is still queued, until `end`. Returns how many remain.
    pub async fn flush(&self, end: Instant) -> usize {
        let attempts = async {
            while let Some(request) = self.first() {
                if !self.raise(request).await {
                    sleep(SPACING).await;
                }
            }
        };
        let _ = tokio::time::timeout_at(end, attempts).await;
        self.queue.lock().waiting.len()
    }
}

fn accepted(message: impl Into<String>) -> Answer {
    Answer { ok: true, message: message.into(), ..Answer::default() }
}

fn refused(message: impl Into<String>) -> Answer {
    Answer { message: message.into(), ..Answer::default() }
}

/// Whether another attempt would have the same result.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
    )
}

fn request(who: &Who, escalation: &Escalation) -> Result<RaiseRequest, &'static str> {
    let summary = one_line(&escalation.summary);
    if summary.is_empty() {
        return Err("describe in a sentence what a person must know");
    }
    Ok(RaiseRequest {
        namespace: who.namespace.clone(),
        rig: who.rig.clone(),
        severity: escalation.severity.as_str().to_owned(),
        cause: format!("polecat/{}/{}/agent/{}", who.namespace, who.polecat, cause(&summary)),
        summary: text::line(&summary, SUMMARY_MAX),
        details: text::block(&escalation.details, DETAILS_MAX),
        source: "agent".to_owned(),
        related_kind: "Polecat".to_owned(),
        related_namespace: who.namespace.clone(),
        related_name: who.polecat.clone(),
    })
}

/// The summary with single spaces and without control characters: two that differ in nothing else
/// are one problem.
fn one_line(summary: &str) -> String {
    let parts: Vec<&str> = summary.split_whitespace().collect();
    parts.join(" ").chars().filter(|c| !c.is_control()).collect()
}

/// The summary's part of a cause: its letters and digits, and enough of a digest that two summaries
/// differ.
/// Escalations in the cluster are found by their causes, so this must not change.
fn cause(summary: &str) -> String {
    // `slug` lowercases all of Unicode; a cause takes letters from ASCII only.
    let ascii = summary.replace(|c: char| !c.is_ascii(), "-");
    let slug = slug(&ascii, SLUG_MAX);
    let digest = digest::sha256(summary);
    let digest = text::truncate(&digest, DIGEST_DIGITS);
    if slug.is_empty() { digest.to_owned() } else { format!("{slug}-{digest}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::socket::Severity;
    use crate::sync::witness::Ca;

    fn who() -> Who {
        Who { namespace: "work".into(), polecat: "toast".into(), rig: "web".into(), attempt: 2 }
    }

    fn escalation(summary: &str) -> Escalation {
        Escalation {
            severity: Severity::High,
            summary: summary.into(),
            details: "a\u{7}\nb".into(),
        }
    }

    fn escalations() -> Escalations {
        let witness = Witness {
            endpoint: "https://127.0.0.1:1".into(),
            ca: Ca::Text(String::new()),
            token_file: "/nowhere".into(),
            rig: "web".into(),
            holder: super::super::witness::Holder::default(),
        };
        Escalations::new(who(), Some(witness))
    }

    #[test]
    fn two_problems_have_two_causes_and_a_problem_has_always_the_same() {
        let one = request(&who(), &escalation("The forge  answers:\nno!")).unwrap();
        assert_eq!(one.cause, "polecat/work/toast/agent/the-forge-answers-no-173d92e1");
        assert_eq!(
            (one.summary.as_str(), one.details.as_str(), one.severity.as_str()),
            ("The forge answers: no!", "a\u{fffd}\nb", "high")
        );
        assert_eq!(
            one.cause,
            request(&who(), &escalation("The forge answers: no!")).unwrap().cause
        );
        assert_ne!(
            one.cause,
            request(&who(), &escalation("The forge answers: no?")).unwrap().cause
        );
        assert!(request(&who(), &escalation(" \n")).is_err());
        assert_eq!(
            (one.related_kind.as_str(), one.related_name.as_str(), one.source.as_str()),
            ("Polecat", "toast", "agent")
        );
    }

    #[test]
    fn causes_of_escalations_in_the_cluster_stay_the_same() {
        let long = "Die Straße ist gesperrt, und die Umleitung führt über eine zweite Sperre";
        for (summary, expected) in [
            ("Tests need a license key.", "tests-need-a-license-key-ea59b7ae"),
            (long, "die-stra-e-ist-gesperrt-und-die-umleitun-91e97e37"),
            ("日本", "cf2abf0c"),
            ("\u{212a}elvin \u{130}zmir", "elvin-zmir-1da1aabf"),
        ] {
            assert_eq!(cause(summary), expected, "{summary}");
        }
    }

    #[tokio::test]
    async fn without_a_witness_an_escalation_is_refused() {
        let answer = Escalations::new(who(), None).escalate(escalation("help")).await;
        assert!(!answer.ok && answer.message.contains("no witness"), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_connection_escalations_are_kept_once_each_and_the_queue_is_bounded() {
        let escalations = escalations();
        let kept = escalations.escalate(escalation("help 0")).await;
        assert!(kept.ok && kept.message.contains("kept"), "{kept:?}");
        for n in 0..WAITING_MAX {
            assert!(escalations.escalate(escalation(&format!("help {n}"))).await.ok);
        }
        assert_eq!(escalations.queue.lock().waiting.len(), WAITING_MAX);
        let full = escalations.escalate(escalation("one more")).await;
        assert!(!full.ok && full.message.contains("not kept"), "{full:?}");
        assert_eq!(escalations.flush(Instant::now()).await, WAITING_MAX);
    }

    #[tokio::test]
    async fn the_answer_names_the_escalation_or_why_it_was_refused() {
        let escalations = escalations();
        let answer = async |result: RaiseResult| {
            let finish = async {
                escalations.added.notified().await;
                escalations.finish(&escalations.first().unwrap(), &result);
            };
            tokio::join!(escalations.escalate(escalation("help")), finish).0
        };
        let made = RaiseResponse { namespace: "work".into(), name: "esc-1".into(), created: true };
        assert_eq!(
            answer(Ok(made.clone())).await.message,
            "A person is notified: escalation work/esc-1."
        );
        let again = answer(Ok(RaiseResponse { created: false, ..made })).await;
        assert!(again.ok && again.message.contains("counted again"));
        let refused = answer(Err(Status::invalid_argument("no such rig"))).await;
        assert_eq!(
            (refused.ok, refused.message.as_str()),
            (false, "the witness refused it: no such rig")
        );
    }

    #[tokio::test]
    async fn an_escalation_that_changes_while_it_is_sent_is_sent_again() {
        let escalations = escalations();
        let enqueue = |details: &str| {
            let escalation = Escalation { details: details.into(), ..escalation("help") };
            escalations
                .enqueue(request(&who(), &escalation).unwrap(), oneshot::channel().0)
                .unwrap();
        };
        enqueue("at noon");
        let sent = escalations.first().unwrap();
        enqueue("still");
        escalations.finish(&sent, &Ok(RaiseResponse::default()));
        assert_eq!(escalations.first().unwrap().details, "still");
        enqueue("still");
        escalations.finish(&escalations.first().unwrap(), &Ok(RaiseResponse::default()));
        assert!(escalations.first().is_none(), "the same text is one escalation");
    }

    #[tokio::test]
    async fn an_attempt_has_a_bounded_number_of_different_escalations() {
        let escalations = escalations();
        let waiter = || oneshot::channel().0;
        for n in 0..DIFFERENT_MAX {
            escalations
                .enqueue(request(&who(), &escalation(&format!("{n}"))).unwrap(), waiter())
                .unwrap();
            escalations.finish(&escalations.first().unwrap(), &Err(Status::invalid_argument("")));
        }
        assert!(
            escalations.enqueue(request(&who(), &escalation("new")).unwrap(), waiter()).is_err()
        );
        assert!(escalations.enqueue(request(&who(), &escalation("3")).unwrap(), waiter()).is_ok());
    }

    proptest! {
        #[test]
        fn no_summary_makes_a_long_cause_or_one_with_other_characters(summary in ".{0,400}", details in ".{0,400}") {
            let escalation = Escalation { severity: Severity::Low, summary, details };
            if let Ok(request) = request(&who(), &escalation) {
                prop_assert!(request.cause.len() < 100);
                prop_assert!(request.cause.chars().all(|c| c.is_ascii_alphanumeric() || "/-".contains(c)));
                prop_assert!(request.summary.chars().count() <= SUMMARY_MAX && !request.summary.contains('\n'));
            }
        }
    }
}
