//! Stopping a cluster: only the processes of its record, and those inside the containerd that it
//! started.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::config::Paths;
use super::state::{State, boot_id};
use super::{host, images};
use crate::control_plane::identity::Identity;
use crate::kwok;

/// How long a process may take to end after SIGTERM. The API server would wait for a minute when etcd
/// ended first.
const GRACE: Duration = Duration::from_secs(2);

/// Ends every process of the cluster and removes every trace of it, its folder too.
pub async fn tear_down(dir: &Path, state: &State) -> Result<()> {
    let paths = Paths { dir: dir.to_owned(), bin: state.bin.clone() };
    // After a reboot none of them runs, and their pids belong to other processes.
    if state.boot == boot_id() {
        for name in [
            "kubelet",
            kwok::NAME,
            "kube-router",
            "kube-proxy",
            "kube-scheduler",
            "kube-controller-manager",
        ] {
            end(state, name).await;
        }
        end_pods(&paths, state).await;
        for name in ["containerd", "kube-apiserver", "etcd"] {
            end(state, name).await;
        }
    }
    for place in state.created.iter().map(AsRef::as_ref).chain([dir]) {
        host::unmount_below(place).await?;
    }
    host::remove_bridge(dir).await?;
    host::remove_created(&state.created)?;
    if state.boot == boot_id() {
        host::restore(&state.settings);
    }
    std::fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))
}

async fn end(state: &State, name: &str) {
    if let Some(identity) = state.running(name) {
        identity.end(GRACE).await;
    }
}

/// Ends the processes of pods: through containerd while it runs, then by its shims and cgroups.
async fn end_pods(paths: &Paths, state: &State) {
    if state.running("containerd").is_some() {
        // What fails here is ended by its cgroup below.
        for task in lines(images::ctr(paths, &["tasks", "list", "--quiet"]).await) {
            drop(images::ctr(paths, &["tasks", "delete", "--force", &task]).await);
        }
        for container in lines(images::ctr(paths, &["containers", "list", "--quiet"]).await) {
            drop(images::ctr(paths, &["containers", "delete", &container]).await);
        }
    }
    for pid in host::pod_processes(&state.created).into_iter().chain(host::shims(&paths.socket())) {
        if let Some(identity) = Identity::of(pid) {
            identity.signal(Signal::KILL);
            identity.end(GRACE).await;
        }
    }
}

fn lines(listed: Result<String>) -> Vec<String> {
    listed.unwrap_or_default().lines().map(str::to_owned).collect()
}
