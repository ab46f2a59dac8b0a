//! The agent's standard input: its prompt, and nudges after it.

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::mpsc;

use super::adapter::Launch;
use crate::socket::Nudged;

/// Nudges that wait for an agent which does not read.
const WAITING: usize = 4;

/// A nudge as the agent reads it.
pub struct Say {
    /// Its number.
    pub id: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Writes the prompt, and what is said after it until the sender is dropped; then the input is
/// closed.
pub fn feed(
    mut pipe: ChildStdin,
    launch: &Launch,
    results: mpsc::Sender<Nudged>,
) -> mpsc::Sender<Say> {
    let (to, mut more) = mpsc::channel::<Say>(WAITING);
    let (prompt, stays) = (launch.stdin.clone(), launch.keep_stdin);
    tokio::spawn(async move {
        // An agent that does not read closes the pipe; how it ends tells the rest.
        let first = write(&mut pipe, &prompt).await;
        if first.is_err() || !stays {
            return;
        }
        while let Some(say) = more.recv().await {
            let written = write(&mut pipe, &say.bytes).await;
            let message = written
                .as_ref()
                .err()
                .map(|e| format!("the agent's input: {e}"))
                .unwrap_or_default();
            // Full of results that nobody took: the sidecar is gone, and with it who asked.
            let _ = results.try_send(Nudged { id: say.id, ok: written.is_ok(), message });
        }
    });
    to
}

async fn write(pipe: &mut ChildStdin, bytes: &[u8]) -> std::io::Result<()> {
    pipe.write_all(bytes).await?;
    pipe.flush().await
}
