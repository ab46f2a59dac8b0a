//! `cargo xtask demo`: from an empty machine to landed branches.

mod observed;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gastown_cluster::cluster::{Cluster, Nodes, Options, default_dir};
use gastown_demo::{Plan, Report, Scenario, Settings};
use kube::Client;
use xtask::cli::DemoArgs;
use xtask::handover::Handover;

use crate::clock::Clock;
use crate::images::{self, Build, Names};
use crate::install;
use observed::Observed;

/// The demo's namespace.
const NAMESPACE: &str = "gastown-demo";
/// The demo's Rig.
const RIG: &str = "demo";
/// How long a run may take beside its changes: the first pull of images into pods, a cold start.
const START_LIMIT: Duration = Duration::from_mins(15);
/// How long each change may take on a slow machine.
const CHANGE_LIMIT: Duration = Duration::from_mins(3);

/// Runs it.
pub async fn run(args: DemoArgs, handover: Handover) -> Result<()> {
    let plan = match (&args.repo, &args.plan) {
        (Some(repo), Some(plan)) => Plan::load(repo, plan).await?,
        _ => Plan::default_project().await?,
    };
    let clock = Clock::new(handover);
    let names = Names::new(args.registry.as_deref(), args.tag.as_deref())?;
    let mut cluster = DemoCluster::choose(args.kubeconfig, args.dir, names).await?;
    cluster.observe = args.observe;
    let mut interrupted = false;
    let played = tokio::select! {
        played = play(&mut cluster, &plan, args.polecats, &clock) => played.map(|(_, report)| report),
        _ = tokio::signal::ctrl_c() => { interrupted = true; Err(anyhow::anyhow!("interrupted")) }
    };
    let mut reported = played.and_then(|result| report(&result, args.json.as_deref()));
    if let (Ok(report), Some(observed)) = (&reported, &cluster.observed) {
        reported = observed.show(report).await.map(|()| report.clone());
    }
    match &reported {
        Ok(_) => println!("{}\n", clock.table()),
        Err(error) => eprintln!("\n{error:#}\n"),
    }
    if let (true, Some(observed), false) = (args.keep, &cluster.observed, interrupted) {
        println!("{}\nboth run until Ctrl-C", observed.addresses());
        tokio::signal::ctrl_c().await?;
    }
    let cleaned = cluster.leave(args.keep, args.polecats).await;
    if interrupted {
        // A compiler that still runs is not waited for.
        std::process::exit(130);
    }
    if reported.is_err() {
        bail!("the demo did not land everything");
    }
    cleaned
}

fn report(report: &Report, json: Option<&Path>) -> Result<Report> {
    println!("\n{}\n", report.table());
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_vec_pretty(report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    report.check()?;
    Ok(report.clone())
}

/// Cluster, images, controllers, and the plan on them.
async fn play(
    cluster: &mut DemoCluster,
    plan: &Plan,
    polecats: i32,
    clock: &Clock,
) -> Result<(Scenario, Report)> {
    let client = cluster.prepare(clock).await?;
    let settings = cluster.settings(polecats, plan.changes.len())?;
    let playing = gastown_demo::run(&client, settings, plan, |line| clock.print(line));
    clock.time("demo", Box::pin(playing)).await
}

/// The cluster that the demo runs on.
#[derive(Debug)]
pub struct DemoCluster {
    kubeconfig: PathBuf,
    /// The folder of our own cluster; absent on somebody else's.
    own: Option<PathBuf>,
    /// Whether this run started it.
    started: bool,
    /// The names under which its nodes find the images.
    names: Names,
    /// Whether Jaeger and Prometheus are wanted beside it.
    observe: bool,
    /// They, once they run.
    observed: Option<Observed>,
}

impl DemoCluster {
    /// Somebody's cluster by its kubeconfig, or our own, which is not started yet.
    pub async fn choose(
        kubeconfig: Option<PathBuf>,
        dir: Option<PathBuf>,
        names: Names,
    ) -> Result<Self> {
        if let Some(kubeconfig) = kubeconfig {
            let (observe, observed) = (false, None);
            return Ok(Self { kubeconfig, own: None, started: false, names, observe, observed });
        }
        let dir = dir.map_or_else(default_dir, Ok)?;
        let started = Cluster::find(&dir).await?.is_none();
        let kubeconfig = dir.join("kubeconfig");
        let (observe, observed) = (false, None);
        Ok(Self { kubeconfig, own: Some(dir), started, names, observe, observed })
    }

    /// Starts the cluster and loads the images if it is ours, and installs the controllers. The
    /// nodes of somebody else's cluster pull the images.
    pub async fn prepare(&mut self, clock: &Clock) -> Result<Client> {
        if let Some(dir) = self.own.clone() {
            let options = Options { dir: dir.clone(), nodes: Nodes::Kubelet };
            let progress = |line: &str| clock.print(line);
            let cluster = clock.time("cluster", Cluster::up(options, &progress)).await?;
            self.kubeconfig = cluster.kubeconfig();
            if self.observe {
                let observed = clock.time("observers", Observed::start(&cluster)).await?;
                clock.print(&observed.addresses());
                self.observed = Some(observed);
            }
            clock
                .time("images", async {
                    images::load(&images::build(&[], Build::Dev).await?, Some(&dir)).await
                })
                .await?;
        }
        let mut values = self.names.chart_values();
        values.extend(self.observed.iter().flat_map(Observed::chart_values));
        clock.time("controllers", install::install(&self.kubeconfig, &values)).await?;
        self.client().await
    }

    /// A client of the cluster.
    async fn client(&self) -> Result<Client> {
        let kubeconfig = kube::config::Kubeconfig::read_from(&self.kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(
            kubeconfig,
            &kube::config::KubeConfigOptions::default(),
        )
        .await?;
        Ok(Client::try_from(config)?)
    }

    /// The path of the cluster's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where and how the demo runs on it.
    pub fn settings(&self, polecats: i32, changes: usize) -> Result<Settings> {
        Ok(Settings {
            kubeconfig: self.kubeconfig.clone(),
            namespace: NAMESPACE.to_owned(),
            rig: RIG.to_owned(),
            max_polecats: polecats,
            servers_image: self.names.reference("demo-servers"),
            gate_image: self.names.reference("gate-python"),
            login: None,
            deadline: START_LIMIT + CHANGE_LIMIT * u32::try_from(changes)?,
        })
    }

    /// Ends the run: keeps everything and prints how to look at it, or takes the cluster down when
    /// this run started it, or else deletes the demo's objects.
    pub async fn leave(&self, keep: bool, polecats: i32) -> Result<()> {
        if keep {
            println!(
                "kept; look with: kubectl --kubeconfig {} get polecats,mergerequests -n {NAMESPACE}",
                self.kubeconfig.display()
            );
            if self.own.is_some() {
                println!("stop the cluster with: cargo xtask cluster down");
            }
            return Ok(());
        }
        if let (Some(dir), true) = (&self.own, self.started) {
            println!("taking the cluster down (--keep leaves it)");
            Cluster::down(dir, &|_| {}).await?;
            return Ok(());
        }
        println!("deleting the demo's objects (--keep leaves them)");
        gastown_demo::clear(&self.client().await?, &self.settings(polecats, 0)?).await
    }
}
