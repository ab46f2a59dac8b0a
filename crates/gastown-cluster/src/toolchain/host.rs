//! What this machine must bring: programs of its own packages. What lacks is installed when we are
//! root on Debian, else named in one sentence together with the command that installs it.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// Finds a program on the search path, or where a Debian root shell would look.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|p| p.is_file())
}

/// Makes sure that programs of Debian packages are there; `wanted` pairs a program with the package
/// that holds it.
pub async fn need_debian(wanted: &[(&str, &str)]) -> Result<()> {
    let lacking: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    install(&lacking).await
}

/// The programs that a node calls.
pub async fn need_node_tools() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "a node needs root (namespaces, mounts, a bridge); run the command as root, or use `--nodes none` for a control plane alone"
        );
    }
    need_debian(&[
        ("nft", "nftables"),
        ("iptables", "iptables"),
        ("conntrack", "conntrack"),
        ("ip", "iproute2"),
        ("mount", "mount"),
        ("setsid", "util-linux"),
    ])
    .await
}

/// Debian's own Go is older than what the modules ask for, so it is not installed for the user.
pub(super) fn need_go() -> Result<()> {
    if find("go").is_none() {
        bail!(
            "missing on this machine: go; install Go 1.26 or newer as https://go.dev/doc/install tells and put it on the PATH"
        );
    }
    Ok(())
}

/// runc is the one part that is linked with a C library.
pub(super) async fn need_seccomp() -> Result<()> {
    need_debian(&[("pkg-config", "pkg-config"), ("cc", "gcc")]).await?;
    let there = Command::new("pkg-config")
        .args(["--exists", "libseccomp"])
        .stdin(Stdio::null())
        .status()
        .await;
    if there.context("starting pkg-config")?.success() {
        return Ok(());
    }
    install(&["libseccomp-dev", "libc6-dev"]).await
}

async fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install -y {}", packages.join(" "));
    if find("apt-get").is_none() || !rustix::process::geteuid().is_root() {
        bail!("missing on this machine: {}; install with: {line}", packages.join(", "));
    }
    eprintln!("installing {} ({line})", packages.join(", "));
    apt(&["update", "-qq"]).await.with_context(|| format!("before: {line}"))?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(packages);
    apt(&arguments).await
}

async fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let out = command.output().await.context("starting apt-get")?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!(
            "apt-get {} ended with {}: {}",
            arguments.join(" "),
            out.status,
            super::tail(&said, 10)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_every_machine_is_found_and_nonsense_is_not() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-at-all").is_none());
    }
}
