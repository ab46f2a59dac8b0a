//! The first process of `gt run`, which reaps the processes that the agent orphans.
//!
//! The rest of `gt run` cannot do that: reaping every child takes the exit codes that it waits for.
//! So the first process does nothing else. It starts `gt run` again as its child, forwards SIGTERM,
//! reaps (as a subreaper, so that it also works when it is not process 1), and ends with the exit
//! code of its child.

use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

/// The variable that is set for the child.
const INNER: &str = "GASTOWN_INNER";

/// Whether this process is the one that reaps.
pub fn is_wanted() -> bool {
    std::env::var_os(INNER).is_none()
}

/// Has the kernel kill this process when its parent ends, so that nothing of `gt run` outlives a
/// SIGKILL of the first process.
pub fn bind_to_parent() -> std::io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Starts this program again and reaps orphans until it ends.
pub async fn run() -> anyhow::Result<ExitCode> {
    // Both handlers are there before the child is, so that no signal is missed.
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
