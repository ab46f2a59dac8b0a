//! What this machine must bring: programs of its own packages. What is missing is installed when
//! this process is root on Debian, else named in one sentence together with the command that
//! installs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::tail::tail;

/// The Go release that the modules ask for.
pub const GO: Version = Version(1, 26);

/// Major and minor number of a program's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// The first version in a text, such as `go version go1.26.8 linux/amd64` or `v20.20.2`.
    pub fn find(text: &str) -> Option<Self> {
        text.split(|c: char| !(c.is_ascii_digit() || c == '.')).find_map(|word| {
            let mut numbers = word.split('.');
            Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        })
    }

    /// The version that a program prints.
    pub fn of(program: &Path, argument: &str) -> Option<Self> {
        let out = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
        Self::find(&String::from_utf8_lossy(&out.stdout))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Finds a program on the search path, or where a Debian root shell would look.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    which::which_in(program, Some(std::env::join_paths(folders).ok()?), "/").ok()
}

/// Whether this process is root.
pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).trim() == "0")
}

/// Makes sure that programs of Debian packages are there; `wanted` pairs a program with the package
/// that holds it.
pub fn need_debian(wanted: &[(&str, &str)]) -> Result<()> {
    let missing = wanted.iter().filter(|(program, _)| find(program).is_none());
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install -y {}", packages.join(" "));
    if find("apt-get").is_none() || !is_root() {
        bail!("missing on this machine: {}; install with: {line}", packages.join(", "));
    }
    eprintln!("installing {} ({line})", packages.join(", "));
    apt(&["update", "-qq"]).with_context(|| format!("before: {line}"))?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages.as_slice()].concat())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    let out = command.output().context("starting apt-get")?;
    if !out.status.success() {
        let errors = String::from_utf8_lossy(&out.stderr);
        bail!("apt-get {} ended with {}: {}", arguments.join(" "), out.status, tail(&errors, 10));
    }
    Ok(())
}

/// Debian's own Go is older than the one that the modules ask for, so it is not installed here.
pub fn need_go() -> Result<()> {
    let found = find("go").and_then(|go| Version::of(&go, "version"));
    if found.is_some_and(|found| found >= GO) {
        return Ok(());
    }
    let found = found.map_or_else(|| "found none".to_owned(), |found| format!("found {found}"));
    bail!(
        "Go {GO} or newer is needed ({found}): install it from https://go.dev/doc/install and put it on the PATH"
    )
}

/// The programs that a node calls.
pub fn need_node_tools() -> Result<()> {
    if !is_root() {
        bail!(
            "a node needs root (namespaces, mounts, a bridge); run the command as root, or use `--nodes none` for a control plane alone"
        );
    }
    need_debian(&[
        ("nft", "nftables"),
        ("iptables", "iptables"),
        ("ipset", "ipset"),
        ("conntrack", "conntrack"),
        ("ip", "iproute2"),
        ("mount", "mount"),
        ("setsid", "util-linux"),
    ])?;
    runc().map(drop)
}

/// The runc program: the machine's own, such as a container engine's, or Debian's.
pub fn runc() -> Result<PathBuf> {
    const NEEDED: Version = Version(1, 1);
    // Asked for by its program: the package that Docker's engine comes with has it too and would be
    // removed by Debian's.
    need_debian(&[("runc", "runc")])?;
    let runc = find("runc").context("runc is not on the search path after its installation")?;
    match Version::of(&runc, "--version") {
        Some(found) if found < NEEDED => bail!(
            "runc {NEEDED} or newer is needed ({} is {found}): install a newer one and put it first on the PATH",
            runc.display()
        ),
        _ => Ok(runc),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_every_machine_is_found_and_another_name_is_not() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-at-all").is_none());
    }

    #[test]
    fn versions_are_read_as_programs_print_them() {
        assert_eq!(Version::find("go version go1.26.8 linux/amd64"), Some(Version(1, 26)));
        assert_eq!(Version::find("v20.20.2"), Some(Version(20, 20)));
        assert_eq!(Version::find("runc version 1.1.5+ds1\ncommit: x"), Some(Version(1, 1)));
        assert_eq!(Version::find("devel"), None);
        assert!(Version(1, 9) < Version(1, 26));
    }

    #[test]
    fn the_modules_ask_for_the_go_that_is_checked() {
        for part in crate::parts::ALL {
            let go_mod = part.files().find(|(name, _)| *name == "go.mod").unwrap().1;
            let asked = go_mod.lines().find(|line| line.starts_with("go ")).unwrap();
            assert_eq!(Version::find(asked), Some(GO), "{}", part.name);
        }
    }
}
