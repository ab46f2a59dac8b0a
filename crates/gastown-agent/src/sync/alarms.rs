//! What the agent wants a person to know: kept here until the witness has made an Escalation of it.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use gastown_proto::v1::{RaiseRequest, RaiseResponse};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use super::board::cut;
use super::witness::{Backoff, Who, Witness};
use crate::socket::{Alarm, Answer};

/// Alarms that wait for the witness.
const WAITING: usize = 16;
/// Different alarms of one attempt; an agent with more to say has lost its way.
const DIFFERENT: usize = 20;
/// The summary.
const SUMMARY_MAX: usize = 200;
/// The details.
const DETAILS_MAX: usize = 8 << 10;
/// How long `gt escalate` waits to learn what came of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two that went well: an agent in a loop is no flood.
const SPACING: Duration = Duration::from_secs(1);

/// One that waits, and who wants to know what comes of it.
struct Kept {
    request: RaiseRequest,
    tell: Vec<oneshot::Sender<Result<RaiseResponse, Status>>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Kept>,
    /// The causes of this attempt so far.
    causes: HashSet<String>,
}

/// The alarms of one attempt.
pub struct Alarms {
    who: Who,
    witness: Option<Witness>,
    queue: Mutex<Queue>,
    more: Notify,
}

impl Alarms {
    /// None so far. Without a witness nobody can hear them.
    pub fn new(who: Who, witness: Option<Witness>) -> Self {
        Self { who, witness, queue: Mutex::default(), more: Notify::new() }
    }

    /// Keeps it, and waits a moment for what comes of it.
    pub async fn escalate(&self, alarm: Alarm) -> Answer {
        let refused = |message: String| Answer { message, ..Answer::default() };
        if self.witness.is_none() {
            return refused("there is no witness here that would hear it; put it into your commit's message or `gt done --message`".into());
        }
        let request = match request(&self.who, &alarm) {
            Ok(request) => request,
            Err(why) => return refused(why.into()),
        };
        let (tell, told) = oneshot::channel();
        if let Err(why) = self.keep(request, tell) {
            return refused(why);
        }
        match timeout(PATIENCE, told).await {
            Ok(Ok(Ok(made))) => {
                let how = if made.created {
                    "A person is told"
                } else {
                    "It was told before, and is counted again"
                };
                Answer {
                    ok: true,
                    message: format!("{how}: escalation {}/{}.", made.namespace, made.name),
                    ..Answer::default()
                }
            }
            Ok(Ok(Err(status))) => refused(format!("the witness refuses it: {}", status.message())),
            Ok(Err(_)) => refused("the pod is ending".into()),
            Err(_) => Answer {
                ok: true,
                message: "The witness is away; it is kept and told when the witness is back."
                    .into(),
                ..Answer::default()
            },
        }
    }

    fn keep(
        &self,
        request: RaiseRequest,
        tell: oneshot::Sender<Result<RaiseResponse, Status>>,
    ) -> Result<(), String> {
        let mut queue = self.queue.lock();
        if let Some(same) = queue.waiting.iter_mut().find(|k| k.request.cause == request.cause) {
            same.request = request;
            same.tell.retain(|t| !t.is_closed());
            same.tell.push(tell);
            return Ok(());
        }
        if queue.waiting.len() == WAITING {
            return Err(format!(
                "{WAITING} alarms wait for the witness already; this one is not kept"
            ));
        }
        if queue.causes.len() == DIFFERENT && !queue.causes.contains(&request.cause) {
            return Err(format!(
                "this attempt has raised {DIFFERENT} different alarms; go on without, or end with `gt done --exit failed`"
            ));
        }
        queue.causes.insert(request.cause.clone());
        queue.waiting.push_back(Kept { request, tell: vec![tell] });
        drop(queue);
        self.more.notify_one();
        Ok(())
    }

    fn first(&self) -> Option<RaiseRequest> {
        self.queue.lock().waiting.front().map(|k| k.request.clone())
    }

