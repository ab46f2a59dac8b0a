//! The socket between the agent's side and the sidecar: one JSON object a line, one answer a request.
//!
//! The folder of the socket is writable by both, so both ends read as from a stranger: lines are bounded, unknown
//! requests are refused, idle connections are closed, and nothing that is said here is believed about the remote.

use std::path::Path;
use std::time::Duration;

use gastown_core::report::SyncResult;
use gastown_names::CommitId;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// The longest line.
pub const MAX_LINE: usize = 64 << 10;
/// Connections served at a time.
const MAX_CONNECTIONS: usize = 8;
/// A connection that says nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// What the agent's side asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// Carry the work branch now.
    Push,
    /// Also save the dirty tree.
    Checkpoint,
    /// As checkpoint, and say only then yes when the remote holds all.
    Finish,
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
pub async fn read_line<R: AsyncBufRead + Unpin>(from: &mut R, max: usize) -> std::io::Result<Option<Vec<u8>>> {
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
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("a line is longer than {max} bytes")));
        }
        line.extend_from_slice(&chunk[..taken]);
        from.consume(taken + usize::from(ended));
        if ended {
            return Ok(Some(line));
        }
    }
}

/// Makes the socket anew: a leftover of an earlier run, or whatever the agent put there, goes first.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Accepts for ever and hands each request to `to`.
pub async fn serve(listener: UnixListener, to: mpsc::Sender<Asked>) {
    let seats = std::sync::Arc::new(Semaphore::new(MAX_CONNECTIONS));
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

async fn converse(stream: UnixStream, to: &mpsc::Sender<Asked>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let Ok(line) = tokio::time::timeout(IDLE, read_line(&mut read, MAX_LINE)).await else { return Ok(()) };
        let Some(line) = line? else { return Ok(()) };
        let answer = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => relay(request, to).await,
            Err(e) => Answer { message: format!("no such request: {e}"), ..Answer::default() },
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        write.write_all(&text).await?;
    }
}

async fn relay(request: Request, to: &mpsc::Sender<Asked>) -> Answer {
    let (reply, answer) = oneshot::channel();
    let ending = || Answer { reason: Some(SyncResult::Internal), message: "the sidecar is ending".into(), ..Answer::default() };
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
        let mut text = serde_json::to_vec(&request).map_err(|e| SocketError::Garbled(e.to_string()))?;
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

    #[test]
    fn the_wire_is_what_the_contract_says() {
        let text = serde_json::to_string(&Request::Finish).unwrap();
        assert_eq!(text, r#"{"op":"finish"}"#);
        let no = Answer { reason: Some(SyncResult::PushRace), message: "m".into(), ..Answer::default() };
        assert_eq!(serde_json::to_string(&no).unwrap(), r#"{"ok":false,"reason":"PushRace","message":"m"}"#);
    }

    #[tokio::test]
    async fn requests_are_answered_in_turn_and_nonsense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (to, mut asked) = mpsc::channel::<Asked>(1);
        tokio::spawn(serve(bind(&path).unwrap(), to));
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
    async fn an_endless_line_ends_the_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (to, _asked) = mpsc::channel::<Asked>(1);
        tokio::spawn(serve(bind(&path).unwrap(), to));
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
    }
}
