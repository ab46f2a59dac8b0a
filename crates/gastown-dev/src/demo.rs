//! `cargo xtask demo`: the main job, from an empty machine to landed branches.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gastown_cluster::cluster::{Cluster, Nodes, Options, default_dir};
use gastown_demo::{Plan, Report, Scenario, Settings};
use kube::Client;
use xtask::cli::DemoArgs;

use crate::{images, install};

/// The demo's namespace.
const NAMESPACE: &str = "gastown-demo";
/// The demo's Rig.
const RIG: &str = "demo";
/// What the demo takes for granted beside the time of its changes: the first pull of images into
/// pods, a cold start.
const HEAD_START: Duration = Duration::from_secs(900);
/// A generous time for one change on a slow machine.
const PER_CHANGE: Duration = Duration::from_secs(180);

/// Runs it.
pub async fn run(args: DemoArgs) -> Result<()> {
    let plan = match (&args.repo, &args.plan) {
        (Some(repo), Some(plan)) => Plan::load(repo, plan).await?,
        _ => Plan::default_project().await?,
    };
    let clock = Clock::start();
    let mut ground = Ground::choose(args.kubeconfig.clone(), args.dir.clone()).await?;
    let mut interrupted = false;
    let played = tokio::select! {
        played = play(&mut ground, &plan, args.polecats, &clock) => played.map(|(_, report)| report),
        _ = tokio::signal::ctrl_c() => { interrupted = true; Err(anyhow::anyhow!("interrupted")) }
    };
    let told = played.and_then(|report| tell(&report, args.json.as_deref()));
    if let Err(e) = &told {
        eprintln!("\n{e:#}\n");
    }
    let cleaned = ground.leave(args.keep, args.polecats).await;
    if interrupted {
        // A compiler that still runs is not waited for.
        std::process::exit(130);
    }
    if told.is_err() {
        bail!("the demo did not land everything");
    }
    cleaned
}

fn tell(report: &Report, json: Option<&Path>) -> Result<()> {
    println!("\n{}\n", report.table());
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_vec_pretty(report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    report.check()
}

/// Cluster, images, controllers, and the plan on them.
pub async fn play(
    ground: &mut Ground,
    plan: &Plan,
    polecats: i32,
    clock: &Clock,
) -> Result<(Scenario, Report)> {
    let client = ground.prepare(clock).await?;
    let settings = ground.settings(polecats, plan.changes.len())?;
    gastown_demo::run(&client, settings, plan, |line| clock.say(line)).await
}

/// Seconds since the start, before every line.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Begins to count.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Prints a line.
    pub fn say(&self, line: &str) {
        println!("{:>5}s  {line}", self.start.elapsed().as_secs());
    }
}

/// The cluster that the demo runs on.
#[derive(Debug)]
pub struct Ground {
    kubeconfig: PathBuf,
    /// The folder of our own cluster; none on somebody else's.
    own: Option<PathBuf>,
    /// Whether it was us who started it.
    started: bool,
}

impl Ground {
    /// Somebody's cluster by its kubeconfig, or our own, which is not started yet.
    pub async fn choose(kubeconfig: Option<PathBuf>, dir: Option<PathBuf>) -> Result<Self> {
        if let Some(kubeconfig) = kubeconfig {
            return Ok(Self { kubeconfig, own: None, started: false });
        }
        let dir = dir.map_or_else(default_dir, Ok)?;
        let started = Cluster::find(&dir).await?.is_none();
        Ok(Self { kubeconfig: dir.join("kubeconfig"), own: Some(dir), started })
    }

    /// Starts the cluster if it is ours, brings the images there, and installs the controllers.
    pub async fn prepare(&mut self, clock: &Clock) -> Result<Client> {
        if let Some(dir) = &self.own {
            clock.say("cluster");
            let options = Options { dir: dir.clone(), nodes: Nodes::Kubelet };
            let cluster = Cluster::up(options, &|line| clock.say(line)).await?;
            self.kubeconfig = cluster.kubeconfig();
            clock.say("images");
            let built = images::build(&[], false).await?;
            images::load(&built, Some(dir)).await?;
        }
        clock.say("controllers");
        install::install(&self.kubeconfig, &[]).await?;
        self.client().await
    }

    /// A client of the cluster.
    pub async fn client(&self) -> Result<Client> {
        let kubeconfig = kube::config::Kubeconfig::read_from(&self.kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(
            kubeconfig,
            &kube::config::KubeConfigOptions::default(),
        )
        .await?;
        Ok(Client::try_from(config)?)
    }

    /// Where the cluster's kubeconfig is.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What the demo needs to know of it.
    pub fn settings(&self, polecats: i32, changes: usize) -> Result<Settings> {
        Ok(Settings {
            kubeconfig: self.kubeconfig.clone(),
            namespace: NAMESPACE.to_owned(),
            rig: RIG.to_owned(),
            max_polecats: polecats,
            servers_image: images::reference("demo-servers")?,
            gate_image: images::reference("gate-python")?,
            deadline: HEAD_START + PER_CHANGE * u32::try_from(changes)?,
        })
    }

    /// Ends the run: keeps everything and says how to look at it, or takes the cluster down when it
    /// was started for this, or else deletes the demo's objects.
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
