//! The coding agents that a test or the demo runs: the real programs, fetched once into the user's
//! cache folder.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::toolchain::cache_dir;

/// The version of Claude Code that the images hold and the tests run.
pub const CLAUDE_CODE_VERSION: &str = "2.1.330";

const CLAUDE_CODE_PACKAGE: &str = "@anthropic-ai/claude-code-linux-x64";

/// The Claude Code program, one file of about 250 MB that runs without Node. Fetched with npm when
/// it is not in the cache.
pub async fn claude_code() -> Result<PathBuf> {
    // One fetch serves all that ask at the same time.
    static FETCHING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = FETCHING.lock().await;
    let folder = cache_dir()?.join(format!("claude-code-{CLAUDE_CODE_VERSION}"));
    let program = folder.join("node_modules").join(CLAUDE_CODE_PACKAGE).join("claude");
    if program.is_file() {
        return Ok(program);
    }
    let parent = cache_dir()?;
    std::fs::create_dir_all(&parent).with_context(|| format!("making {}", parent.display()))?;
    let fresh = tempfile::Builder::new().prefix("claude-code-").tempdir_in(&parent)?;
    println!("fetching Claude Code {CLAUDE_CODE_VERSION} with npm");
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--no-audit",
        "--no-fund",
        "--no-save",
        "--ignore-scripts",
        "--loglevel=error",
        "--prefix",
    ])
    .arg(fresh.path());
    npm.arg(format!("{CLAUDE_CODE_PACKAGE}@{CLAUDE_CODE_VERSION}"));
    let out = npm
        .output()
        .await
        .context("npm is needed to fetch Claude Code; install it with: apt-get install -y npm")?;
    if !out.status.success() {
        bail!(
            "npm install {CLAUDE_CODE_PACKAGE}@{CLAUDE_CODE_VERSION}: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    // Another process may have been faster; then its copy serves and ours goes with the temporary
    // folder.
    if std::fs::rename(fresh.path(), &folder).is_err() && !program.is_file() {
        bail!("{CLAUDE_CODE_PACKAGE} could not be put into {}", folder.display());
    }
    if !program.is_file() {
        bail!("{CLAUDE_CODE_PACKAGE} {CLAUDE_CODE_VERSION} has no program `claude`");
    }
    Ok(program)
}
