//! What a cluster changes on the host, and how that is undone: the bridge, a table of the packet
//! filter, kernel settings, mounts, cgroups, folders that its parts create outside their own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::command::{feed, output, run};
use super::config::{BRIDGE, NODE_ADDRESS, TABLE, outward};
use super::state::Setting;
use super::{enforcer, firewall};

/// Folders that kubelet, containerd and the CNI library create at fixed paths.
const FIXED_PATHS: [&str; 8] = [
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
    "/var/lib/cni",
    "/run/containerd",
    "/run/nri",
    "/run/runc",
    "/var/lib/nri",
];

/// Kernel settings that kubelet, kube-proxy, kube-router, the bridge plugin or we change.
const SETTINGS: [&str; 9] = [
    "net/ipv4/ip_forward",
    "net/ipv4/vs/conntrack",
    "net/bridge/bridge-nf-call-iptables",
    "net/netfilter/nf_conntrack_tcp_be_liberal",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
];

/// The cgroup below which kubelet puts pods.
const PODS_CGROUP: &str = "kubepods";

/// Tables of the packet filter that belong to a cluster of ours: family and name.
const TABLES: [(&str, &str); 5] = [
    ("ip", TABLE),
    ("ip", "kube-proxy"),
    ("ip6", "kube-proxy"),
    ("inet", "cni_hostport"),
    ("inet", "cni_plugins_masquerade"),
];

/// The paths that do not exist now, so that they are removed with the cluster.
pub fn absent_paths() -> Vec<PathBuf> {
    let fixed = FIXED_PATHS.iter().map(PathBuf::from);
    fixed.chain(pod_cgroups()).filter(|path| path.symlink_metadata().is_err()).collect()
}

/// The cgroups of pods, which may not exist: one in each hierarchy of version 1, a single one in
/// version 2.
fn pod_cgroups() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    if top.join("cgroup.controllers").exists() {
        return vec![top.join(PODS_CGROUP)];
    }
    let hierarchies = std::fs::read_dir(top).into_iter().flatten().flatten();
    hierarchies.filter(|h| h.path().is_dir()).map(|h| h.path().join(PODS_CGROUP)).collect()
}

/// The kernel settings as they are now.
pub fn settings() -> Vec<Setting> {
    let paths = SETTINGS.iter().map(|name| Path::new("/proc/sys").join(name));
    paths
        .filter_map(|path| std::fs::read_to_string(&path).ok().map(|value| Setting { path, value }))
        .collect()
}

/// Restores kernel settings.
pub fn restore(settings: &[Setting]) {
    for setting in settings {
        // A setting that cannot be restored (its module was unloaded) has no effect either.
        if std::fs::read_to_string(&setting.path).is_ok_and(|now| now != setting.value) {
            drop(std::fs::write(&setting.path, &setting.value));
        }
    }
}

/// Creates the bridge, marked as this cluster's, and the rules that let pods reach other hosts.
pub async fn add_bridge(dir: &Path) -> Result<()> {
    let address = format!("{NODE_ADDRESS}/24");
    run("ip", &["link", "add", BRIDGE, "type", "bridge"]).await?;
    run("ip", &["link", "set", BRIDGE, "alias", &dir.to_string_lossy()]).await?;
    run("ip", &["address", "add", &address, "dev", BRIDGE]).await?;
    no_ipv6();
    run("ip", &["link", "set", BRIDGE, "up"]).await?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
        .context("allowing packets to be forwarded")?;
    feed("nft", &["-f", "-"], &outward()).await?;
    firewall::open().await
}

/// The cluster has IPv4 alone, and its network policies are enforced for IPv4 alone: pods must not find
/// the node by its link-local address.
fn no_ipv6() {
    // A kernel without IPv6 has no such setting.
    drop(std::fs::write(format!("/proc/sys/net/ipv6/conf/{BRIDGE}/disable_ipv6"), "1"));
}