    /// The first one is done with, in one way or the other. One that was changed while it was on
    /// its way stays: it is told anew.
    fn settle(&self, sent: &RaiseRequest, outcome: &Result<RaiseResponse, Status>) {
        let mut queue = self.queue.lock();
        if queue.waiting.front().is_some_and(|k| k.request == *sent)
            && let Some(done) = queue.waiting.pop_front()
        {
            for tell in done.tell {
                // Who asked may have gone.
                let _ = tell.send(outcome.clone());
            }
        }
    }

    /// Raises what comes, one after the other, for ever.
    pub async fn run(&self) {
        let mut backoff = Backoff::default();
        loop {
            let Some(request) = self.first() else {
                self.more.notified().await;
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

    /// Raises one; `false` when it must be tried again.
    async fn raise(&self, request: RaiseRequest) -> bool {
        let Some(witness) = &self.witness else { return false };
        let outcome = witness.raise(request.clone()).await;
        let cause = &request.cause;
        match &outcome {
            Ok(made) => tracing::info!(
                cause,
                escalation = made.name,
                "the witness has heard the agent's alarm"
            ),
            Err(e) if is_final(e) => {
                tracing::warn!(cause, error = %e, "the witness refuses the agent's alarm")
            }
            Err(e) => {
                tracing::debug!(cause, error = %e, "the agent's alarm is kept");
                return false;
            }
        }
        self.settle(&request, &outcome);
        true
    }

    /// A last try for each that still waits, until `end`; how many remain.
    pub async fn last_try(&self, end: Instant) -> usize {
        let tries = async {
            while let Some(request) = self.first() {
                if !self.raise(request).await {
                    sleep(SPACING).await;
                }
            }
        };
        let _ = tokio::time::timeout_at(end, tries).await;
        self.queue.lock().waiting.len()
    }
}

/// Whether another try would end the same.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
    )
}

fn request(who: &Who, alarm: &Alarm) -> Result<RaiseRequest, &'static str> {
    let line: String = alarm
        .summary
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    if line.is_empty() {
        return Err("say in a sentence what a person must know");
    }
    let details: String =
        alarm.details.chars().filter(|c| !c.is_control() || *c == '\n' || *c == '\t').collect();
    Ok(RaiseRequest {
        namespace: who.namespace.clone(),
        rig: who.rig.clone(),
        severity: alarm.severity.as_str().to_owned(),
        cause: format!("polecat/{}/{}/agent/{}", who.namespace, who.polecat, slug(&line)),
        summary: cut(&line, SUMMARY_MAX).to_owned(),
        details: cut(&details, DETAILS_MAX).to_owned(),
        source: "agent".to_owned(),
        related_kind: "Polecat".to_owned(),
        related_namespace: who.namespace.clone(),
        related_name: who.polecat.clone(),
    })
}

