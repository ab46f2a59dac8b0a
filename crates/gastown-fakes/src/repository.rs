//! Repositories as a person works on them, in tests.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs git in `dir` as Ann Author, without this machine's own configuration; returns its output
/// without the end of the line.
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
    let text = String::from_utf8(out.stdout).context("the output of git is not text")?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

/// Creates a bare repository in `remote` with the branch `main`, and an empty clone of it in `work`.
pub fn make(remote: &Path, work: &Path) -> Result<()> {
    std::fs::create_dir(remote)?;
    std::fs::create_dir(work)?;
    git(remote, &["init", "-q", "--bare", "-b", "main"])?;
    git(work, &["init", "-q", "-b", "main"])?;
    git(work, &["remote", "add", "origin", remote.to_str().context("the path is not text")?])?;
    Ok(())
}

/// The commit of a branch, if it exists.
pub fn head(dir: &Path, branch: &str) -> Option<String> {
    git(dir, &["rev-parse", "-q", "--verify", branch]).ok()
}
