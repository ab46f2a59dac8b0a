//! What several commands need: the workspace's folder, running programs, installing tools.

use std::process::Command;

use anyhow::{Context, Result, bail};
use gastown_toolchain::host;

pub use xtask::root;

/// The cargo that started us, so that a toolchain override holds for what we start too.
pub fn cargo() -> Command {
    xtask::cargo::command()
}

/// Runs a program to its end with our own output. An error names the whole command.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("starting {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

/// Runs a program to its end and returns what it printed; an error holds what it wrote to
/// standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let out = command.output().with_context(|| format!("starting {shown}"))?;
    if !out.status.success() {
        bail!("{shown} ended with {}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Whether a program is on the search path.
pub fn has(program: &str) -> bool {
    host::find(program).is_some()
}

pub use host::need_debian;
