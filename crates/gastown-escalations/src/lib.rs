//! Raises Escalations at witness-ctl when a person is needed, and settles them when the cause is
//! gone.
//!
//! A controller calls [`Escalations::update`] at each reconcile with the problems that an object
//! has now. What changed goes to an outbox and is sent in the background until witness-ctl has
//! accepted it, so a witness-ctl that is down delays an Escalation and blocks no reconcile. After a
//! restart every request is sent once more, which changes nothing there. What counts as a problem
//! is the controller's decision, not this crate's.

mod outbox;
mod request;

use std::sync::Arc;
use std::time::Duration;

use gastown_api::Severity;
use gastown_proto::v1::{RaiseRequest, SettleRequest};
use gastown_runtime::Runtime;
use gastown_runtime::grpc::Remote;
use gastown_runtime::shards::Shards;
use gastown_types::text;
use jiff::Timestamp;
use kube::{Resource, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::outbox::Outbox;
pub use crate::request::{DEADLINE, Request, send};

/// A summary is cut to this many characters.
pub const MAX_SUMMARY: usize = 1000;
/// How long the sender sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// The object that an Escalation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its kind.
    pub kind: String,
    /// Its namespace; the Escalation is made there.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its rig.
    pub rig: String,
}

impl Subject {
    /// The subject that stands for `object` of rig `rig`.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K, rig: &str) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        Self {
            kind: K::kind(&()).into_owned(),
            namespace,
            name: object.name_any(),
            rig: rig.to_owned(),
        }
    }

    /// The key of an Escalation about it: `kind/namespace/name/reason`. One problem of one object
    /// has one key.
    pub fn cause(&self, reason: &str) -> String {
        format!("{}/{}/{}/{reason}", self.kind.to_lowercase(), self.namespace, self.name)
    }
}

/// A problem that needs a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The reason, in CamelCase: it identifies the problem among those of the same object.
    pub reason: &'static str,
    /// How urgent it is.
    pub severity: Severity,
    /// One sentence.
    pub summary: String,
    /// What a person needs to know in addition to the summary; may be empty.
    pub details: String,
}

/// The Escalations that one controller raises and settles.
#[derive(Debug)]
pub struct Escalations {
    /// The controller that raises them.
    source: &'static str,
    /// witness-ctl, if there is one.
    witness: Option<Remote>,
    outbox: Mutex<Outbox>,
    changed: Notify,
    shards: Shards,
}

impl Escalations {
    /// The Escalations of controller `source`, sent to witness-ctl at `endpoint`
    /// (`https://host:port`) until the runtime stops; without an endpoint nothing is sent.
    pub fn start(runtime: &Runtime, endpoint: Option<&str>, source: &'static str) -> Arc<Self> {
        let args = &runtime.args;
        let remote = |uri: &str| Remote::new(uri, &args.tls_dir, &args.token_file, DEADLINE);
        let witness = endpoint.filter(|uri| !uri.is_empty()).map(remote);
        let (outbox, changed, shards) = (Mutex::default(), Notify::new(), runtime.shards.clone());
        let escalations = Arc::new(Self { source, witness, outbox, changed, shards });
        if escalations.witness.is_some() {
            let (stop, sender) = (runtime.stop.clone(), escalations.clone());
            tokio::spawn(async move { stop.run_until_cancelled(sender.send_due()).await });
        }
        escalations
    }

    /// Raises the problems that `subject` has now (`present`) and settles those of the known
    /// `reasons` that it does not have.
    pub fn update(&self, subject: &Subject, reasons: &[&'static str], present: &[Problem]) {
        if self.witness.is_none() {
            return;
        }
        let mut outbox = self.outbox.lock();
        outbox.begin(&subject.rig, self.shards.held(&subject.rig));
        let mut changed = false;
        for reason in reasons {
            let problem = present.iter().find(|problem| problem.reason == *reason);
            changed |= outbox.put(
                subject.cause(reason),
                problem.map_or_else(|| settle(subject, reason), |p| self.raise(subject, p)),
                Timestamp::now(),
            );
        }
        if changed {
            self.changed.notify_one();
        }
    }

    fn raise(&self, subject: &Subject, problem: &Problem) -> Request {
        Request::Raise(RaiseRequest {
            namespace: subject.namespace.clone(),
            rig: subject.rig.clone(),
            severity: problem.severity.as_str().to_owned(),
            cause: subject.cause(problem.reason),
            summary: text::line(&problem.summary, MAX_SUMMARY),
            details: problem.details.clone(),
            source: self.source.to_owned(),
            related_kind: subject.kind.clone(),
            related_namespace: subject.namespace.clone(),
            related_name: subject.name.clone(),
        })
    }

    /// Sends each request when it is due, forever.
    async fn send_due(&self) {
        let Some(witness) = &self.witness else { return };
        loop {
            let (due, next) = {
                let mut outbox = self.outbox.lock();
                // Those of other rigs are sent by the replica that works for them.
                outbox.keep(|rig| self.shards.held(rig).is_some());
                outbox.due(Timestamp::now())
            };
            for (cause, request) in &due {
                let answer = send(witness, request).await;
                let mut outbox = self.outbox.lock();
                match answer {
                    Ok(()) => outbox.sent(cause, request),
                    Err(error) => {
                        tracing::warn!(
                            cause,
                            error,
                            "witness-ctl did not accept a request; it is sent again"
                        );
                        outbox.failed(cause, request, Timestamp::now());
                    }
                }
            }
            if due.is_empty() {
                let wait = next.map_or(IDLE, |t| {
                    Duration::try_from(t.duration_since(Timestamp::now())).unwrap_or_default()
                });
                // Woken or not: the loop asks for what is due.
                let _ =
                    tokio::time::timeout(wait + Duration::from_millis(10), self.changed.notified())
                        .await;
            }
        }
    }
}

fn settle(subject: &Subject, reason: &str) -> Request {
    let (namespace, cause) = (subject.namespace.clone(), subject.cause(reason));
    let (rig, why) = (subject.rig.clone(), "the problem is over".to_owned());
    Request::Settle(SettleRequest { namespace, cause, why, rig })
}
