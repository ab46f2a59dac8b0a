//! Running programs of the host.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs a program to its end; an error holds its standard error.
pub async fn run(program: &str, arguments: &[&str]) -> Result<()> {
    output(program, arguments).await.map(drop)
}

/// Runs a program to its end and returns what it printed.
pub async fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    let out = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let out = out.with_context(|| format!("starting {program}"))?;
    if !out.status.success() {
        bail!(
            "{program} {} ended with {}: {}",
            arguments.join(" "),
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a program to its end with `input` on its standard input.
pub async fn feed(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.with_context(|| format!("writing to {program}"))?;
    }
    let out = child.wait_with_output().await?;
    if !out.status.success() {
        bail!(
            "{program} ended with {}: {}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}
