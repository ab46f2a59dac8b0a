//! `cargo xtask install`: installs or upgrades the CRDs and the chart on a cluster and waits until
//! every controller is ready.

mod diagnosis;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gastown_cluster::cluster::{self, Cluster};
use gastown_cluster::oci;
use gastown_cluster::toolchain;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use xtask::cli::InstallArgs;

use crate::images::{self, Build};
use crate::util;

/// The default namespace of an installation.
pub const NAMESPACE: &str = "gastown-system";

/// Selects the objects of the chart.
const OURS: &str = "app.kubernetes.io/part-of=gastown-operator";
/// The name of the chart's release.
pub const RELEASE: &str = "gastown";
const MANAGER: &str = "gastown-install";

/// The keys of the chart's values and the controllers that they configure.
const CONTROLLERS: &[(&str, &str)] = &[
    ("rig", "rig-ctl"),
    ("polecat", "polecat-ctl"),
    ("convoy", "convoy-ctl"),
    ("witness", "witness-ctl"),
    ("refinery", "refinery-ctl"),
    ("beadstore", "beadstore-ctl"),
];

/// An installation.
#[derive(Clone, Debug)]
pub struct Options {
    /// A kubeconfig with one cluster.
    pub kubeconfig: PathBuf,
    /// The namespace of the controllers.
    pub namespace: String,
    /// Values of the chart, as for helm: key=value.
    pub set: Vec<String>,
    /// How long the controllers may take to be ready.
    pub timeout: Duration,
}

/// Runs it.
pub async fn run(args: InstallArgs) -> Result<()> {
    let kubeconfig = match args.kubeconfig {
        Some(path) => path,
        None => find_kubeconfig().await?,
    };
    let timeout = Duration::from_secs(args.timeout);
    install_with(&Options { kubeconfig, namespace: args.namespace, set: args.set, timeout }).await
}

/// Installs into the default namespace and waits until the controllers are ready.
pub async fn install(kubeconfig: &Path, set: &[String]) -> Result<()> {
    let timeout = Duration::from_mins(3);
    install_with(&Options {
        kubeconfig: kubeconfig.to_owned(),
        namespace: NAMESPACE.to_owned(),
        set: set.to_vec(),
        timeout,
    })
    .await
}

/// Installs, or upgrades, and waits until the controllers are ready.
pub async fn install_with(options: &Options) -> Result<()> {
    check_version(&util::root())?;
    let client = client(&options.kubeconfig).await?;
    println!("install: CRDs");
    install_crds(&client).await?;
    ensure_namespace(&client, &options.namespace).await?;
    println!("install: chart, namespace {}", options.namespace);
    let helm = toolchain::helm().await?;
    let mut command = helm_command(&helm, options);
    for pin in image_pins(&options.kubeconfig).await? {
        command.arg("--set-string").arg(pin);
    }
    tokio::task::spawn_blocking(move || util::output(&mut command)).await??;
    wait_available(&client, options).await
}

/// The kubeconfig where none was named.
pub async fn find_kubeconfig() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("KUBECONFIG").filter(|p| !p.is_empty()) {
        return Ok(path.into());
    }
    if let Some(cluster) = Cluster::find(&cluster::default_dir()?).await? {
        return Ok(cluster.kubeconfig());
    }
    let home = std::env::home_dir().map(|h| h.join(".kube/config")).filter(|p| p.is_file());
    home.context(
        "no cluster found: start one with `cargo xtask cluster up`, or name one with --kubeconfig",
    )
}

/// A client for the cluster of a kubeconfig.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("reading {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    println!("cluster: {}", config.cluster_url);
    Ok(Client::try_from(config)?)
}

/// Checks that the chart has the version of this workspace.
fn check_version(root: &Path) -> Result<()> {
    let wanted = std::fs::read_to_string(root.join("VERSION"))?;
    let chart = std::fs::read_to_string(root.join("charts/gastown-operator/Chart.yaml"))?;
    let chart: serde_json::Value = serde_saphyr::from_str(&chart)?;
    for key in ["version", "appVersion"] {
        let found = chart[key].as_str().unwrap_or_default();
        if found != wanted.trim() {
            bail!(
                "charts/gastown-operator/Chart.yaml has {key} {found:?}, and VERSION is {:?}",
                wanted.trim()
            );
        }
    }
    Ok(())
}

async fn install_crds(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crds = gastown_api::crds();
    for crd in &crds {
        let name = crd.name_any();
        // We own every field: changes by others are overwritten.
        let how = PatchParams::apply(MANAGER).force();
        api.patch(&name, &how, &Patch::Apply(crd))
            .await
            .with_context(|| format!("applying CRD {name}"))?;
    }
    for crd in &crds {
        let name = crd.name_any();
        let served = await_condition(api.clone(), &name, conditions::is_crd_established());
        let within = tokio::time::timeout(Duration::from_mins(1), served).await;
        within.with_context(|| format!("CRD {name} was not served within a minute"))??;
    }
    Ok(())
}

