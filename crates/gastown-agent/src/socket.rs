//! The socket between the agent's side and the sidecar: one JSON object a line, one answer a
//! request.
//!
//! The folder of the socket is writable by both, so both ends read as from a stranger: lines are
//! bounded, unknown requests are refused, idle connections are closed, and nothing that is said
//! here is believed about the remote. An agent that speaks for its `gt run` can make its own report
//! wrong, take its own nudges, and nothing else.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gastown_core::report::SyncResult;
use gastown_types::CommitId;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::sync::{Alarms, Board};

/// The longest line.
pub const MAX_LINE: usize = 64 << 10;
/// Connections served at a time.
const MAX_CONNECTIONS: usize = 8;
/// A connection that says nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// What the agent's side asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// Carry the work branch now.
    Push,
    /// Also save the dirty tree.
    Checkpoint,
    /// As checkpoint, and say only then yes when the remote holds all.
    Finish,
    /// What the agent does; the answer may bring a nudge for it.
    Activity(Activity),
    /// A person is needed.
    Escalate(Alarm),
}

/// What `gt run` sees of its agent. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Activity {
    /// When it last did anything; 0 = nothing yet.
    pub last_event_ms: i64,
    /// The tool call that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<Tool>,
    /// It waits for a person.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub waiting: bool,
    /// CPU seconds that its container has used.
    pub cpu_seconds: f64,
    /// What came of nudges since the last report that was answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<Nudged>,
}

/// A tool call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tool {
    /// What it is.
    pub name: String,
    /// Since when.
    pub since_ms: i64,
}

/// Text for the agent, as if a person had written it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nudge {
    /// The sidecar's number for it. It comes again until its result is told.
    pub id: u64,
    /// The text.
    pub text: String,
}

/// What came of a nudge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nudged {
    /// Of the nudge.
    pub id: u64,
    /// The agent has it.
    pub ok: bool,
    /// Why not.
    pub message: String,
}

/// How much a person is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// When there is time.
    Low,
    /// Today.
    #[default]
    Medium,
    /// Soon: the task stands still.
    High,
    /// Now: something is being broken.
    Critical,
}

impl Severity {
    /// The protocol's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What the agent wants a person to know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// How much it matters.
    #[serde(default)]
    pub severity: Severity,
    /// One sentence.
    pub summary: String,
    /// All of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// What the sidecar answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether all that was asked for is on the remote.
    pub ok: bool,
    /// The work branch's commit on the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The snapshot's ref.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wip: Option<String>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<SyncResult>,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What to tell the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nudge: Option<Nudge>,
}

/// Who answers what is asked: git work has one worker, and nothing else waits for it.
#[derive(Clone)]
pub struct Desks {
    /// Pushes and checkpoints.
    pub git: mpsc::Sender<Asked>,
    /// Reports.
    pub board: Arc<Board>,
    /// Alarms.
    pub alarms: Arc<Alarms>,
}

/// A request and where its answer goes.
pub type Asked = (Request, oneshot::Sender<Answer>);

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The socket could not be reached, or broke.
    #[error("the sidecar's socket: {0}")]
    Io(#[from] std::io::Error),
    /// Nobody answered in time.
    #[error("the sidecar did not answer within {0:?}")]
    Silent(Duration),
    /// The answer makes no sense.
    #[error("the sidecar's answer makes no sense: {0}")]
    Garbled(String),
}

/// Reads one line of at most `max` bytes, without its end; `None` at the end of the stream.
pub async fn read_line<R: AsyncBufRead + Unpin>(
    from: &mut R,
    max: usize,
) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let chunk = from.fill_buf().await?;
        if chunk.is_empty() {
            return Ok((!line.is_empty()).then_some(line));
        }
        let (taken, ended) = match chunk.iter().position(|b| *b == b'\n') {
            Some(at) => (at, true),
            None => (chunk.len(), false),
        };
        if line.len() + taken > max {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("a line is longer than {max} bytes"),
            ));
        }
        line.extend_from_slice(&chunk[..taken]);
        from.consume(taken + usize::from(ended));
        if ended {
            return Ok(Some(line));
        }
    }
}

