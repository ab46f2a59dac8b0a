//! A real Kubernetes on this machine, without a container engine and without a daemon of ours.
//!
//! Its parts are started detached and written down with pid and start time in `state.json` of the
//! cluster's folder, so a later process stops them: [`Cluster::up`] and [`Cluster::down`] need not
//! be called by the same one. Everything lives in that folder; the few things that do not (a
//! bridge, a table of the packet filter, kernel settings, cgroups, folders at fixed places) are
//! written down too and undone.

mod config;
mod dns;
mod firewall;
mod host;
mod images;
mod launch;
mod state;
mod stop;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kube::Client;
use serde::{Deserialize, Serialize};

use crate::{control_plane, toolchain};
use config::Paths;
use launch::Launch;
use state::{State, boot_id};

/// Where progress lines go.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// What kind of nodes a cluster has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nodes {
    /// One real node, this machine: containerd, kubelet, kube-proxy, cluster DNS. Needs root.
    #[default]
    Kubelet,
    /// None: a control plane alone, where pods stay Pending.
    None,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster's folder; it must be absent, empty, or a cluster's.
    pub dir: PathBuf,
    /// Its nodes.
    pub nodes: Nodes,
}

impl Options {
    /// A cluster with a node in the user's cache folder.
    pub fn standard() -> Result<Self> {
        Ok(Self { dir: default_dir()?, nodes: Nodes::default() })
    }
}

/// The folder of the cluster that people get when they name none.
pub fn default_dir() -> Result<PathBuf> {
    Ok(gastown_toolchain::cache::dir()?.join("cluster"))
}

/// A running cluster. Dropping this does not stop it.
#[derive(Clone, Debug)]
pub struct Cluster {
    paths: Paths,
    nodes: Nodes,
}

/// One part of a cluster and whether it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The program's name.
    pub name: String,
    /// Its pid.
    pub pid: u32,
    /// Whether it still runs.
    pub running: bool,
    /// Where it writes.
    pub log: PathBuf,
}

/// What is known of a cluster.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its nodes.
    pub nodes: Nodes,
    /// The API server's address.
    pub server: String,
    /// Its parts, in the order of starting.
    pub parts: Vec<Part>,
    /// Whether it was started whole, all parts run, and the API server says that it is ready.
    pub ready: bool,
}

impl Cluster {
    /// Starts a cluster, or finds it running. One that lost a part, or the machine's reboot, is
    /// started anew, empty.
    pub async fn up(options: Options, progress: Progress<'_>) -> Result<Self> {
        let dir = absolute(&options.dir)?;
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let lock = lock(&dir).await?;
        if let Some(state) = State::read(&dir)? {
            if let Some(cluster) = reuse(&dir, &state, options.nodes).await? {
                progress(&format!("the cluster in {} is up", dir.display()));
                return Ok(cluster);
            }
            progress(&format!(
                "the cluster in {} {}; starting it anew",
                dir.display(),
                trouble(&state)
            ));
            stop::tear_down(&dir, &state).await?;
            drop(lock);
            return Box::pin(Self::up(options, progress)).await;
        }
        refuse_strange_folder(&dir)?;
        let started = Self::start(dir.clone(), options.nodes, progress).await;
        if started.is_err() && State::read(&dir)?.is_none() {
            // Nothing was started, so nobody will come to stop it. A folder that holds anything
            // stays.
            drop(std::fs::remove_file(dir.join(LOCK)));
            drop(std::fs::remove_dir(&dir));
        }
        started
    }