/// The folder of the cluster that the bridge belongs to, if the bridge exists.
pub fn bridge_owner() -> Option<PathBuf> {
    let link = Path::new("/sys/class/net").join(BRIDGE);
    link.exists().then(|| {
        PathBuf::from(std::fs::read_to_string(link.join("ifalias")).unwrap_or_default().trim())
    })
}

/// Refuses a host on which another cluster runs.
pub async fn check_free(dir: &Path) -> Result<()> {
    if let Some(owner) = bridge_owner() {
        bail!(
            "this machine runs a cluster in {} already (bridge {BRIDGE} exists); `cargo xtask cluster down --dir {}` stops it",
            owner.display(),
            owner.display()
        );
    }
    if tables().await.iter().any(|(_, name)| *name == "kube-proxy") {
        bail!(
            "another kube-proxy runs on this machine (nft list tables), and a second node cannot run beside it"
        );
    }
    // A unix socket's path holds 107 bytes, and containerd adds to ours.
    if dir.as_os_str().len() > 80 {
        bail!(
            "{} is too long for a socket's path; give a shorter folder with --dir",
            dir.display()
        );
    }
    Ok(())
}

/// Removes the bridge with the interfaces on it, if it is this cluster's.
pub async fn remove_bridge(dir: &Path) -> Result<()> {
    if bridge_owner().as_deref() != Some(dir) {
        return Ok(());
    }
    for port in ports() {
        // It may disappear by itself at this moment, with its pod's network namespace.
        drop(run("ip", &["link", "delete", &port]).await);
    }
    run("ip", &["link", "delete", BRIDGE]).await?;
    firewall::close().await?;
    enforcer::remove().await?;
    for (family, name) in tables().await {
        run("nft", &["delete", "table", family, name]).await?;
    }
    Ok(())
}

fn ports() -> Vec<String> {
    let listed = std::fs::read_dir(Path::new("/sys/class/net").join(BRIDGE).join("brif"));
    listed
        .into_iter()
        .flatten()
        .flatten()
        .map(|port| port.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Those of our tables that exist.
async fn tables() -> Vec<(&'static str, &'static str)> {
    let listed = output("nft", &["list", "tables"]).await.unwrap_or_default();
    let there = |(family, name): &(&str, &str)| {
        listed.lines().any(|line| line == format!("table {family} {name}"))
    };
    TABLES.into_iter().filter(there).collect()
}

/// Unmounts everything below a folder, the deepest first.
pub async fn unmount_below(dir: &Path) -> Result<()> {
    for mount in mounts_below(dir).iter().rev() {
        run("umount", &["--lazy", &mount.to_string_lossy()]).await?;
    }
    Ok(())
}

fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(mount_point).filter(|point| point.starts_with(dir)).collect()
}

/// The mount point of a line of proc(5)'s mountinfo; the kernel writes blanks and backslashes in
/// octal.
fn mount_point(line: &str) -> Option<PathBuf> {
    let mut parts = line.split(' ').nth(4)?.split('\\');
    let mut point = parts.next()?.to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match code {
            Some(code) => {
                point.push(char::from(code));
                point.push_str(&part[3..]);
            }
            None => point.push_str(part),
        }
    }
    Some(PathBuf::from(point))
}

/// Whether a folder's file system is an overlay, on which another overlay cannot be put.
pub fn is_on_overlay(dir: &Path) -> bool {
    // The magic number of overlayfs, from linux/magic.h.
    const OVERLAYFS: u64 = 0x794c_7630;
    rustix::fs::statfs(dir).is_ok_and(|found| found.f_type.cast_unsigned() == OVERLAYFS)
}

