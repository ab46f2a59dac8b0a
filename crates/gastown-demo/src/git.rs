//! Running git on repositories of our own.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// Runs git in `dir` without the machine's own configuration and returns its output.
pub async fn git(dir: &Path, args: &[&str]) -> Result<Vec<u8>> {
    let mut command = Command::new("git");
    command.current_dir(dir).args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0");
    for role in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{role}_NAME"), "Demo")
            .env(format!("GIT_{role}_EMAIL"), "demo@gastown.invalid");
        // Fixed, so that the default project has the same commits everywhere.
        command.env(format!("GIT_{role}_DATE"), "2025-01-01T00:00:00Z");
    }
    let out = command.output().await.context("git is needed")?;
    if !out.status.success() {
        bail!("git {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(out.stdout)
}

/// Runs git as [`git`] does and returns its output as one line.
pub async fn line(dir: &Path, args: &[&str]) -> Result<String> {
    Ok(String::from_utf8_lossy(&git(dir, args).await?).trim().to_owned())
}
