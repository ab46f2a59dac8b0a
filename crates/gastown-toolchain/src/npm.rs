//! What npm fetches, as it is locked.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Installs into a folder what is locked and nothing else, and refuses what has another hash. `module` is
/// the name of the folder in `modules`.
pub fn ci(folder: &Path, module: &str, manifest: &str, lock: &str) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    std::fs::write(folder.join("package.json"), manifest)?;
    std::fs::write(folder.join("package-lock.json"), lock)?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--prefix"])
        .arg(folder)
        .stdin(Stdio::null());
    let out = npm.output().with_context(|| {
        format!("npm is needed to fetch {module}; install it with: apt-get install -y npm")
    })?;
    if !out.status.success() {
        bail!(
            "npm ci, as crates/gastown-toolchain/modules/{module} locks it (to lock another version, change package.json there and run `npm install --package-lock-only`): {}",
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}