/// Creates the namespace, for restricted pods only. One that exists is left as it is.
async fn ensure_namespace(client: &Client, name: &str) -> Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    if api.get_opt(name).await?.is_some() {
        return Ok(());
    }
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"});
    let namespace = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))?;
    api.create(&PostParams::default(), &namespace)
        .await
        .with_context(|| format!("creating namespace {name}"))?;
    Ok(())
}

fn helm_command(helm: &Path, options: &Options) -> Command {
    let mut command = Command::new(helm);
    command
        .args(["upgrade", "--install", RELEASE])
        .arg(util::root().join("charts/gastown-operator"));
    command.args(["--namespace", &options.namespace]).arg("--kubeconfig").arg(&options.kubeconfig);
    // They were applied just now, and waited for; those of an earlier `helm install` stay.
    command.args(["--set", "crds.install=false"]);
    for value in &options.set {
        command.arg("--set").arg(value);
    }
    command.stdin(std::process::Stdio::null());
    command
}

/// Annotations with the digests of the loaded images: on our own cluster an image changes under the
/// same tag, which alone would not restart its pods.
async fn image_pins(kubeconfig: &Path) -> Result<Vec<String>> {
    let Some(dir) = kubeconfig.parent().filter(|d| !d.as_os_str().is_empty()) else {
        return Ok(Vec::new());
    };
    if Cluster::find(dir).await?.is_none() {
        return Ok(Vec::new());
    }
    let built = CONTROLLERS
        .iter()
        .map(|(key, name)| (key, images::layout(name, Build::Dev)))
        .filter(|(_, path)| path.is_file());
    built
        .map(|(key, path)| {
            Ok(format!(r"{key}.podAnnotations.gastown\.io/image={}", oci::identify(&path)?.1))
        })
        .collect()
}

/// Waits until every Deployment of the chart is rolled out.
async fn wait_available(client: &Client, options: &Options) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), &options.namespace);
    let start = Instant::now();
    let mut ready = BTreeSet::new();
    loop {
        let all = api
            .list(&ListParams::default().labels(OURS))
            .await
            .context("listing the controllers")?
            .items;
        let waiting: Vec<&Deployment> = all.iter().filter(|d| !is_rolled_out(d)).collect();
        for done in all.iter().filter(|d| is_rolled_out(d)) {
            if ready.insert(done.name_any()) {
                println!(
                    "install: {} is ready ({:.0} s)",
                    done.name_any(),
                    start.elapsed().as_secs_f32()
                );
            }
        }
        if waiting.is_empty() && !all.is_empty() {
            return Ok(());
        }
        if start.elapsed() > options.timeout {
            let mut text = format!("not ready after {} s:\n", options.timeout.as_secs());
            for deployment in waiting {
                text.push_str(&diagnosis::of(client, deployment).await);
            }
            bail!(text);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Whether a Deployment is rolled out, by the rule of `kubectl rollout status`.
fn is_rolled_out(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else { return false };
    let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    let seen =
        status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0);
    let count = |n: Option<i32>| n.unwrap_or(0);
    seen && count(status.updated_replicas) >= wanted
        && count(status.replicas) <= count(status.updated_replicas)
        && count(status.available_replicas) >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_has_the_version_of_this_workspace() {
        check_version(&util::root()).unwrap();
        assert_eq!(images::version().unwrap(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn a_chart_of_another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("charts/gastown-operator")).unwrap();
        std::fs::write(dir.path().join("VERSION"), "0.2.0\n").unwrap();
        std::fs::write(
            dir.path().join("charts/gastown-operator/Chart.yaml"),
            "version: 0.2.0\nappVersion: \"0.1.0\"\n",
        )
        .unwrap();
        let error = check_version(dir.path()).unwrap_err().to_string();
        assert!(error.contains("appVersion") && error.contains("0.2.0"), "{error}");
    }

    #[test]
    fn a_rollout_is_over_when_no_old_pod_is_left() {
        let deployment = |status: serde_json::Value| {
            serde_json::from_value(
                json!({"metadata": {"generation": 2}, "spec": {"replicas": 1, "selector": {}, "template": {}}, "status": status}),
            )
            .unwrap()
        };
        let status = |seen: i64, replicas: i32, updated: i32, available: i32| json!({"observedGeneration": seen, "replicas": replicas, "updatedReplicas": updated, "availableReplicas": available});
        assert!(is_rolled_out(&deployment(status(2, 1, 1, 1))));
        assert!(!is_rolled_out(&deployment(status(1, 1, 1, 1))), "the change is not observed yet");
        assert!(!is_rolled_out(&deployment(status(2, 2, 1, 2))), "the old pod is still there");
        assert!(!is_rolled_out(&deployment(status(2, 1, 1, 0))), "the new pod is not available");
        assert!(!is_rolled_out(&deployment(json!(null))));
    }
}
