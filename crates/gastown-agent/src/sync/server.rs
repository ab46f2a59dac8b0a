//! The sidecar's side of the socket: accepts connections and hands each request to its handler.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gastown_core::report::SyncResult;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_util::codec::LinesCodecError;

use super::escalations::Escalations;
use super::relay::Relay;
use crate::socket::{Answer, PendingRequest, Request, lines, to_line};

/// Connections served at a time.
const MAX_CONNECTIONS: usize = 8;
/// How often creating the socket is tried.
const BIND_TRIES: u32 = 100;
/// A connection without a request for this long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// The handlers of requests. Git work has one worker; no other request waits for it.
#[derive(Clone)]
pub struct Handlers {
    /// Pushes and checkpoints.
    pub git: mpsc::Sender<PendingRequest>,
    /// The agent's activity.
    pub relay: Arc<Relay>,
    /// Escalations.
    pub escalations: Arc<Escalations>,
}

/// Creates the socket. A file of an earlier run is deleted first. What the agent put in its place and
/// cannot be deleted at once, such as a folder, is moved out of the way.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    // The agent may put something there between the two steps, but not for ever.
    let mut last = None;
    for _ in 0..BIND_TRIES {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => {
                let aside = path.with_extension(format!("aside-{:016x}", fastrand::u64(..)));
                let _ = std::fs::rename(path, aside);
            }
            Ok(()) => {}
        }
        match UnixListener::bind(path) {
            Ok(listener) => return Ok(listener),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::other("the socket cannot be created")))
}

/// Accepts connections until it is cancelled.
pub async fn serve(listener: UnixListener, handlers: Handlers) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let handlers = handlers.clone();
                tokio::spawn(async move {
                    if let Err(e) = connection(stream, &handlers).await {
                        tracing::debug!(error = %e, "a socket connection ended");
                    }
                    drop(permit);
                });
            }
            // Such as no free descriptor: connections are bounded, so some will be free again.
            Err(e) => {
                tracing::warn!(error = %e, "accept on the socket failed");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, handlers: &Handlers) -> Result<(), LinesCodecError> {
    let (read, mut write) = stream.into_split();
    let mut requests = lines(read);
    while let Ok(Some(line)) = tokio::time::timeout(IDLE, requests.next()).await {
        let answer = match serde_json::from_str(&line?) {
            Ok(request) => handle(request, handlers).await,
            Err(e) => Answer { message: format!("unknown request: {e}"), ..Answer::default() },
        };
        write.write_all(&to_line(&answer)?).await?;
    }
    Ok(())
}

async fn handle(request: Request, handlers: &Handlers) -> Answer {
    match request {
        Request::Activity(activity) => {
            let nudge = handlers.relay.report(activity, crate::now_ms());
            Answer { ok: true, nudge, ..Answer::default() }
        }
        Request::Escalate(escalation) => handlers.escalations.escalate(escalation).await,
        Request::Push | Request::Checkpoint | Request::Finish => {
            wait_for_git(request, &handlers.git).await
        }
    }
}

async fn wait_for_git(request: Request, git: &mpsc::Sender<PendingRequest>) -> Answer {
    let (reply, answer) = oneshot::channel();
    let ending = || Answer {
        reason: Some(SyncResult::Internal),
        message: "the sidecar is ending".into(),
        ..Answer::default()
    };
    if git.send((request, reply)).await.is_err() {
        return ending();
    }
    answer.await.unwrap_or_else(|_| ending())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::{Activity, Escalation, MAX_LINE, send};

    const MAX_WAIT: Duration = Duration::from_secs(30);

    fn handlers(git: mpsc::Sender<PendingRequest>) -> Handlers {
        let escalations = Escalations::new(crate::sync::witness::Who::default(), None);
        Handlers { git, relay: Arc::new(Relay::new(1)), escalations: Arc::new(escalations) }
    }

    #[tokio::test]
    async fn requests_are_answered_in_order_and_unknown_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (git, mut pending) = mpsc::channel::<PendingRequest>(1);
        tokio::spawn(serve(bind(&path).unwrap(), handlers(git)));
        tokio::spawn(async move {
            while let Some((request, reply)) = pending.recv().await {
                let _ = reply.send(Answer { ok: request == Request::Push, ..Answer::default() });
            }
        });
        assert!(send(&path, &Request::Push, MAX_WAIT).await.unwrap().ok);
        assert!(!send(&path, &Request::Finish, MAX_WAIT).await.unwrap().ok);

        let (read, mut write) = UnixStream::connect(&path).await.unwrap().into_split();
        write.write_all(b"{\"op\":\"rm -rf\"}\n{\"op\":\"push\"}\n").await.unwrap();
        let mut answers = lines(read);
        let refused = answers.next().await.unwrap().unwrap();
        assert!(refused.contains("unknown request"));
        assert_eq!(answers.next().await.unwrap().unwrap(), r#"{"ok":true}"#);
    }

    #[tokio::test]
    async fn a_folder_or_a_link_in_the_place_of_the_socket_is_moved_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sync.sock");
        std::fs::create_dir_all(path.join("full/of")).unwrap();
        drop(bind(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/nowhere", &path).unwrap();
        let listener = bind(&path).unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(listener);
    }

    #[tokio::test]
    async fn activity_and_escalations_do_not_wait_for_git_work() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        // Nobody receives from it, as while a push hangs.
        let (git, _pending) = mpsc::channel::<PendingRequest>(1);
        let handlers = handlers(git);
        tokio::spawn(serve(bind(&path).unwrap(), handlers.clone()));
        let activity = Activity { last_event_ms: 7, ..Activity::default() };
        assert!(send(&path, &Request::Activity(activity), MAX_WAIT).await.unwrap().ok);
        assert_eq!(handlers.relay.heartbeat(10).last_event_ms, 7);
        let escalation = Escalation { summary: "help".into(), ..Escalation::default() };
        let answer = send(&path, &Request::Escalate(escalation), MAX_WAIT).await.unwrap();
        assert!(answer.message.contains("no witness"), "{answer:?}");
    }

    #[tokio::test]
    async fn an_endless_line_ends_the_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (git, _pending) = mpsc::channel::<PendingRequest>(1);
        tokio::spawn(serve(bind(&path).unwrap(), handlers(git)));
        let (read, mut write) = UnixStream::connect(&path).await.unwrap().into_split();
        // The other side may close before everything is written.
        let _ = write.write_all(&vec![b'x'; MAX_LINE + 2]).await;
        assert!(matches!(lines(read).next().await, None | Some(Err(_))));
    }

    #[tokio::test]
    async fn a_link_that_the_agent_put_in_the_sockets_place_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "kept").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        bind(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "kept");
    }
}