/// Makes the socket anew: a leftover of an earlier run, or whatever the agent put there, goes
/// first.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Accepts for ever and hands each request to whom it concerns.
pub async fn serve(listener: UnixListener, to: Desks) {
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let to = to.clone();
                tokio::spawn(async move {
                    if let Err(e) = converse(stream, &to).await {
                        tracing::debug!(error = %e, "a socket connection ended");
                    }
                    drop(seat);
                });
            }
            // Out of descriptors, say: the seats bound how many we hold, so it passes.
            Err(e) => {
                tracing::warn!(error = %e, "accept on the socket failed");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, to: &Desks) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let Ok(line) = tokio::time::timeout(IDLE, read_line(&mut read, MAX_LINE)).await else {
            return Ok(());
        };
        let Some(line) = line? else { return Ok(()) };
        let answer = match serde_json::from_slice::<Request>(&line) {
            Ok(Request::Activity(activity)) => {
                let nudge = to.board.heard(activity, crate::now_ms());
                Answer { ok: true, nudge, ..Answer::default() }
            }
            Ok(Request::Escalate(alarm)) => to.alarms.escalate(alarm).await,
            Ok(request) => carry(request, &to.git).await,
            Err(e) => Answer { message: format!("no such request: {e}"), ..Answer::default() },
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        write.write_all(&text).await?;
    }
}

async fn carry(request: Request, to: &mpsc::Sender<Asked>) -> Answer {
    let (reply, answer) = oneshot::channel();
    let ending = || Answer {
        reason: Some(SyncResult::Internal),
        message: "the sidecar is ending".into(),
        ..Answer::default()
    };
    if to.send((request, reply)).await.is_err() {
        return ending();
    }
    answer.await.unwrap_or_else(|_| ending())
}