    async fn start(dir: PathBuf, nodes: Nodes, progress: Progress<'_>) -> Result<Self> {
        let bin = match nodes {
            Nodes::Kubelet => {
                toolchain::need_node_tools().await?;
                host::check_free(&dir).await?;
                toolchain::node_binaries().await?
            }
            Nodes::None => {
                toolchain::need_debian(&[("setsid", "util-linux")]).await?;
                toolchain::control_plane_binaries().await?
            }
        };
        let paths = Paths { dir, bin };
        let layout = launch::layout(&paths, nodes)?;
        let with_node = nodes == Nodes::Kubelet;
        let state = State {
            boot: boot_id(),
            nodes,
            bin: paths.bin.clone(),
            server: layout.server(),
            processes: Vec::new(),
            created: if with_node { host::absent_places() } else { Vec::new() },
            settings: if with_node { host::settings() } else { Vec::new() },
            complete: false,
        };
        state.write(&paths.dir)?;
        std::fs::create_dir_all(paths.dir.join("logs"))?;
        let mut launch = Launch { paths, state, progress };
        launch.run(&layout).await?;
        progress(&format!(
            "the cluster is up; KUBECONFIG={}",
            launch.paths.dir.join("kubeconfig").display()
        ));
        Ok(Self { paths: launch.paths, nodes })
    }

    /// Finds a cluster that was started whole and has all its parts; `None` when there is none.
    pub async fn find(dir: &Path) -> Result<Option<Self>> {
        let dir = absolute(dir)?;
        let Some(state) = State::read(&dir)? else { return Ok(None) };
        reuse(&dir, &state, state.nodes).await
    }

    /// Stops a cluster and removes all that it made. Says whether there was one.
    pub async fn down(dir: &Path, progress: Progress<'_>) -> Result<bool> {
        let dir = absolute(dir)?;
        if State::read(&dir)?.is_none() {
            return Ok(false);
        }
        let dir = dir.canonicalize()?;
        let _lock = lock(&dir).await?;
        // Another one may have stopped it while this one waited.
        let Some(state) = State::read(&dir)? else { return Ok(false) };
        progress(&format!("stopping the cluster in {}", dir.display()));
        stop::tear_down(&dir, &state).await?;
        Ok(true)
    }

    /// What is known of the cluster in a folder; `None` when there is none.
    pub async fn status(dir: &Path) -> Result<Option<Status>> {
        let dir = absolute(dir)?;
        let Some(state) = State::read(&dir)? else { return Ok(None) };
        let part = |process: &state::Process| Part {
            name: process.name.clone(),
            pid: process.identity.pid,
            running: state.running(&process.name).is_some(),
            log: launch::log_of(&dir, &process.name),
        };
        let parts = state.processes.iter().map(part).collect();
        let ready = is_whole(&dir, &state).await;
        Ok(Some(Status { nodes: state.nodes, server: state.server.clone(), parts, ready }))
    }

    /// What of a cluster in this folder is still on the machine, one line each; empty after
    /// [`Self::down`].
    pub async fn leftovers(dir: &Path) -> Vec<String> {
        match absolute(dir) {
            Ok(dir) => host::leftovers(&dir).await,
            Err(error) => vec![format!("{error:#}")],
        }
    }

    /// The cluster's folder.
    pub fn dir(&self) -> &Path {
        &self.paths.dir
    }

    /// Its nodes.
    pub fn nodes(&self) -> Nodes {
        self.nodes
    }

    /// A kubeconfig file with all permissions.
    pub fn kubeconfig(&self) -> PathBuf {
        self.paths.dir.join("kubeconfig")
    }

    /// The folder that holds kubectl, among others.
    pub fn bin(&self) -> &Path {
        &self.paths.bin
    }

    /// A client with all permissions.
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::try_from(control_plane::load(&self.kubeconfig()).await?)?)
    }

    /// The variables that make kubectl and other clients find the cluster.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = self.paths.bin.display().to_string();
        let path = if path.split(':').any(|folder| folder == bin) {
            path
        } else {
            format!("{bin}:{path}")
        };
        vec![("KUBECONFIG", self.kubeconfig().display().to_string()), ("PATH", path)]
    }

    /// Loads an OCI layout tar into the node, unless it has this very image already; says whether
    /// it had to.
    pub async fn load_image(&self, tar: &Path) -> Result<bool> {
        if self.nodes == Nodes::None {
            bail!(
                "the cluster in {} has no node that an image could be loaded into",
                self.paths.dir.display()
            );
        }
        images::load(&self.paths, launch::snapshotter(&self.paths.dir), tar).await
    }

    /// Applies the project's CRDs and waits until they are served.
    pub async fn install_crds(&self) -> Result<()> {
        control_plane::crds::install(&self.client().await?).await
    }
}

