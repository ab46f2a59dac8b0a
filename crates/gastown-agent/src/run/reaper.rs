//! Somebody must reap what the agent orphans, and nobody else may: reaping all children takes the
//! exit codes that the rest of `gt run` waits for. So the first process does nothing else. It
//! starts `gt run` again as its child, hands SIGTERM on, reaps (as a subreaper, so that it also
//! works where process 1 is another), and ends as its child ended.

use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Set for the child.
const INNER: &str = "GASTOWN_INNER";

/// Whether this process is the one that reaps.
pub fn is_wanted() -> bool {
    std::env::var_os(INNER).is_none()
}

/// The child ends with the one that reaps: a SIGKILL leaves nobody behind to write in its place.
pub fn bind_to_parent() -> std::io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Starts this program again and reaps until it ends.
pub async fn run() -> anyhow::Result<ExitCode> {
    // Both are watched before the child is there, so that no end is missed.
    let (mut term, mut child_ended) =
        (signal(SignalKind::terminate())?, signal(SignalKind::child())?);
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INNER, "1")
        .spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    loop {
        tokio::select! {
            _ = term.recv() => {
                if let Some(pid) = pid {
                    kill_process(pid, Signal::TERM)?;
                }
            }
            _ = child_ended.recv() => {
                // Any child: the agent and its orphans are in other process groups.
                while let Ok(Some((ended, status))) = wait(WaitOptions::NOHANG) {
                    if Some(ended) == pid {
                        let code = status.exit_status().and_then(|c| u8::try_from(c).ok());
                        return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
                    }
                }
            }
        }
    }
}
