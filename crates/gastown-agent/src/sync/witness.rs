//! The stream to witness-ctl: heartbeats up, commands down, opened again whenever it ends. The git
//! work waits for nothing here.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gastown_grpc::{AuthChannel, Remote};
pub use gastown_grpc::{Ca, Holder};
use gastown_proto::v1::command::What;
use gastown_proto::v1::witness_client::WitnessClient;
use gastown_proto::v1::{Command, Heartbeat, RaiseRequest, RaiseResponse};
use gastown_types::text;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::relay::{Relay, Urgency};
use crate::socket::{self, Answer, PendingRequest};

/// The shortest pause between two heartbeats.
const FASTEST: Duration = Duration::from_secs(1);
/// The pause between heartbeats while the agent is making progress; a cluster has many agents.
const PROGRESS: Duration = Duration::from_secs(5);
/// The longest pause between two heartbeats.
const SLOWEST: Duration = Duration::from_secs(30);
/// The timeout of connecting, and of the witness's first answer.
const ANSWER: Duration = Duration::from_secs(15);
/// The timeout of one attempt to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// The timeout of a call that is not a stream.
const CALL: Duration = Duration::from_secs(10);
/// A stream that lasted this long worked: the next pause is the shortest again.
const GOOD: Duration = Duration::from_secs(30);
/// The longest pause between two attempts, before jitter.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// A checkpoint that takes longer is reported as failed, though it continues.
const CHECKPOINT: Duration = Duration::from_mins(5);
/// Checkpoints that wait.
const CHECKPOINTS: usize = 16;

/// How the witness is reached.
#[derive(Clone, Debug)]
pub struct Witness {
    /// `https://witness-ctl.<namespace>.svc:9443`; the host is a name in its certificate.
    pub endpoint: String,
    /// The CA's certificate.
    pub ca: Ca,
    /// The file of the projected token, which the kubelet rotates.
    pub token_file: PathBuf,
    /// The agent's rig: one of the replicas works for it.
    pub rig: String,
    /// Which of them that is.
    pub holder: Holder,
}

/// The attempt that the agent works on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// The Polecat's namespace.
    pub namespace: String,
    /// The Polecat.
    pub polecat: String,
    /// The Polecat's rig.
    pub rig: String,
    /// The attempt's number, from 1.
    pub attempt: u32,
}

impl Witness {
    /// A client with a connection of its own.
    async fn client(&self) -> Result<WitnessClient<AuthChannel>, Status> {
        let remote = Remote::with_ca(&self.endpoint, self.ca.clone(), &self.token_file, ANSWER)
            .with_holder(&self.holder);
        let connected = timeout(ANSWER, remote.connect(&self.rig, CONNECT))
            .await
            .map_err(|_| Status::deadline_exceeded("no connection in time"))?;
        let channel = connected.map_err(|e| Status::unavailable(chain(&e)))?;
        Ok(WitnessClient::new(channel).max_decoding_message_size(64 << 10))
    }

    /// Raises an escalation.
    pub async fn raise(&self, request: RaiseRequest) -> Result<RaiseResponse, Status> {
        let call = async {
            let mut client = self.client().await?;
            Ok(client.raise(request).await?.into_inner())
        };
        timeout(ANSWER + CALL, call)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
    }
}

/// An error with its sources.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut at = e.source();
    while let Some(below) = at {
        let source = below.to_string();
        if !text.contains(&source) {
            text.push_str(": ");
            text.push_str(&source);
        }
        at = below.source();
    }
    text
}

/// Pauses that double, each drawn at random between its half and its whole: `backon` would add up to
/// another whole.
#[derive(Debug)]
pub struct Backoff {
    length: Duration,
}

impl Default for Backoff {
    /// The first is half a second to one.
    fn default() -> Self {
        Self { length: Duration::from_secs(1) }
    }
}

impl Backoff {
    /// How long to wait now; `drawn` is in 0 … 1.
    pub fn next(&mut self, drawn: f64) -> Duration {
        let whole = self.length;
        self.length = (whole * 2).min(PAUSE_MAX);
        whole.mul_f64(0.5 + 0.5 * drawn.clamp(0.0, 1.0))
    }
}

/// Keeps a stream to the witness open.
pub struct Link {
    /// The witness.
    pub witness: Witness,
    /// The attempt.
    pub who: Who,
    /// The source of heartbeats, and where nudges go.
    pub relay: Arc<Relay>,
    /// The worker that saves the working tree.
    pub git: mpsc::Sender<PendingRequest>,
    /// Has the link send a last heartbeat, and end.
    pub finish: CancellationToken,
}

