//! The coding agent that tests and the demo run: the real program, fetched once into the user's
//! cache folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cache;

/// The version of Claude Code that the images hold and the tests run.
pub const CLAUDE_CODE_VERSION: &str = "2.1.330";

const PACKAGE: &str = "@anthropic-ai/claude-code-linux-x64";

/// Whether [`claude_code`] returns without fetching anything.
pub fn has_claude_code() -> bool {
    folder().is_ok_and(|folder| program(&folder).is_file())
}

/// The Claude Code program, one file of about 250 MB that runs without Node. It is fetched with npm
/// when it is not in the cache.
pub fn claude_code() -> Result<PathBuf> {
    let folder = folder()?;
    let program = program(&folder);
    if program.is_file() {
        return Ok(program);
    }
    let parent = cache::dir()?;
    std::fs::create_dir_all(&parent).with_context(|| format!("creating {}", parent.display()))?;
    // One fetch serves all that want it at the same time.
    let _lock = cache::lock(&parent.join("claude-code.lock"))?;
    if program.is_file() {
        return Ok(program);
    }
    let new = folder.with_extension("new");
    if new.exists() {
        std::fs::remove_dir_all(&new).with_context(|| format!("removing {}", new.display()))?;
    }
    eprintln!("toolchain: fetching Claude Code {CLAUDE_CODE_VERSION} with npm (about 80 MB)");
    fetch(&new)?;
    std::fs::rename(&new, &folder)
        .with_context(|| format!("moving {PACKAGE} to {}", folder.display()))?;
    if !program.is_file() {
        bail!("{PACKAGE} {CLAUDE_CODE_VERSION} has no program `claude`");
    }
    eprintln!("toolchain: fetched Claude Code");
    Ok(program)
}

fn folder() -> Result<PathBuf> {
    Ok(cache::dir()?.join(format!("claude-code-{CLAUDE_CODE_VERSION}")))
}

fn program(folder: &Path) -> PathBuf {
    folder.join("node_modules").join(PACKAGE).join("claude")
}

fn fetch(folder: &Path) -> Result<()> {
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts"])
        .args(["--loglevel=error", "--prefix"])
        .arg(folder)
        .arg(format!("{PACKAGE}@{CLAUDE_CODE_VERSION}"))
        .stdin(Stdio::null());
    let out = npm
        .output()
        .context("npm is needed to fetch Claude Code; install it with: apt-get install -y npm")?;
    if !out.status.success() {
        bail!(
            "npm install {PACKAGE}@{CLAUDE_CODE_VERSION}: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}