/// Words to know it by, and enough of a digest that two summaries are two causes.
fn slug(summary: &str) -> String {
    let mut out = String::new();
    for c in summary.chars().map(|c| c.to_ascii_lowercase()) {
        if c.is_ascii_alphanumeric() {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        if out.len() == 40 {
            break;
        }
    }
    let mut out = out.trim_end_matches('-').to_owned();
    if !out.is_empty() {
        out.push('-');
    }
    for byte in &Sha256::digest(summary.as_bytes())[..4] {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::socket::Severity;
    use crate::sync::witness::Ca;

    fn who() -> Who {
        Who { namespace: "town".into(), polecat: "toast".into(), rig: "web".into(), attempt: 2 }
    }

    fn alarm(summary: &str) -> Alarm {
        Alarm { severity: Severity::High, summary: summary.into(), details: "a\u{7}\nb".into() }
    }

    fn alarms() -> Alarms {
        let witness = Witness {
            endpoint: "https://127.0.0.1:1".into(),
            ca: Ca::Text(String::new()),
            token_file: "/nowhere".into(),
        };
        Alarms::new(who(), Some(witness))
    }

    #[test]
    fn the_same_trouble_has_the_same_cause_and_another_has_another() {
        let one = request(&who(), &alarm("The forge  says:\nno!")).unwrap();
        assert_eq!(one.cause, "polecat/town/toast/agent/the-forge-says-no-a9142f90");
        assert_eq!(
            (one.summary.as_str(), one.details.as_str(), one.severity.as_str()),
            ("The forge says: no!", "a\nb", "high")
        );
        assert_eq!(one.cause, request(&who(), &alarm("The forge says: no!")).unwrap().cause);
        assert_ne!(one.cause, request(&who(), &alarm("The forge says: no?")).unwrap().cause);
        assert!(request(&who(), &alarm(" \n")).is_err());
        assert_eq!(
            (one.related_kind.as_str(), one.related_name.as_str(), one.source.as_str()),
            ("Polecat", "toast", "agent")
        );
    }

    #[tokio::test]
    async fn without_a_witness_the_agent_is_told_so() {
        let answer = Alarms::new(who(), None).escalate(alarm("help")).await;
        assert!(!answer.ok && answer.message.contains("no witness"), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_witness_is_away_alarms_are_kept_once_each_and_the_queue_ends() {
        let alarms = alarms();
        let kept = alarms.escalate(alarm("help 0")).await;
        assert!(kept.ok && kept.message.contains("kept"), "{kept:?}");
        for n in 0..WAITING {
            assert!(alarms.escalate(alarm(&format!("help {n}"))).await.ok);
        }
        assert_eq!(alarms.queue.lock().waiting.len(), WAITING);
        let full = alarms.escalate(alarm("one more")).await;
        assert!(!full.ok && full.message.contains("not kept"), "{full:?}");
        assert_eq!(alarms.last_try(Instant::now()).await, WAITING);
    }

    #[tokio::test]
    async fn who_waits_learns_the_name_and_what_was_refused() {
        let alarms = alarms();
        let told = async |outcome: Result<RaiseResponse, Status>| {
            let settle = async {
                alarms.more.notified().await;
                alarms.settle(&alarms.first().unwrap(), &outcome);
            };
            tokio::join!(alarms.escalate(alarm("help")), settle).0
        };
        let made = RaiseResponse { namespace: "town".into(), name: "esc-1".into(), created: true };
        assert_eq!(
            told(Ok(made.clone())).await.message,
            "A person is told: escalation town/esc-1."
        );
        let again = told(Ok(RaiseResponse { created: false, ..made })).await;
        assert!(again.ok && again.message.contains("counted again"));
        let refused = told(Err(Status::invalid_argument("no such rig"))).await;
        assert_eq!(
            (refused.ok, refused.message.as_str()),
            (false, "the witness refuses it: no such rig")
        );
    }

    #[tokio::test]
    async fn what_is_said_again_while_it_is_on_its_way_is_told_too() {
        let alarms = alarms();
        let keep = |details: &str| {
            let alarm = Alarm { details: details.into(), ..alarm("help") };
            alarms.keep(request(&who(), &alarm).unwrap(), oneshot::channel().0).unwrap();
        };
        keep("at noon");
        let sent = alarms.first().unwrap();
        keep("still");
        alarms.settle(&sent, &Ok(RaiseResponse::default()));
        assert_eq!(alarms.first().unwrap().details, "still");
        keep("still");
        alarms.settle(&alarms.first().unwrap(), &Ok(RaiseResponse::default()));
        assert!(alarms.first().is_none(), "the same words are one alarm");
    }

    #[tokio::test]
    async fn an_attempt_has_a_bound_of_different_alarms() {
        let alarms = alarms();
        let tell = || oneshot::channel().0;
        for n in 0..DIFFERENT {
            alarms.keep(request(&who(), &alarm(&format!("{n}"))).unwrap(), tell()).unwrap();
            alarms.settle(&alarms.first().unwrap(), &Err(Status::invalid_argument("")));
        }
        assert!(alarms.keep(request(&who(), &alarm("new")).unwrap(), tell()).is_err());
        assert!(alarms.keep(request(&who(), &alarm("3")).unwrap(), tell()).is_ok());
    }

    proptest! {
        #[test]
        fn no_summary_makes_a_long_or_strange_cause(summary in ".{0,400}", details in ".{0,400}") {
            let alarm = Alarm { severity: Severity::Low, summary, details };
            if let Ok(request) = request(&who(), &alarm) {
                prop_assert!(request.cause.len() < 100);
                prop_assert!(request.cause.chars().all(|c| c.is_ascii_alphanumeric() || "/-".contains(c)));
                prop_assert!(request.summary.len() <= SUMMARY_MAX && !request.summary.contains('\n'));
            }
        }
    }
}
