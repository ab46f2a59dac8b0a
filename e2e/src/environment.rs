//! The cluster of the scenarios, with the operator on it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gastown_cluster::cluster::{Cluster, Nodes, Options, default_dir};
use gastown_cluster::install::SYSTEM;
use gastown_demo::{Kubectl, Settings};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::process::Command;

/// The variable that leaves images and controllers as an earlier run left them.
const AS_IS: &str = "GASTOWN_E2E_AS_IS";

/// Our own cluster. One that runs already is used and left.
pub struct Environment {
    /// The cluster.
    pub cluster: Cluster,
    /// A client with all permissions.
    pub client: Client,
    /// kubectl for it.
    pub kubectl: Kubectl,
    dir: PathBuf,
    started: bool,
}

impl Environment {
    /// Starts the cluster, loads the images and installs the controllers, with the same commands as a
    /// person.
    pub async fn up() -> Result<Self> {
        let env = Self::with_images().await?;
        if std::env::var_os(AS_IS).is_none() {
            xtask(&["install", "--kubeconfig", text(&env.cluster.kubeconfig())?]).await?;
        }
        Ok(env)
    }

    /// Starts the cluster and loads the images, with the same commands as a person.
    pub async fn with_images() -> Result<Self> {
        let dir = default_dir()?;
        let started = Cluster::find(&dir).await?.is_none();
        let options = Options { dir: dir.clone(), nodes: Nodes::Kubelet };
        let cluster = Cluster::up(options, &|line| println!("{line}")).await?;
        let kubeconfig = cluster.kubeconfig();
        if std::env::var_os(AS_IS).is_some() {
            println!("{AS_IS}: the images and controllers on the cluster are used as they are");
        } else {
            xtask(&["images", "--load"]).await?;
        }
        let client = cluster.client().await?;
        let kubectl = Kubectl::find(&kubeconfig).await?;
        Ok(Self { cluster, client, kubectl, dir, started })
    }

    /// Stops what [`Environment::up`] started and checks that nothing of it is left on the machine.
    pub async fn down(self) -> Result<()> {
        if !self.started {
            println!("the cluster ran before; it is left running");
            return Ok(());
        }
        Cluster::down(&self.dir, &|line| println!("{line}")).await?;
        let left = Cluster::leftovers(&self.dir).await;
        ensure!(left.is_empty(), "left behind: {left:#?}");
        Ok(())
    }

    /// The settings of a scenario of this name.
    pub fn settings(&self, name: &str, deadline: Duration) -> Settings {
        let image = |of: &str| image(of, env!("CARGO_PKG_VERSION"));
        Settings {
            kubeconfig: self.cluster.kubeconfig(),
            namespace: format!("e2e-{name}"),
            rig: format!("e2e-{name}"),
            max_polecats: 3,
            servers_image: image("demo-servers"),
            gate_image: image("gate-python"),
            login: None,
            deadline,
        }
    }

    /// Kills a controller's process with SIGKILL, like a crash.
    pub async fn kill(&self, controller: &str) -> Result<()> {
        let pod = self.controller(controller).await?;
        self.signal(&pod, controller, "SIGKILL").await
    }

    /// Sends a signal to the first process of a pod's container, as a person on the node can.
    pub async fn signal(&self, pod: &Pod, container: &str, signal: &str) -> Result<()> {
        let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref());
        let id = statuses
            .unwrap_or_default()
            .iter()
            .find(|s| s.name == container)
            .and_then(|s| s.container_id.as_deref())
            .with_context(|| format!("{} has no container {container}", pod.name_any()))?;
        let id = id.trim_start_matches("containerd://");
        let mut ctr = Command::new(self.cluster.bin().join("ctr"));
        ctr.arg("-a")
            .arg(self.dir.join("containerd.sock"))
            .args(["-n", "k8s.io", "tasks", "kill", "--signal", signal, id]);
        let out = ctr.stdin(Stdio::null()).output().await?;
        ensure!(
            out.status.success(),
            "{signal} to {container}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        Ok(())
    }

    /// Erases the status of every object that `meant` selects, as if it had never had one.
    pub async fn erase<K>(&self, api: &Api<K>, meant: impl Fn(&K) -> bool) -> Result<()>
    where
        K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
    {
        let erased = Patch::Merge(json!({"status": null}));
        for object in api.list(&ListParams::default()).await?.items.into_iter().filter(meant) {
            let name = object.name_any();
            match api.patch_status(&name, &PatchParams::default(), &erased).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other.with_context(|| format!("erasing the status of {name}"))?),
            }
        }
        Ok(())
    }

    /// The reasons of the events about objects of a kind.
    pub async fn events(&self, namespace: &str, kind: &str) -> Result<Vec<String>> {
        let events = Api::<Event>::namespaced(self.client.clone(), namespace)
            .list(&ListParams::default())
            .await?;
        let of = events
            .items
            .into_iter()
            .filter(|e| e.regarding.as_ref().is_some_and(|r| r.kind.as_deref() == Some(kind)));
        Ok(of.filter_map(|e| e.reason).collect())
    }

    /// How often a controller's container was restarted.
    pub async fn restarts(&self, controller: &str) -> Result<i32> {
        let statuses = self
            .controller(controller)
            .await?
            .status
            .and_then(|s| s.container_statuses)
            .unwrap_or_default();
        Ok(statuses.iter().map(|s| s.restart_count).sum())
    }

    async fn controller(&self, name: &str) -> Result<Pod> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), SYSTEM);
        let selector = ListParams::default().labels(&format!("app.kubernetes.io/component={name}"));
        let found = pods
            .list(&selector)
            .await?
            .items
            .into_iter()
            .find(|p| p.metadata.deletion_timestamp.is_none());
        found.with_context(|| format!("no pod of {name}"))
    }

    /// The names of a namespace's pods.
    pub async fn pods(&self, namespace: &str) -> Result<Vec<String>> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        Ok(pods.list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect())
    }
}

/// The full name of an image as the cluster has it.
pub fn image(name: &str, tag: &str) -> String {
    format!("ghcr.io/gastown-operator/{name}:{tag}")
}

/// Runs `cargo xtask` with our own output; `GASTOWN_XTASK` is the path of the program when it is built
/// already.
pub async fn xtask(args: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = match std::env::var_os("GASTOWN_XTASK") {
        Some(built) => Command::new(built),
        None => Command::new(cargo),
    };
    if std::env::var_os("GASTOWN_XTASK").is_none() {
        command.arg("xtask");
    }
    command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args(args)
        .kill_on_drop(true);
    let status = command.status().await?;
    if !status.success() {
        bail!("cargo xtask {} ended with {status}", args.join(" "));
    }
    Ok(())
}

/// The path as text.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not text", path.display()))
}
