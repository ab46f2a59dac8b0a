//! What this machine must be and have: checked before anything is built, each with one sentence
//! of what is needed, what was found and what to do.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use gastown_toolchain::host::{self, Version};
use gastown_toolchain::{cache, host::need_debian};

use crate::needs::{self, Needs};

/// The oldest Node whose npm fetches Claude Code.
const NODE: Version = Version(18, 0);
/// Memory and swap that the linkers of Go and Rust need beside each other, in GiB.
const MEMORY: u64 = 6;
/// Space for a first build: crates, Go's caches, the toolchain; in GiB.
const DISK_FIRST: u64 = 20;
/// Space for what a run adds later, in GiB.
const DISK: u64 = 3;

/// Refuses a machine on which the command could not end well; installs the Debian packages that it
/// calls.
pub fn check(needs: &Needs) -> Result<()> {
    let checks = [architecture(), go(needs), node(needs), memory(needs), disk(needs), root(needs)];
    let problems: Vec<String> = checks.into_iter().flatten().collect();
    if !problems.is_empty() {
        bail!("this machine cannot run the command:\n  {}", problems.join("\n  "));
    }
    if needs.node {
        host::need_node_tools()?;
    }
    need_debian(&needs.packages)
}

fn architecture() -> Option<String> {
    use std::env::consts::{ARCH, OS};
    ((ARCH, OS) != ("x86_64", "linux"))
        .then(|| format!("x86_64 Linux is needed (found {ARCH} {OS}): use such a machine"))
}

fn go(needs: &Needs) -> Option<String> {
    if needs.missing.is_empty() {
        return None;
    }
    host::need_go().err().map(|error| error.to_string())
}

fn node(needs: &Needs) -> Option<String> {
    if !needs.claude_code {
        return None;
    }
    let found = host::find("node").and_then(|node| Version::of(&node, "--version"));
    if found.is_some_and(|found| found >= NODE) && host::find("npm").is_some() {
        return None;
    }
    let found = found.map_or_else(|| "found none".to_owned(), |found| format!("found {found}"));
    Some(format!(
        "Node {NODE} or newer with npm is needed to fetch Claude Code ({found}): apt-get install -y nodejs npm"
    ))
}

fn memory(needs: &Needs) -> Option<String> {
    if needs.missing.is_empty() && !needs.cold {
        return None;
    }
    let found = memory_of(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())?;
    // What the kernel keeps for itself is not in the figure.
    (found + 512 < MEMORY * 1024).then(|| {
        format!(
            "{MEMORY} GiB of memory and swap are needed to build everything (found {:.1} GiB): add swap, or use a larger machine",
            found as f64 / 1024.0
        )
    })
}

/// Memory and swap together, in MiB, from the text of /proc/meminfo.
fn memory_of(meminfo: &str) -> Option<u64> {
    let kibibytes = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some((kibibytes("MemTotal:")? + kibibytes("SwapTotal:").unwrap_or_default()) / 1024)
}

fn disk(needs: &Needs) -> Option<String> {
    let first = needs.cold || !needs.missing.is_empty();
    let needed = if first { DISK_FIRST } else { DISK };
    let folders = [Some(needs::target_dir()), cache::dir().ok()];
    folders.into_iter().flatten().find_map(|folder| {
        let free = free_gibibytes(&folder)?;
        (free < needed).then(|| {
            format!(
                "{needed} GiB of free disk space are needed for {} (found {free} GiB): free some, or set CARGO_TARGET_DIR and XDG_CACHE_HOME to folders on a larger disk",
                folder.display()
            )
        })
    })
}

/// Free space on the file system of a folder that may not be there yet.
fn free_gibibytes(folder: &Path) -> Option<u64> {
    let existing = folder.ancestors().find(|folder| folder.exists())?;
    let out = Command::new("df").args(["--output=avail", "-k"]).arg(existing).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    Some(text.lines().last()?.trim().parse::<u64>().ok()? >> 20)
}

fn root(needs: &Needs) -> Option<String> {
    (needs.node && !host::is_root()).then(|| {
        "root is needed for a node (found another user): run the command as root, or give it a cluster with --kubeconfig where it takes one".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_with_swap() {
        let text = "MemTotal:        4194304 kB\nMemFree: 1 kB\nSwapTotal:       2097152 kB\n";
        assert_eq!(memory_of(text), Some(6144));
        assert_eq!(memory_of("MemTotal: 1048576 kB\n"), Some(1024));
        assert_eq!(memory_of(""), None);
    }

    #[test]
    fn free_space_is_that_of_the_nearest_folder_that_is_there() {
        assert_eq!(free_gibibytes(Path::new("/none/such")), free_gibibytes(Path::new("/")));
        assert!(free_gibibytes(Path::new("/")).is_some());
    }

    #[test]
    fn a_command_that_needs_nothing_is_not_refused() {
        assert_eq!(go(&Needs::default()), None);
        assert_eq!(node(&Needs::default()), None);
        assert_eq!(root(&Needs::default()), None);
    }
}