impl Link {
    /// Opens the stream again whenever it ends, until it is to finish.
    pub async fn run(self) {
        let mut backoff = Backoff::default();
        // A replica that another one names is asked at once, but not the third in a row.
        let (mut is_away, mut was_sent_on) = (false, false);
        loop {
            let (began, asked) = (Instant::now(), self.witness.holder.address(&self.witness.rig));
            let ended = self.attach().await;
            if self.finish.is_cancelled() {
                return;
            }
            if began.elapsed() >= GOOD {
                (backoff, is_away) = (Backoff::default(), false);
            }
            match &ended {
                Ok(()) => tracing::debug!("the witness ended the stream"),
                Err(e) if is_away => {
                    tracing::debug!(error = %e, "the witness still cannot be reached");
                }
                Err(e) => {
                    tracing::warn!(error = %e, "the witness cannot be reached; the work continues without it");
                }
            }
            let to = self.witness.holder.address(&self.witness.rig);
            was_sent_on = to.is_some() && to != asked && !was_sent_on;
            if was_sent_on {
                continue;
            }
            is_away |= ended.is_err();
            tokio::select! {
                () = sleep(backoff.next(fastrand::f64())) => {}
                () = self.finish.cancelled() => return,
            }
        }
    }

    /// Opens one stream and returns when it ends.
    pub async fn attach(&self) -> Result<(), Status> {
        let mut client = self.witness.client().await?;
        let (up, beats) = mpsc::channel(1);
        let stream = self.relay.begin_stream();
        let mut last = self.first_heartbeat();
        // The channel is new and empty.
        let _ = up.try_send(last.clone());
        let attached = timeout(ANSWER, client.attach(ReceiverStream::new(beats))).await;
        let mut down = attached
            .map_err(|_| Status::deadline_exceeded("the witness does not answer"))??
            .into_inner();
        tracing::info!(endpoint = self.witness.endpoint, "attached to the witness");
        // It ends with the stream: the next one cannot use its results.
        let mut helper = JoinSet::new();
        let (save, wanted) = mpsc::channel(CHECKPOINTS);
        helper.spawn(checkpoints(wanted, self.git.clone(), self.relay.clone(), stream));
        let mut sent = Instant::now();
        loop {
            let due = sent + pace(self.relay.urgency(&last));
            tokio::select! {
                command = down.message() => match command? {
                    Some(command) => self.handle(stream, command, &save),
                    None => return Ok(()),
                },
                () = self.relay.changed() => {}
                () = self.finish.cancelled() => {
                    // Blocked, or closed: then nobody has it.
                    let _ = up.send(self.relay.heartbeat(crate::now_ms())).await;
                    drop(up);
                    // The witness ends the stream when it has read all.
                    while let Ok(Some(_)) = down.message().await {}
                    return Ok(());
                }
                () = sleep_until(due) => {
                    sent = Instant::now();
                    // Full: the connection is blocked at the moment, and a later heartbeat holds
                    // the same.
                    match up.try_reserve() {
                        Ok(free) => {
                            last = self.relay.heartbeat(crate::now_ms());
                            free.send(last.clone());
                        }
                        Err(mpsc::error::TrySendError::Full(())) => {}
                        Err(mpsc::error::TrySendError::Closed(())) => return Ok(()),
                    }
                }
            }
        }
    }

    fn first_heartbeat(&self) -> Heartbeat {
        let Who { namespace, polecat, rig, attempt } = self.who.clone();
        Heartbeat { namespace, polecat, rig, attempt, ..self.relay.heartbeat(crate::now_ms()) }
    }

    fn handle(&self, stream: u64, command: Command, save: &mpsc::Sender<(u64, String)>) {
        let number = command.number;
        match command.what {
            Some(What::Nudge(text)) => {
                tracing::info!(number, "the witness nudges the agent");
                self.relay.nudge(stream, number, &text);
            }
            Some(What::Checkpoint(why)) => {
                if save.try_send((number, why)).is_err() {
                    self.relay.add_result(
                        stream,
                        number,
                        false,
                        "too many checkpoints wait already",
                    );
                }
            }
            None => self.relay.add_result(
                stream,
                number,
                false,
                "this version does not know the command",
            ),
        }
    }
}

fn pace(urgency: Urgency) -> Duration {
    match urgency {
        Urgency::Change => FASTEST,
        Urgency::Progress => PROGRESS,
        Urgency::None => SLOWEST,
    }
}