/// Processes in pods' cgroups that this cluster made.
pub fn pod_processes(created: &[PathBuf]) -> Vec<u32> {
    let ours = pod_cgroups().into_iter().filter(|path| created.contains(path));
    let mut pids: Vec<u32> =
        ours.flat_map(|top| cgroups_below(&top)).flat_map(|group| members(&group)).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn members(cgroup: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// A cgroup and all below it, parents first.
fn cgroups_below(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut at = 0;
    while let Some(group) = found.get(at) {
        let children = std::fs::read_dir(group).into_iter().flatten().flatten();
        let children: Vec<PathBuf> = children
            .filter(|c| c.file_type().is_ok_and(|t| t.is_dir()))
            .map(|c| c.path())
            .collect();
        found.extend(children);
        at += 1;
    }
    found
}

/// Removes what was created on the host at fixed paths, including cgroups.
pub fn remove_created(created: &[PathBuf]) -> Result<()> {
    for path in created.iter().filter(|path| path.symlink_metadata().is_ok()) {
        if path.starts_with("/sys/fs/cgroup") {
            // The files of a cgroup go with it, so only folders are removed, children first.
            for group in cgroups_below(path).iter().rev() {
                std::fs::remove_dir(group)
                    .with_context(|| format!("removing cgroup {}", group.display()))?;
            }
        } else {
            std::fs::remove_dir_all(path)
                .with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

/// What a cluster has left on the host, one line each; empty after a clean `down`.
pub async fn leftovers(dir: &Path) -> Vec<String> {
    let mut found: Vec<String> =
        mounts_below(dir).iter().map(|m| format!("mount {}", m.display())).collect();
    if bridge_owner().as_deref() == Some(dir) {
        found.push(format!("bridge {BRIDGE}"));
    }
    if bridge_owner().is_none() {
        found.extend(
            tables().await.iter().map(|(family, name)| format!("nft table {family} {name}")),
        );
        found.extend(firewall::leftovers().await);
        found.extend(enforcer::leftovers().await);
        let groups = pod_cgroups().into_iter().filter(|group| group.exists());
        found.extend(groups.map(|group| format!("cgroup {}", group.display())));
    }
    let inside = format!("{}/", dir.display());
    found.extend(
        processes_about(&inside).into_iter().map(|(pid, line)| format!("process {pid}: {line}")),
    );
    if dir.exists() {
        found.push(format!("folder {}", dir.display()));
    }
    found
}

/// Processes, other than this one, whose command line names something inside a folder.
fn processes_about(inside: &str) -> Vec<(u32, String)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let lines = pids.filter(|pid| *pid != std::process::id()).filter_map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    lines.filter(|(_, line)| line.contains(inside)).collect()
}

/// The shims of one containerd, by the socket that their command line names.
pub fn shims(socket: &Path) -> Vec<u32> {
    let address = format!("-address {} ", socket.display());
    let all = processes_about(&address).into_iter();
    all.filter(|(_, line)| line.contains("containerd-shim-runc-v2")).map(|(pid, _)| pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_with_a_blank_is_read() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402/x rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from("/mnt 2/x")));
        assert_eq!(mount_point("short line"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_mount_point_is_read_back(name in "[ a-z\\\\\\t\\n0-9]{1,20}") {
            // As the kernel writes it: the escape character first.
            let written = name.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('\n', "\\012");
            let line = format!("36 35 98:0 / /{written} rw - ext3 /dev/root rw");
            proptest::prop_assert_eq!(mount_point(&line), Some(PathBuf::from(format!("/{name}"))));
        }
    }

    #[test]
    fn cgroups_are_listed_parents_first() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(top.path().join("a/b")).unwrap();
        std::fs::write(top.path().join("cgroup.procs"), "7\n8\n").unwrap();
        let found = cgroups_below(top.path());
        assert_eq!(found, [top.path().to_owned(), top.path().join("a"), top.path().join("a/b")]);
        assert_eq!(members(&found[0]), [7, 8]);
    }

    #[test]
    fn settings_are_restored_only_where_they_differ() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "1\n").unwrap();
        restore(&[
            Setting { path: path.clone(), value: "0\n".into() },
            Setting { path: dir.path().join("gone"), value: "1".into() },
        ]);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "0\n");
        assert!(!dir.path().join("gone").exists());
    }
}
