//! As process 1 somebody must reap what the agent orphans. Reaping all children would take the exit codes that the
//! rest of `gt run` waits for, so process 1 does nothing else: it starts `gt run` again as its child, hands SIGTERM
//! on, reaps, and ends as its child ended.

use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::signal::unix::{SignalKind, signal};

/// Set for the child.
pub const INNER: &str = "GASTOWN_INNER";

/// Whether this process is the one that reaps.
pub fn is_wanted() -> bool {
    std::process::id() == 1 && std::env::var_os(INNER).is_none()
}

/// Starts this program again and reaps until it ends.
pub async fn run() -> anyhow::Result<ExitCode> {
    // Both are watched before the child is there, so that no end is missed.
    let (mut term, mut child_ended) = (signal(SignalKind::terminate())?, signal(SignalKind::child())?);
    let child = Command::new(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(INNER, "1").spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    loop {
        tokio::select! {
            _ = term.recv() => {
                if let Some(pid) = pid {
                    kill_process(pid, Signal::TERM)?;
                }
            }
            _ = child_ended.recv() => {
                while let Ok(Some((ended, status))) = waitpid(None, WaitOptions::NOHANG) {
                    if Some(ended) == pid {
                        let code = status.exit_status().and_then(|c| u8::try_from(c).ok());
                        return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
                    }
                }
            }
        }
    }
}
