//! The life of a controller: from the command line to its start, and from SIGTERM to its end.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Readiness, Version};
use crate::args::RuntimeArgs;
use crate::auth::TokenReviewer;
use crate::events::Events;
use crate::lease::{self, Phases};
use crate::metrics::Metrics;
use crate::shards::{Shards, Work};
use crate::{client, telemetry};

/// What every part of a controller needs. Clones share.
#[derive(Clone)]
pub struct Runtime {
    /// The controller's name: `rig-ctl`, …
    pub controller: &'static str,
    /// The client of the API server, with deadline, retry and metrics.
    pub client: kube::Client,
    /// The flags that every controller has.
    pub args: Arc<RuntimeArgs>,
    /// The metrics behind `/metrics`.
    pub metrics: Metrics,
    /// What `/readyz` still waits for.
    pub readiness: Readiness,
    /// For which rigs this process works, and may write.
    pub shards: Shards,
    /// The recorder of Kubernetes Events.
    pub events: Events,
    /// Cancelled by SIGTERM: nothing new starts, running work ends.
    pub drain: CancellationToken,
    /// Cancelled after running work has ended: watches and background tasks stop.
    pub stop: CancellationToken,
}

impl Runtime {
    /// A runtime around a client, for tests and tools: without admin server and signal handlers,
    /// and with shards that the caller chooses.
    pub fn new(
        controller: &'static str,
        client: kube::Client,
        args: RuntimeArgs,
        metrics: Metrics,
        shards: Shards,
    ) -> Self {
        let events = Events::start(client.clone(), controller, &args.identity(), &metrics);
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        metrics.build_info.set([controller.into(), env!("CARGO_PKG_VERSION").into()], 1);
        Self {
            controller,
            client,
            args: Arc::new(args),
            metrics,
            readiness: Readiness::default(),
            shards,
            events,
            drain,
            stop,
        }
    }

    /// A runtime that works for all rigs, with a client of this configuration: for tests and tools.
    pub fn leading(
        controller: &'static str,
        config: kube::Config,
        args: RuntimeArgs,
    ) -> Result<Self, client::Error> {
        let metrics = Metrics::default();
        let client = client::with_config(config, controller, &metrics)?;
        Ok(Self::new(controller, client, args, metrics, Shards::all()))
    }

    /// A reviewer of the tokens with which others call this controller.
    pub fn reviewer(&self) -> TokenReviewer {
        TokenReviewer::new(self.client.clone(), crate::AUDIENCE)
            .with_accounts(&self.args.namespace, &self.args.service_accounts)
    }

    /// Begins work for a rig, which ends before its shard is handed over; none when this process does
    /// not work for it, or drains.
    pub fn enter(&self, rig: &str) -> Option<Work> {
        self.shards.enter(rig).filter(|_| !self.drain.is_cancelled())
    }

    /// Whether this process answers those who call it about this rig.
    pub fn serves(&self, rig: &str) -> bool {
        self.shards.serves(rig) && !self.drain.is_cancelled()
    }

    /// Waits until this process does not answer for this rig any more: it drains, or its shard is
    /// another's.
    pub async fn retired(&self, rig: &str) {
        tokio::select! {
            () = self.drain.cancelled() => {}
            () = self.shards.retired(rig) => {}
        }
    }

    /// Waits until this process answers for other rigs than now, or other replicas do.
    pub async fn regrouped(&self) {
        tokio::select! {
            () = self.drain.cancelled() => {}
            () = self.shards.regrouped() => {}
        }
    }

    /// Stops what runs on this runtime: first the work, then the watches.
    pub fn shutdown(&self) {
        self.drain.cancel();
        self.stop.cancel();
    }
}

#[derive(clap::Parser)]
#[command(version)]
struct Cli<A: clap::Args> {
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    own: A,
}

