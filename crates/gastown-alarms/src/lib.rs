//! Tells witness-ctl of trouble that a person is needed for, and takes it back when it is over.
//!
//! A controller says, each time it looks at an object, what troubles it ([`Alarms::keep`]); what
//! that changes is told beside its work, until the witness has it. A witness that is away delays a
//! word and keeps nobody from working. After a restart everything is told once more, which changes
//! nothing there. This crate knows how to tell; what is trouble is the controller's to say.

mod board;
mod call;

use std::sync::Arc;
use std::time::Duration;

use gastown_api::Severity;
use gastown_proto::v1::{RaiseRequest, SettleRequest};
use gastown_runtime::Runtime;
use gastown_runtime::grpc::Remote;
use jiff::Timestamp;
use kube::{Resource, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::board::Board;
pub use crate::call::{Call, DEADLINE, call};

/// Words of a summary beyond this many characters are cut.
pub const MAX_SUMMARY: usize = 1000;
/// How long the teller sleeps when there is nothing to tell.
const IDLE: Duration = Duration::from_secs(3600);

/// What an alarm is about.
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
    /// This object, of a rig.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K, rig: &str) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        Self {
            kind: K::kind(&()).into_owned(),
            namespace,
            name: object.name_any(),
            rig: rig.to_owned(),
        }
    }

    /// The cause of an alarm about it: the same trouble of the same object has the same.
    pub fn cause(&self, word: &str) -> String {
        format!("{}/{}/{}/{word}", self.kind.to_lowercase(), self.namespace, self.name)
    }
}

/// Something that a person is needed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What tells it from other trouble of the same object, in one word.
    pub cause: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence.
    pub summary: String,
    /// What a person needs besides; may be empty.
    pub details: String,
}

/// The alarms of one controller.
#[derive(Debug)]
pub struct Alarms {
    /// Who raises them.
    source: &'static str,
    /// witness-ctl, if there is one.
    witness: Option<Remote>,
    board: Mutex<Board>,
    news: Notify,
}

impl Alarms {
    /// The alarms of the controller `source`, told to the witness at `endpoint`
    /// (`https://host:port`) until the runtime stops; without an endpoint nobody is told.
    pub fn start(runtime: &Runtime, endpoint: Option<&str>, source: &'static str) -> Arc<Self> {
        let args = &runtime.args;
        let remote = |uri: &str| Remote::new(uri, &args.tls_dir, &args.token_file, DEADLINE);
        let witness = endpoint.filter(|uri| !uri.is_empty()).map(remote);
        let alarms =
            Arc::new(Self { source, witness, board: Mutex::default(), news: Notify::new() });
        if alarms.witness.is_some() {
            let (stop, telling) = (runtime.stop.clone(), alarms.clone());
            tokio::spawn(async move { stop.run_until_cancelled(telling.tell()).await });
        }
        alarms
    }

    /// Says how it stands with a subject: `present` is what troubles it now, of all the `causes`
    /// that are known for it.
    pub fn keep(&self, subject: &Subject, causes: &[&'static str], present: &[Trouble]) {
        if self.witness.is_none() {
            return;
        }
        let mut board = self.board.lock();
        let mut news = false;
        for word in causes {
            let trouble = present.iter().find(|t| t.cause == *word);
            news |= board.want(
                subject.cause(word),
                trouble.map_or_else(|| settle(subject, word), |t| self.raise(subject, t)),
                Timestamp::now(),
            );
        }
        if news {
            self.news.notify_one();
        }
    }

    fn raise(&self, subject: &Subject, trouble: &Trouble) -> Call {
        Call::Raise(RaiseRequest {
            namespace: subject.namespace.clone(),
            rig: subject.rig.clone(),
            severity: trouble.severity.as_str().to_owned(),
            cause: subject.cause(trouble.cause),
            summary: trouble.summary.chars().take(MAX_SUMMARY).collect(),
            details: trouble.details.clone(),
            source: self.source.to_owned(),
            related_kind: subject.kind.clone(),
            related_namespace: subject.namespace.clone(),
            related_name: subject.name.clone(),
        })
    }

    /// Tells what is due, for ever.
    async fn tell(&self) {
        let Some(witness) = &self.witness else { return };
        loop {
            let (due, next) = self.board.lock().due(Timestamp::now());
            for (cause, what) in &due {
                let told = call(witness, what).await;
                let mut board = self.board.lock();
                match told {
                    Ok(()) => board.told(cause, what),
                    Err(error) => {
                        tracing::warn!(cause, error, "the witness was not told");
                        board.failed(cause, what, Timestamp::now());
                    }
                }
            }
            if due.is_empty() {
                let wait = next.map_or(IDLE, |t| {
                    Duration::try_from(t.duration_since(Timestamp::now())).unwrap_or_default()
                });
                // Woken or not: what is due is asked for above.
                let _ =
                    tokio::time::timeout(wait + Duration::from_millis(10), self.news.notified())
                        .await;
            }
        }
    }
}

fn settle(subject: &Subject, word: &str) -> Call {
    let (namespace, cause) = (subject.namespace.clone(), subject.cause(word));
    Call::Settle(SettleRequest { namespace, cause, why: "it is over".to_owned() })
}
