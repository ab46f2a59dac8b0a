//! Prometheus: the machine's own, or the program of Debian's package. The package itself is not
//! installed, because it would start a server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::tail::tail;
use crate::{cache, host};

/// The programs that are wanted.
const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];
/// The package that holds them.
const PACKAGE: &str = "prometheus";

/// Whether [`prometheus`] returns without fetching anything.
pub fn has_prometheus() -> bool {
    elsewhere().is_some() || folder().is_ok_and(|folder| is_in(&folder))
}

/// The folder that holds prometheus and promtool. They are fetched with apt-get, which needs no root,
/// when they are neither on the search path nor in the cache.
pub fn prometheus() -> Result<PathBuf> {
    if let Some(folder) = elsewhere() {
        return Ok(folder);
    }
    let folder = folder()?;
    if is_in(&folder) {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let _lock = cache::lock(&folder.join("lock"))?;
    if is_in(&folder) {
        return Ok(folder);
    }
    if host::find("apt-get").is_none() || host::find("dpkg-deb").is_none() {
        bail!(
            "prometheus and promtool are not on the PATH: install Prometheus (https://prometheus.io/download/)"
        );
    }
    eprintln!("toolchain: fetching Prometheus with apt-get (about 19 MB)");
    fetch(&folder)?;
    eprintln!("toolchain: fetched Prometheus");
    Ok(folder)
}

fn elsewhere() -> Option<PathBuf> {
    let folder = host::find(PROGRAMS[0])?.parent()?.to_owned();
    is_in(&folder).then_some(folder)
}

fn folder() -> Result<PathBuf> {
    Ok(cache::dir()?.join("toolchain/prometheus"))
}

fn is_in(folder: &Path) -> bool {
    PROGRAMS.iter().all(|program| folder.join(program).is_file())
}

/// Unpacks the package beside the programs, and moves them into place one by one.
fn fetch(folder: &Path) -> Result<()> {
    // The lock is ours, so what is there was left by a process that was killed.
    let unpacked = folder.join("unpacked");
    if unpacked.exists() {
        std::fs::remove_dir_all(&unpacked).context("removing what an earlier fetch left")?;
    }
    std::fs::create_dir_all(&unpacked).context("creating a folder for the package")?;
    let download = || run(Command::new("apt-get").args(["download", "-qq", PACKAGE]), &unpacked);
    if let Err(error) = download() {
        // The lists of packages may be old or absent; only root may fetch them.
        if !host::is_root() {
            return Err(error);
        }
        run(Command::new("apt-get").args(["update", "-qq"]), &unpacked)?;
        download()?;
    }
    let mut files = std::fs::read_dir(&unpacked)?.flatten().map(|entry| entry.path());
    let package = files.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let package = package.context("apt-get fetched no package")?;
    run(Command::new("dpkg-deb").arg("-x").arg(package).arg("."), &unpacked)?;
    for program in PROGRAMS {
        std::fs::rename(unpacked.join("usr/bin").join(program), folder.join(program))
            .with_context(|| format!("the package {PACKAGE} has no {program}"))?;
    }
    std::fs::remove_dir_all(&unpacked).context("removing the package")
}

fn run(command: &mut Command, folder: &Path) -> Result<()> {
    let shown = format!("{command:?}");
    let out = command.current_dir(folder).stdin(Stdio::null()).output();
    let out = out.with_context(|| format!("starting {shown}"))?;
    if !out.status.success() {
        let errors = String::from_utf8_lossy(&out.stderr);
        bail!("{shown} ended with {}: {}", out.status, tail(&errors, 10));
    }
    Ok(())
}
