//! Kubernetes on this machine, without a container engine and without a daemon of ours.
//!
//! Its parts are started detached and recorded with pid and start time in `state.json` of the
//! cluster's folder, so a later process can stop them: [`Cluster::up`] and [`Cluster::down`] need
//! not be called by the same one. Everything lives in that folder; the few things that do not (a
//! bridge, a table of the packet filter, kernel settings, cgroups, folders at fixed places) are
//! recorded too and undone.

mod command;
mod config;
mod dns;
mod enforcer;
mod firewall;
mod host;
mod images;
mod launch;
mod objects;
mod options;
mod state;
mod stop;

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kube::Client;

use crate::{control_plane, toolchain};
use config::Paths;
use launch::Launch;
pub use options::{Nodes, Options, Progress, default_dir};
use state::{State, boot_id};

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
    /// Its log.
    pub log: PathBuf,
}

/// The state of a cluster.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its nodes.
    pub nodes: Nodes,
    /// The API server's address.
    pub server: String,
    /// Its parts, in the order of starting.
    pub parts: Vec<Part>,
    /// Whether it was started completely, all parts run, and the API server is ready.
    pub ready: bool,
}

impl Cluster {
    /// Starts a cluster, or finds it running. One that lost a part, also by a reboot of the machine,
    /// is started again, empty.
    pub async fn up(options: Options, progress: Progress<'_>) -> Result<Self> {
        let dir = absolute(&options.dir)?;
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let lock = lock(&dir).await?;
        if let Some(state) = State::read(&dir)? {
            if let Some(cluster) = reuse(&dir, &state, options.nodes).await? {
                progress(&format!("the cluster in {} is running", dir.display()));
                return Ok(cluster);
            }
            progress(&format!(
                "the cluster in {} {}; starting it again",
                dir.display(),
                problem(&state)
            ));
            stop::tear_down(&dir, &state).await?;
            drop(lock);
            return Box::pin(Self::up(options, progress)).await;
        }
        refuse_foreign_folder(&dir)?;
        let started = Self::start(dir.clone(), options.nodes, progress).await;
        if started.is_err() && State::read(&dir)?.is_none() {
            // Nothing was started, so nobody will stop it. A folder that is not empty stays.
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
            Nodes::Kwok(_) => {
                toolchain::need_debian(&[("setsid", "util-linux")]).await?;
                toolchain::fake_node_binaries().await?
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
            created: if with_node { host::absent_paths() } else { Vec::new() },
            settings: if with_node { host::settings() } else { Vec::new() },
            complete: false,
        };
        state.write(&paths.dir)?;
        std::fs::create_dir_all(paths.dir.join("logs"))?;
        let mut launch = Launch { paths, state, progress };
        launch.run(&layout).await?;
        progress(&format!(
            "the cluster is running; KUBECONFIG={}",
            launch.paths.dir.join("kubeconfig").display()
        ));
        Ok(Self { paths: launch.paths, nodes })
    }

    /// Finds a cluster that was started completely and has all its parts, if one exists.
    pub async fn find(dir: &Path) -> Result<Option<Self>> {
        let dir = absolute(dir)?;
        let Some(state) = State::read(&dir)? else { return Ok(None) };
        reuse(&dir, &state, state.nodes).await
    }

    /// Stops a cluster and removes everything that it created; returns whether there was one.
    pub async fn down(dir: &Path, progress: Progress<'_>) -> Result<bool> {
        let dir = absolute(dir)?;
        if State::read(&dir)?.is_none() {
            return Ok(false);
        }
        let dir = dir.canonicalize()?;
        let _lock = lock(&dir).await?;
        // Another process may have stopped it while this one waited.
        let Some(state) = State::read(&dir)? else { return Ok(false) };
        progress(&format!("stopping the cluster in {}", dir.display()));
        stop::tear_down(&dir, &state).await?;
        Ok(true)
    }

    /// The state of the cluster in a folder, if there is one.
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
        let ready = is_complete(&dir, &state).await;
        Ok(Some(Status { nodes: state.nodes, server: state.server.clone(), parts, ready }))
    }

    /// What a cluster in this folder has left on the machine, one line each; empty after
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

    /// The address of this machine as pods reach it.
    pub fn address(&self) -> Ipv4Addr {
        config::NODE_ADDRESS
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

    /// Loads an OCI layout tar into the node, unless it has exactly this image; returns whether it
    /// had to.
    pub async fn load_image(&self, tar: &Path) -> Result<bool> {
        if self.nodes != Nodes::Kubelet {
            bail!("the cluster in {} has no node to load an image into", self.paths.dir.display());
        }
        images::load(&self.paths, launch::snapshotter(&self.paths.dir), tar).await
    }

    /// Applies the project's CRDs and waits until they are served.
    pub async fn install_crds(&self) -> Result<()> {
        control_plane::crds::install(&self.client().await?).await
    }
}

/// The running cluster of a record, when it is complete. Other nodes than wanted are an error.
async fn reuse(dir: &Path, state: &State, nodes: Nodes) -> Result<Option<Cluster>> {
    if !is_complete(dir, state).await {
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

/// Why a cluster cannot be used.
fn problem(state: &State) -> String {
    if state.boot != boot_id() {
        return "was started before the last boot of this machine".into();
    }
    match state.missing().as_slice() {
        [] if state.complete => "does not respond".into(),
        [] => "was not started completely".into(),
        missing => format!("has lost {}", missing.join(", ")),
    }
}

async fn is_complete(dir: &Path, state: &State) -> bool {
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

/// Refuses a folder with other files: `down` removes the whole folder.
fn refuse_foreign_folder(dir: &Path) -> Result<()> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    if entries.flatten().any(|entry| entry.file_name() != LOCK) {
        bail!(
            "{} holds other files than a cluster's; give an empty folder with --dir",
            dir.display()
        );
    }
    Ok(())
}

const LOCK: &str = "lock";

/// One process at a time works in a folder. Since the folder is removed with its cluster, a lock that
/// was waited for may be that of a removed folder.
async fn lock(dir: &Path) -> Result<File> {
    loop {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
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
    fn a_folder_with_other_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refuse_foreign_folder(dir.path()).is_ok());
        std::fs::write(dir.path().join(LOCK), "").unwrap();
        assert!(refuse_foreign_folder(dir.path()).is_ok());
        std::fs::write(dir.path().join("thesis.tex"), "").unwrap();
        assert!(refuse_foreign_folder(dir.path()).is_err());
    }

    #[tokio::test]
    async fn without_a_cluster_nothing_is_stopped_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap().path().join("never");
        assert!(!Cluster::down(&dir, &|_| {}).await.unwrap());
        assert!(Cluster::status(&dir).await.unwrap().is_none());
        assert!(Cluster::find(&dir).await.unwrap().is_none());
        let left: Vec<String> =
            Cluster::leftovers(&dir).await.into_iter().filter(|l| l.contains("never")).collect();
        assert_eq!(left, Vec::<String>::new());
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
