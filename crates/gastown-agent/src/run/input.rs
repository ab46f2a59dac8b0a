//! The agent's standard input: the prompt, and then the nudges.

use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::mpsc;

use super::adapter::Launch;
use crate::socket::NudgeResult;

/// Nudges that wait for an agent that does not read its input.
const WAITING_MAX: usize = 4;

/// A nudge as it is written to the agent's input.
pub struct NudgeInput {
    /// The nudge's number.
    pub id: u64,
    /// The bytes to write.
    pub bytes: Vec<u8>,
}

/// Writes the prompt, and then the nudges that come, until the sender is dropped; then the input is
/// closed.
pub fn write_input(
    mut pipe: ChildStdin,
    launch: &Launch,
    results: mpsc::Sender<NudgeResult>,
) -> mpsc::Sender<NudgeInput> {
    let (sender, mut nudges) = mpsc::channel::<NudgeInput>(WAITING_MAX);
    let (prompt, keep_open) = (launch.stdin.clone(), launch.keep_stdin);
    tokio::spawn(async move {
        // An agent that does not read may close the pipe; its exit then shows whether it failed.
        let written = write(&mut pipe, &prompt).await;
        if written.is_err() || !keep_open {
            return;
        }
        while let Some(nudge) = nudges.recv().await {
            let written = write(&mut pipe, &nudge.bytes).await;
            let message = written
                .as_ref()
                .err()
                .map(|e| format!("writing to the agent's input: {e}"))
                .unwrap_or_default();
            // Full when the sidecar is gone, and with it the stream that the nudge came from.
            let _ = results.try_send(NudgeResult { id: nudge.id, ok: written.is_ok(), message });
        }
    });
    sender
}

async fn write(pipe: &mut ChildStdin, bytes: &[u8]) -> std::io::Result<()> {
    pipe.write_all(bytes).await?;
    pipe.flush().await
}
