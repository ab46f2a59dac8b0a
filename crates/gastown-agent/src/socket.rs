//! The socket between the agent's side and the sidecar: its messages, and the client's side of it.
//! Both sides send one JSON object a line; each request has one answer.
//!
//! The agent can write to the folder of the socket, so both ends treat what they read as untrusted:
//! lines are bounded, unknown requests are refused, idle connections are closed, and nothing that
//! is sent here is believed about the remote. An agent that pretends to be its `gt run` can falsify
//! its own reports, take its own nudges, and nothing else.

use std::path::Path;
use std::time::Duration;

use gastown_core::report::SyncResult;
use gastown_types::CommitId;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};

/// Bytes of the longest line.
pub const MAX_LINE: usize = 64 << 10;

/// A request of the agent's side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// Push the work branch now.
    Push,
    /// Push the work branch, and save uncommitted changes.
    Checkpoint,
    /// As [`Request::Checkpoint`], but answer only when the remote holds everything, or retrying
    /// cannot help.
    Finish,
    /// What the agent does; the answer may hold a nudge for it.
    Activity(Activity),
    /// The agent needs a person.
    Escalate(Escalation),
}

/// What `gt run` sees of its agent. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Activity {
    /// When the agent last did anything; 0 = nothing yet.
    pub last_event_ms: i64,
    /// The tool call that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<Tool>,
    /// It waits for a person.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub waiting: bool,
    /// CPU seconds that its container has used.
    pub cpu_seconds: f64,
    /// The results of nudges since the last report that was answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<NudgeResult>,
    /// The tool calls that ended since the last report that was answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Call>,
}

/// A tool call that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Call {
    /// The tool's name.
    pub name: String,
    /// When it began.
    pub begin_ms: i64,
    /// When it ended.
    pub end_ms: i64,
}

/// A tool call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tool {
    /// The tool's name, with the agent's description of the call.
    pub name: String,
    /// When the call began.
    pub since_ms: i64,
}

/// Text for the agent, as if a person had written it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nudge {
    /// The sidecar's number for it. The sidecar sends the nudge again until it has its result.
    pub id: u64,
    /// The text.
    pub text: String,
}

/// Whether a nudge reached the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NudgeResult {
    /// The nudge's number.
    pub id: u64,
    /// The text was written to the agent's input.
    pub ok: bool,
    /// Why it was not.
    pub message: String,
}

/// How urgently a person is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// When there is time
    Low,
    /// Today
    #[default]
    Medium,
    /// Soon: the task cannot go on
    High,
    /// Now: something is being broken
    Critical,
}

impl Severity {
    /// The severity as the witness's API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// A problem that the agent reports to a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    /// How urgent it is.
    #[serde(default)]
    pub severity: Severity,
    /// The problem, in one sentence.
    pub summary: String,
    /// Everything that helps to judge it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// The sidecar's answer to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether the request succeeded; for git work: the remote holds everything.
    pub ok: bool,
    /// The work branch's commit on the remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The snapshot's ref on the remote, when one was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wip: Option<String>,
    /// Why the request failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<SyncResult>,
    /// The failure, or the result, in one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Text for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nudge: Option<Nudge>,
}

/// A request that waits for the sidecar's git work, and where its answer goes.
pub type PendingRequest = (Request, oneshot::Sender<Answer>);

/// A request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The socket cannot be reached, or the connection broke.
    #[error("the sidecar's socket: {0}")]
    Io(#[from] std::io::Error),
    /// There was no answer in time.
    #[error("the sidecar did not answer within {0:?}")]
    TimedOut(Duration),
    /// The answer is not valid.
    #[error("the sidecar's answer is not valid: {0}")]
    InvalidAnswer(String),
}

impl From<LinesCodecError> for SocketError {
    fn from(e: LinesCodecError) -> Self {
        match e {
            LinesCodecError::MaxLineLengthExceeded => Self::InvalidAnswer(e.to_string()),
            LinesCodecError::Io(e) => Self::Io(e),
        }
    }
}

/// The lines of one direction of a connection. A line that is longer than [`MAX_LINE`], or not
/// UTF-8, is an error, after which the connection is of no use.
pub fn lines<R: tokio::io::AsyncRead>(from: R) -> FramedRead<R, LinesCodec> {
    FramedRead::new(from, LinesCodec::new_with_max_length(MAX_LINE))
}

/// Sends one request and waits for its answer, at most `max_wait`.
pub async fn send(
    path: &Path,
    request: &Request,
    max_wait: Duration,
) -> Result<Answer, SocketError> {
    let exchange = async {
        let (read, mut write) = UnixStream::connect(path).await?.into_split();
        write.write_all(&to_line(request)?).await?;
        let line = lines(read).next().await.transpose()?;
        let line =
            line.ok_or_else(|| SocketError::InvalidAnswer("the connection was closed".to_owned()))?;
        serde_json::from_str(&line).map_err(|e| SocketError::InvalidAnswer(e.to_string()))
    };
    tokio::time::timeout(max_wait, exchange).await.map_err(|_| SocketError::TimedOut(max_wait))?
}

/// A message as a line of JSON.
pub fn to_line<T: Serialize>(message: &T) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_have_the_documented_wire_format() {
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
        let escalation = Request::Escalate(Escalation {
            severity: Severity::High,
            summary: "s".into(),
            details: String::new(),
        });
        assert_eq!(
            serde_json::to_string(&escalation).unwrap(),
            r#"{"op":"escalate","severity":"high","summary":"s"}"#
        );
        let failed =
            Answer { reason: Some(SyncResult::PushRace), message: "m".into(), ..Answer::default() };
        assert_eq!(
            serde_json::to_string(&failed).unwrap(),
            r#"{"ok":false,"reason":"PushRace","message":"m"}"#
        );
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_parsers(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = serde_json::from_slice::<Request>(&bytes);
            let _ = serde_json::from_slice::<Answer>(&bytes);
        }

        #[test]
        fn every_request_survives_serialization(event in any::<i64>(), name in ".{0,40}", since in any::<i64>(), waiting in any::<bool>(), id in any::<u64>(), ok in any::<bool>()) {
            let results = vec![NudgeResult { id, ok, message: name.clone() }];
            let tool = Some(Tool { name: name.clone(), since_ms: since });
            let calls = vec![Call { name: name.clone(), begin_ms: since, end_ms: event }];
            let report = Request::Activity(Activity { last_event_ms: event, tool, waiting, cpu_seconds: 0.25, results, calls });
            let escalation = Request::Escalate(Escalation { severity: Severity::Critical, summary: name.clone(), details: name });
            for request in [report, escalation] {
                let wire = serde_json::to_vec(&request).unwrap();
                prop_assert!(!wire.contains(&b'\n'));
                prop_assert_eq!(serde_json::from_slice::<Request>(&wire).unwrap(), request);
            }
        }
    }
}