/// Asks once and waits at most `patience` for the answer.
pub async fn ask(path: &Path, request: Request, patience: Duration) -> Result<Answer, SocketError> {
    let exchange = async {
        let stream = UnixStream::connect(path).await?;
        let (read, mut write) = stream.into_split();
        let mut text =
            serde_json::to_vec(&request).map_err(|e| SocketError::Garbled(e.to_string()))?;
        text.push(b'\n');
        write.write_all(&text).await?;
        let line = read_line(&mut BufReader::new(read), MAX_LINE).await?;
        let line = line.ok_or_else(|| SocketError::Garbled("it hung up".into()))?;
        serde_json::from_slice(&line).map_err(|e| SocketError::Garbled(e.to_string()))
    };
    tokio::time::timeout(patience, exchange).await.map_err(|_| SocketError::Silent(patience))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn desks(git: mpsc::Sender<Asked>) -> Desks {
        let alarms = Alarms::new(crate::sync::witness::Who::default(), None);
        Desks { git, board: Arc::new(Board::new(1)), alarms: Arc::new(alarms) }
    }

    #[test]
    fn the_wire_is_what_the_contract_says() {
        let text = serde_json::to_string(&Request::Finish).unwrap();
        assert_eq!(text, r#"{"op":"finish"}"#);
        let tool = Some(Tool { name: "Bash".into(), since_ms: 2 });
        let report = Request::Activity(Activity {
            last_event_ms: 1,
            tool,
            cpu_seconds: 0.5,
            ..Activity::default()
        });
        let wire = r#"{"op":"activity","lastEventMs":1,"tool":{"name":"Bash","sinceMs":2},"cpuSeconds":0.5}"#;
        assert_eq!(serde_json::to_string(&report).unwrap(), wire);
        assert_eq!(serde_json::from_str::<Request>(wire).unwrap(), report);
        let alarm = Request::Escalate(Alarm {
            severity: Severity::High,
            summary: "s".into(),
            details: String::new(),
        });
        assert_eq!(
            serde_json::to_string(&alarm).unwrap(),
            r#"{"op":"escalate","severity":"high","summary":"s"}"#
        );
        let no =
            Answer { reason: Some(SyncResult::PushRace), message: "m".into(), ..Answer::default() };
        assert_eq!(
            serde_json::to_string(&no).unwrap(),
            r#"{"ok":false,"reason":"PushRace","message":"m"}"#
        );
    }

    #[tokio::test]
    async fn requests_are_answered_in_turn_and_nonsense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (to, mut asked) = mpsc::channel::<Asked>(1);
        tokio::spawn(serve(bind(&path).unwrap(), desks(to)));
        tokio::spawn(async move {
            while let Some((request, reply)) = asked.recv().await {
                let _ = reply.send(Answer { ok: request == Request::Push, ..Answer::default() });
            }
        });
        let patience = Duration::from_secs(30);
        assert!(ask(&path, Request::Push, patience).await.unwrap().ok);
        assert!(!ask(&path, Request::Finish, patience).await.unwrap().ok);

        let (read, mut write) = UnixStream::connect(&path).await.unwrap().into_split();
        write.write_all(b"{\"op\":\"rm -rf\"}\n{\"op\":\"push\"}\n").await.unwrap();
        let mut read = BufReader::new(read);
        let refused = read_line(&mut read, MAX_LINE).await.unwrap().unwrap();
        assert!(String::from_utf8(refused).unwrap().contains("no such request"));
        let served = read_line(&mut read, MAX_LINE).await.unwrap().unwrap();
        assert_eq!(served, br#"{"ok":true}"#);
    }

    #[tokio::test]
    async fn reports_and_alarms_do_not_wait_for_git_work() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        // Nobody takes this one, as while a push hangs.
        let (to, _busy) = mpsc::channel::<Asked>(1);
        let desks = desks(to);
        tokio::spawn(serve(bind(&path).unwrap(), desks.clone()));
        let patience = Duration::from_secs(30);
        let activity = Activity { last_event_ms: 7, ..Activity::default() };
        assert!(ask(&path, Request::Activity(activity), patience).await.unwrap().ok);
        assert_eq!(desks.board.beat(10).last_event_ms, 7);
        let alarm = Alarm { summary: "help".into(), ..Alarm::default() };
        assert!(
            ask(&path, Request::Escalate(alarm), patience)
                .await
                .unwrap()
                .message
                .contains("no witness")
        );
    }

    #[tokio::test]
    async fn an_endless_line_ends_the_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (to, _asked) = mpsc::channel::<Asked>(1);
        tokio::spawn(serve(bind(&path).unwrap(), desks(to)));
        let (read, mut write) = UnixStream::connect(&path).await.unwrap().into_split();
        // The other side may close before all is written.
        let _ = write.write_all(&vec![b'x'; MAX_LINE + 2]).await;
        let end = read_line(&mut BufReader::new(read), MAX_LINE).await;
        assert!(matches!(end, Ok(None) | Err(_)));
    }

    #[tokio::test]
    async fn what_the_agent_put_in_the_sockets_place_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "kept").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        bind(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "kept");
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_parsers(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = serde_json::from_slice::<Request>(&bytes);
            let _ = serde_json::from_slice::<Answer>(&bytes);
        }

        #[test]
        fn requests_come_back_as_they_went(event in any::<i64>(), name in ".{0,40}", since in any::<i64>(), waiting in any::<bool>(), id in any::<u64>(), ok in any::<bool>()) {
            let results = vec![Nudged { id, ok, message: name.clone() }];
            let tool = Some(Tool { name: name.clone(), since_ms: since });
            let report = Request::Activity(Activity { last_event_ms: event, tool, waiting, cpu_seconds: 0.25, results });
            let alarm = Request::Escalate(Alarm { severity: Severity::Critical, summary: name.clone(), details: name });
            for request in [report, alarm] {
                let wire = serde_json::to_vec(&request).unwrap();
                prop_assert!(!wire.contains(&b'\n'));
                prop_assert_eq!(serde_json::from_slice::<Request>(&wire).unwrap(), request);
            }
        }
    }
}
