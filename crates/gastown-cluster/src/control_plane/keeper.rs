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

struct Order {
    command: Command,
    answer: Sender<std::io::Result<Child>>,
}

static KEEPER: OnceLock<Sender<Order>> = OnceLock::new();

/// Run when the kernel has been told to kill: had the parent died before that, nobody would, so it
/// must still be there.
const GO_ON: &str = r#"[ "$PPID" = "$1" ] || exit 1; shift; exec "$@""#;

/// A command that dies with the thread that starts it; give it to [`spawn`].
pub fn mortal(program: &std::path::Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "--",
            "sh",
            "-c",
            GO_ON,
            "keeper",
            &std::process::id().to_string(),
        ])
        .arg(program);
    command
}

/// Starts a command on the thread that lives as long as this process.
pub fn spawn(command: Command) -> Result<Child> {
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = channel();
        // A failed start shows as a closed channel below.
        drop(thread::Builder::new().name("keeper".into()).spawn(move || keep(&inbox)));
        orders
    });
    let shown = format!("{command:?}");
    let (answer, answered) = channel();
    keeper
        .send(Order { command, answer })
        .ok()
        .context("the thread that starts children is gone")?;
    let child = answered.recv().context("the thread that starts children is gone")?;
    child.with_context(|| format!("starting {shown}"))
}

fn keep(inbox: &Receiver<Order>) {
    while let Ok(mut order) = inbox.recv() {
        // Whoever asked may have been cancelled meanwhile; then the child is not wanted.
        if let Err(unwanted) = order.answer.send(order.command.spawn())
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
        let mut command = mortal(std::path::Path::new("printf"));
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
            .args(["-c", GO_ON, "keeper", "0", "printf", "started"])
            .stdout(std::process::Stdio::piped());
        let out = spawn(command).unwrap().wait_with_output().unwrap();
        assert_eq!((out.status.code(), out.stdout), (Some(1), Vec::new()));
    }
}