/// The running cluster of a record, when it is whole. Another kind of nodes than wanted is an
/// error.
async fn reuse(dir: &Path, state: &State, nodes: Nodes) -> Result<Option<Cluster>> {
    if !is_whole(dir, state).await {
        return Ok(None);
    }
    if state.nodes != nodes {
        bail!(
            "the cluster in {} has other nodes ({:?}, wanted {nodes:?}); stop it first",
            dir.display(),
            state.nodes
        );
    }
    Ok(Some(Cluster { paths: Paths { dir: dir.to_owned(), bin: state.bin.clone() }, nodes }))
}

/// Why a cluster is of no use.
fn trouble(state: &State) -> String {
    if state.boot != boot_id() {
        return "is from before this machine's start".into();
    }
    match state.missing().as_slice() {
        [] if state.complete => "does not answer".into(),
        [] => "was not started to the end".into(),
        missing => format!("has lost {}", missing.join(", ")),
    }
}

async fn is_whole(dir: &Path, state: &State) -> bool {
    if !state.complete || !state.missing().is_empty() {
        return false;
    }
    let Ok(config) = control_plane::load(&dir.join("kubeconfig")).await else { return false };
    let Ok(client) = Client::try_from(config) else { return false };
    control_plane::ready(&client).await
}

fn absolute(dir: &Path) -> Result<PathBuf> {
    let dir =
        std::path::absolute(dir).with_context(|| format!("making {} absolute", dir.display()))?;
    Ok(dir.canonicalize().unwrap_or(dir))
}

/// `down` removes the whole folder, so it must have been nobody's.
fn refuse_strange_folder(dir: &Path) -> Result<()> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    if entries.flatten().any(|entry| entry.file_name() != LOCK) {
        bail!(
            "{} holds other things than a cluster; give an empty folder with --dir",
            dir.display()
        );
    }
    Ok(())
}

const LOCK: &str = "lock";

/// One launcher at a time works in a folder. Since the folder goes with its cluster, a lock that
/// was waited for may be that of a removed folder.
async fn lock(dir: &Path) -> Result<File> {
    loop {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let path = dir.join(LOCK);
        let file = toolchain::lock(&path).await?;
        if path
            .metadata()
            .is_ok_and(|now| file.metadata().is_ok_and(|held| held.ino() == now.ino()))
        {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_other_peoples_things_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refuse_strange_folder(dir.path()).is_ok());
        std::fs::write(dir.path().join(LOCK), "").unwrap();
        assert!(refuse_strange_folder(dir.path()).is_ok());
        std::fs::write(dir.path().join("thesis.tex"), "").unwrap();
        assert!(refuse_strange_folder(dir.path()).is_err());
    }

    #[tokio::test]
    async fn where_nothing_is_up_nothing_is_stopped_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap().path().join("never");
        assert!(!Cluster::down(&dir, &|_| {}).await.unwrap());
        assert!(Cluster::status(&dir).await.unwrap().is_none());
        assert!(Cluster::find(&dir).await.unwrap().is_none());
        let about_it: Vec<String> =
            Cluster::leftovers(&dir).await.into_iter().filter(|l| l.contains("never")).collect();
        assert_eq!(about_it, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_lock_excludes_another_and_follows_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).await.unwrap();
        let again = File::open(dir.path().join(LOCK)).unwrap();
        assert!(again.try_lock().is_err());
        drop(held);
        // Not `try_lock`: a test beside this one may be between fork and exec of a child that has
        // the file open still.
        assert!(again.lock().is_ok());
    }
}
