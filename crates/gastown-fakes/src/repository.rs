//! Repositories as a person works on them, beside whatever is tested.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs git in `dir` as Ann Author, with nothing of this machine's own configuration; what it
/// printed, without the line's end.
pub fn git(dir: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    command.current_dir(dir).args([
        "-c",
        "user.name=Ann Author",
        "-c",
        "user.email=ann@example.org",
        "-c",
        "commit.gpgSign=false",
    ]);
    command.args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let out = command.output().context("git is needed")?;
    if !out.status.success() {
        bail!("git {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    let text = String::from_utf8(out.stdout).context("git printed what is no text")?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

/// A bare repository in `remote` whose branch is to be `main`, and an empty clone of it in `work`;
/// both folders are made.
pub fn make(remote: &Path, work: &Path) -> Result<()> {
    std::fs::create_dir(remote)?;
    std::fs::create_dir(work)?;
    git(remote, &["init", "-q", "--bare", "-b", "main"])?;
    git(work, &["init", "-q", "-b", "main"])?;
    git(work, &["remote", "add", "origin", remote.to_str().context("a path that is text")?])?;
    Ok(())
}

/// Where a branch is, if it is there.
pub fn head(dir: &Path, branch: &str) -> Option<String> {
    git(dir, &["rev-parse", "-q", "--verify", branch]).ok()
}
