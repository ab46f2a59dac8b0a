//! What several commands need: the workspace's folder, running programs, asking for tools.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The workspace's top folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |d| root().join(d))
}

/// The cargo that runs us, so that a toolchain override holds for what we start too.
pub fn cargo() -> Command {
    let mut c = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    c.current_dir(root());
    c
}

/// Runs a program to its end with our own output; an error names the whole command.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("starting {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

/// Runs a program to its end and returns what it printed; an error holds what it said on standard
/// error.
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
    std::env::var_os("PATH")
        .is_some_and(|p| std::env::split_paths(&p).any(|d| d.join(program).is_file()))
}

/// Makes sure that programs of Debian packages are there: installs what lacks when we are root on
/// Debian, otherwise says in one sentence what to run. `wanted` pairs a program with the package
/// that holds it.
pub fn need_debian(wanted: &[(&str, &str)]) -> Result<()> {
    let lacking: Vec<&str> =
        wanted.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install -y {}", lacking.join(" "));
    if !(has("apt-get") && rustix_is_root()) {
        bail!("missing on this machine: {}; install with: {line}", lacking.join(", "));
    }
    println!("installing {} ({line})", lacking.join(", "));
    let quiet = |c: &mut Command| {
        run(c.env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null()))
    };
    quiet(Command::new("apt-get").args(["update", "-qq"]))?;
    quiet(
        Command::new("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(&lacking),
    )
}

fn rustix_is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|s| s.trim() == "0")
}
