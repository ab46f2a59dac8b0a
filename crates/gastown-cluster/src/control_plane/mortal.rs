//! Children that cannot outlive this process, however it ends.
//!
//! The kernel kills a child when the thread that started it ends (`PR_SET_PDEATHSIG`); asking for
//! that between fork and exec is unsafe code, so util-linux's `setpriv` asks for it. Test threads
//! come and go, so one thread that lives as long as the process starts every child.

use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::{Context, Result};

struct Request {
    command: Command,
    reply: Sender<std::io::Result<Child>>,
}

static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();

/// Runs after the kernel was asked to kill this child with its parent. A parent that died before that
/// would not be noticed, so the child checks that it is still there.
const CHECK_PARENT: &str = r#"[ "$PPID" = "$1" ] || exit 1; shift; exec "$@""#;

/// A command that dies with the thread that starts it; pass it to [`spawn`].
pub fn command(program: &std::path::Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "--",
            "sh",
            "-c",
            CHECK_PARENT,
            "mortal",
            &std::process::id().to_string(),
        ])
        .arg(program);
    command
}

/// Starts a command on the thread that lives as long as this process.
pub fn spawn(command: Command) -> Result<Child> {
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = channel();
        // A failed start shows as a closed channel below.
        drop(thread::Builder::new().name("spawner".into()).spawn(move || serve(&inbox)));
        requests
    });
    let shown = format!("{command:?}");
    let (reply, replies) = channel();
    spawner
        .send(Request { command, reply })
        .ok()
        .context("the thread that starts children is gone")?;
    let child = replies.recv().context("the thread that starts children is gone")?;
    child.with_context(|| format!("starting {shown}"))
}

fn serve(inbox: &Receiver<Request>) {
    while let Ok(mut request) = inbox.recv() {
        // The caller may have been cancelled meanwhile; then the child is not wanted.
        if let Err(unwanted) = request.reply.send(request.command.spawn())
            && let Ok(mut child) = unwanted.0
        {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_gets_its_arguments_as_they_are() {
        let mut command = command(std::path::Path::new("printf"));
        let nasty = "it's $HOME \"quoted\" *";
        command.args(["%s", nasty]).stdout(std::process::Stdio::piped());
        let out = spawn(command).unwrap().wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), nasty);
    }

    #[test]
    fn an_orphan_does_not_start() {
        let mut command = Command::new("sh");
        // No process has pid 0, so this stands for a parent that is gone.
        command
            .args(["-c", CHECK_PARENT, "mortal", "0", "printf", "started"])
            .stdout(std::process::Stdio::piped());
        let out = spawn(command).unwrap().wait_with_output().unwrap();
        assert_eq!((out.status.code(), out.stdout), (Some(1), Vec::new()));
    }
}