/// Runs a controller until SIGTERM: `fn main() -> ExitCode { gastown_runtime::run("rig-ctl",
/// rig_ctl::start) }`.
///
/// `start` gets the runtime and the controller-specific flags, and returns when the runtime's
/// `drain` is cancelled and its running work has ended.
pub fn run<A, F, Fut>(controller: &'static str, start: F) -> ExitCode
where
    A: clap::Args,
    F: FnOnce(Runtime, A) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let Cli { runtime: args, own } = Cli::<A>::parse();
    // Fails only when a provider is installed already, which then stays.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    raise_descriptor_limit();
    let ended = executor
        .context("starting the async runtime")
        .and_then(|executor| executor.block_on(live(controller, args, own, start)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log itself may be what could not be started.
            tracing::error!("{controller}: {error:#}");
            eprintln!("{controller}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one action of a controller's program that is not the controller itself, with a client of the
/// cluster. Prints what the action returns, or why it failed.
pub fn run_once<F, Fut>(controller: &'static str, action: F) -> ExitCode
where
    F: FnOnce(kube::Client) -> Fut,
    Fut: Future<Output = anyhow::Result<String>>,
{
    // Fails only when a provider is installed already, which then stays.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = executor.context("starting the async runtime").and_then(|executor| {
        executor.block_on(async {
            let client = client::infer(controller, &Metrics::default()).await?;
            action(client).await
        })
    });
    match ended {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{controller}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Raises the limit of open descriptors to the maximum. Each client's connection needs one, nodes
/// often start at 1,024, and witness-ctl has more agents than that.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // It cannot fail: the limit is never set above the maximum.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

async fn live<A, F, Fut>(
    controller: &'static str,
    args: RuntimeArgs,
    own: A,
    start: F,
) -> anyhow::Result<()>
where
    F: FnOnce(Runtime, A) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let version = env!("CARGO_PKG_VERSION");
    let mut telemetry = telemetry::init(&args, controller, version)?;
    let metrics = Metrics::default();
    telemetry.export_metrics(&metrics);
    tracing::info!(controller, version, namespace = args.namespace, "the controller starts");
    let ended = serve((controller, version), metrics, args, own, start).await;
    telemetry.shutdown().await;
    ended
}

async fn serve<A, F, Fut>(
    (controller, version): (&'static str, &'static str),
    metrics: Metrics,
    args: RuntimeArgs,
    own: A,
    start: F,
) -> anyhow::Result<()>
where
    F: FnOnce(Runtime, A) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    // Before anything that takes time: a signal during the start must not kill the process in the
    // middle of a write.
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let client = client::infer(controller, &metrics).await?;
    let lease = lease::Config {
        namespace: args.namespace.clone(),
        controller: controller.to_owned(),
        identity: args.identity(),
        address: args.pod_ip,
    };
    let phases = Phases::default();
    let (shards, mut elector) = lease::spawn(client.clone(), &lease, &metrics, phases.clone());
    let drain_time = args.drain();
    let admin_addr = args.admin_addr;
    let runtime = Runtime::new(controller, client, args, metrics, shards);
    tokio::spawn(phases.clone().follow(runtime.readiness.clone(), runtime.drain.clone()));

    let listener = TcpListener::bind(admin_addr)
        .await
        .with_context(|| format!("listening on {admin_addr}"))?;
    let router = admin::router(
        runtime.readiness.clone(),
        runtime.metrics.clone(),
        Version { name: controller, version },
        runtime.drain.clone(),
    );
    let admin_stop = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(listener, router, admin_stop.clone()));

    let mut work = std::pin::pin!(start(runtime.clone(), own));
    let ended = tokio::select! {
        ended = &mut work => ended.and_then(|()| Err(anyhow::anyhow!("the controller ended without a signal"))),
        _ = terminate.recv() => drain(&runtime, drain_time, work).await,
        _ = interrupt.recv() => drain(&runtime, drain_time, work).await,
        left = &mut elector => Err(match left {
            Ok(Err(error)) => error.into(),
            _ => anyhow::anyhow!("the task that divides the rigs among the replicas has ended"),
        }),
    };
    runtime.shutdown();
    phases.ended.cancel();
    if !elector.is_finished() {
        let _ = elector.await;
    }
    admin_stop.cancel();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), admin).await;
    tracing::info!(controller, "the controller has ended");
    ended
}

async fn drain(
    runtime: &Runtime,
    time: std::time::Duration,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tracing::info!(controller = runtime.controller, "the controller drains");
    runtime.drain.cancel();
    let Ok(ended) = tokio::time::timeout(time, work).await else {
        tracing::warn!(
            controller = runtime.controller,
            "running work did not end within {time:?} and is aborted"
        );
        return Ok(());
    };
    ended
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_process_serves_until_it_drains_or_another_one_has_the_shard() {
        let ours = crate::testing::runtime(Shards::all(), Metrics::default());
        assert!(ours.serves("web") && ours.retired("web").now_or_never().is_none());
        ours.drain.cancel();
        assert!(!ours.serves("web") && ours.enter("web").is_none());
        ours.retired("web").await;
        let other = Shards::elsewhere([10, 0, 0, 1].into());
        let standby = crate::testing::runtime(other, Metrics::default());
        assert!(!standby.serves("web"));
        standby.retired("web").await;
    }

    #[test]
    fn a_controller_may_open_as_many_descriptors_as_its_node_allows() {
        raise_descriptor_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
