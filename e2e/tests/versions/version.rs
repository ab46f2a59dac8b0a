//! A version of the operator, and bringing a cluster to it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use e2e::environment::{Environment, image, text, xtask};
use gastown_api::rbac::Controller;
use gastown_cluster::baselines::Baseline;
use gastown_cluster::install::SYSTEM;
use gastown_cluster::toolchain;
use tokio::process::Command;

/// The release's name.
const RELEASE: &str = "gastown";

/// A version of the operator.
#[derive(Clone, Debug)]
pub struct Version {
    /// The folder of its chart.
    pub chart: PathBuf,
    /// The folder of its CRDs.
    pub crds: PathBuf,
    /// The tag of its images.
    pub tag: String,
}

impl Version {
    /// The release before today's version.
    pub fn before() -> Result<Self> {
        let baseline = Baseline::newest()?;
        Ok(Self { chart: baseline.chart(), crds: baseline.crds(), tag: baseline.tag()? })
    }

    /// Today's.
    pub fn today() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        Self {
            chart: root.join("charts/gastown-operator"),
            crds: root.join("deploy/crds"),
            tag: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Applies its CRDs, as `kubectl` does.
    pub async fn apply_crds(&self, env: &Environment) -> Result<()> {
        let folder = text(&self.crds)?;
        env.kubectl.output(&["apply", "--server-side", "-f", folder]).await?;
        let established = ["--for=condition=Established", "--timeout=60s", "-f", folder];
        env.kubectl.output(&[&["wait"][..], &established].concat()).await?;
        Ok(())
    }
}

/// Removes the operator with its CRDs and all objects.
pub async fn remove(env: &Environment) -> Result<()> {
    xtask(&["uninstall", "--kubeconfig", text(&env.cluster.kubeconfig())?]).await
}

/// Installs or upgrades the release with the chart of one version and the images of one, and waits until
/// all controllers are rolled out.
pub async fn upgrade(env: &Environment, chart: &Version, images: &Version) -> Result<()> {
    upgrade_with(env, chart, images, images).await
}

/// As [`upgrade`], with the image of agents of yet another version.
pub async fn upgrade_with(
    env: &Environment,
    chart: &Version,
    controllers: &Version,
    agents: &Version,
) -> Result<()> {
    let (path, set) = (text(&chart.chart)?, tags(&controllers.tag, &agents.tag));
    let arguments = ["upgrade", "--install", RELEASE, path, "--create-namespace", "--set", &set];
    let Err(refused) = helm(env, &arguments).await else { return rolled_out(env).await };
    // CRDs that were applied by hand: the refusal has the commands that hand them over.
    let why = format!("{refused:#}");
    let commands: Vec<&str> =
        why.lines().filter_map(|line| line.trim().strip_prefix("kubectl ")).collect();
    if commands.len() != 2 {
        return Err(refused);
    }
    println!("  helm upgrade is refused, and states how the CRDs are handed over");
    for command in commands {
        env.kubectl.output(&command.split(' ').collect::<Vec<_>>()).await?;
    }
    helm(env, &arguments).await?;
    rolled_out(env).await
}

/// Goes back to an earlier revision of the release.
pub async fn roll_back(env: &Environment, revision: u32) -> Result<()> {
    helm(env, &["rollback", RELEASE, &revision.to_string()]).await?;
    rolled_out(env).await
}

/// The number of the release's last revision.
pub async fn revision(env: &Environment) -> Result<u32> {
    let listed = helm(env, &["list", "--output", "json"]).await?;
    let listed: serde_json::Value = serde_json::from_str(&listed).context("reading helm list")?;
    let revision = listed[0]["revision"].as_str().and_then(|revision| revision.parse().ok());
    revision.with_context(|| format!("helm list has no revision: {listed}"))
}

/// Runs one controller with the image of a version, and waits until no other pod of it is left.
pub async fn replace(env: &Environment, controller: Controller, by: &Version) -> Result<()> {
    let (name, deployment) = (controller.name(), format!("deployment/{}", controller.name()));
    let container = format!("{name}={}", image(name, &by.tag));
    env.kubectl.output(&["set", "image", "-n", SYSTEM, &deployment, &container]).await?;
    roll_out(env, controller).await
}

async fn rolled_out(env: &Environment) -> Result<()> {
    for controller in Controller::ALL {
        roll_out(env, controller).await?;
    }
    Ok(())
}

async fn roll_out(env: &Environment, controller: Controller) -> Result<()> {
    let deployment = format!("deployment/{}", controller.name());
    let rollout = ["rollout", "status", "-n", SYSTEM, &deployment, "--timeout=5m"];
    env.kubectl.output(&rollout).await?;
    Ok(())
}

/// The values that choose the images of all controllers and of agents, as for `--set`.
fn tags(controllers: &str, agents: &str) -> String {
    let of = |controller: Controller| {
        let key = controller.name().trim_end_matches("-ctl");
        format!("{key}.image.tag={controllers}")
    };
    format!("{},agent.image.tag={agents}", Controller::ALL.map(of).join(","))
}

async fn helm(env: &Environment, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(toolchain::helm().await?);
    command.args(arguments).args(["--namespace", SYSTEM]);
    command.arg("--kubeconfig").arg(env.cluster.kubeconfig());
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let out = run.await.context("starting helm")?;
    if !out.status.success() {
        bail!("helm {}: {}", arguments.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