/// Has the git worker save a checkpoint for each command; commands that came meanwhile share one.
async fn checkpoints(
    mut wanted: mpsc::Receiver<(u64, String)>,
    git: mpsc::Sender<PendingRequest>,
    relay: Arc<Relay>,
    stream: u64,
) {
    let mut numbers = Vec::new();
    while wanted.recv_many(&mut numbers, CHECKPOINTS).await > 0 {
        let why = numbers.last().map(|(_, why)| text::truncate(why, 200)).unwrap_or_default();
        tracing::info!(why, "the witness asks for a checkpoint");
        let (reply, answer) = oneshot::channel();
        let asked = async {
            git.send((socket::Request::Checkpoint, reply)).await.ok()?;
            answer.await.ok()
        };
        let (ok, message) = match timeout(CHECKPOINT, asked).await {
            Ok(Some(answer)) => (answer.ok, describe(&answer)),
            Ok(None) => (false, "the pod is ending and saves its work".to_owned()),
            Err(_) => (false, format!("not saved within {} s", CHECKPOINT.as_secs())),
        };
        for (number, _) in numbers.drain(..) {
            relay.add_result(stream, number, ok, &message);
        }
    }
}

/// An answer in a sentence: what the remote holds, and why saving failed.
fn describe(answer: &Answer) -> String {
    let commit = answer
        .commit
        .as_ref()
        .map_or_else(|| "no commits yet".to_owned(), |c| format!("commit {c}"));
    let wip =
        answer.wip.as_ref().map(|w| format!(", uncommitted changes in {w}")).unwrap_or_default();
    if answer.ok {
        format!("the remote holds {commit}{wip}")
    } else {
        format!("not saved: {}; the remote holds {commit}{wip}", answer.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_maximum_and_have_jitter() {
        let mut backoff = Backoff::default();
        let whole: Vec<u64> = (0..8).map(|_| backoff.next(1.0).as_secs()).collect();
        assert_eq!(whole, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.next(0.0), Duration::from_secs(30));
        assert_eq!(backoff.next(f64::INFINITY), Duration::from_mins(1));
    }

    #[test]
    fn an_answer_names_what_the_remote_holds() {
        let commit: gastown_types::CommitId = "b".repeat(40).parse().unwrap();
        let mut answer = Answer {
            ok: true,
            commit: Some(commit.clone()),
            wip: Some("refs/w".into()),
            ..Answer::default()
        };
        assert_eq!(
            describe(&answer),
            format!("the remote holds commit {commit}, uncommitted changes in refs/w")
        );
        (answer.ok, answer.wip, answer.message) = (false, None, "no route".into());
        assert_eq!(
            describe(&answer),
            format!("not saved: no route; the remote holds commit {commit}")
        );
        assert_eq!(
            describe(&Answer { ok: true, ..Answer::default() }),
            "the remote holds no commits yet"
        );
    }

    #[tokio::test]
    async fn commands_that_came_meanwhile_share_one_checkpoint() {
        let (git, mut asked) = mpsc::channel::<PendingRequest>(1);
        let relay = Arc::new(Relay::new(1));
        let stream = relay.begin_stream();
        let (save, wanted) = mpsc::channel(CHECKPOINTS);
        for number in 1..=3 {
            save.try_send((number, "quiet".to_owned())).unwrap();
        }
        drop(save);
        let worker = tokio::spawn(checkpoints(wanted, git, relay.clone(), stream));
        let (request, reply) = asked.recv().await.unwrap();
        assert_eq!(request, socket::Request::Checkpoint);
        reply.send(Answer { ok: true, ..Answer::default() }).unwrap();
        worker.await.unwrap();
        assert!(asked.recv().await.is_none(), "one checkpoint is enough");
        let results = relay.heartbeat(0).results;
        assert_eq!(
            results.iter().map(|r| (r.number, r.ok)).collect::<Vec<_>>(),
            [(1, true), (2, true), (3, true)]
        );
    }

    #[tokio::test]
    async fn a_checkpoint_of_a_pod_that_ends_has_a_result() {
        let (git, asked) = mpsc::channel::<PendingRequest>(1);
        drop(asked);
        let relay = Arc::new(Relay::new(1));
        let stream = relay.begin_stream();
        let (save, wanted) = mpsc::channel(CHECKPOINTS);
        save.try_send((1, String::new())).unwrap();
        drop(save);
        checkpoints(wanted, git, relay.clone(), stream).await;
        let results = relay.heartbeat(0).results;
        assert_eq!(
            (results[0].ok, results[0].message.as_str()),
            (false, "the pod is ending and saves its work")
        );
    }
}
