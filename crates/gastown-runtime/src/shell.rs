//! From the command line to a running controller, and from SIGTERM to its end.

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
use crate::events::Events;
use crate::lease::{self, Leadership};
use crate::metrics::Metrics;
use crate::{client, telemetry};

/// What a controller's parts are given. Clones share.
#[derive(Clone)]
pub struct Runtime {
    /// `rig-ctl`, …
    pub controller: &'static str,
    /// The client, with deadline, retry and metrics.
    pub client: kube::Client,
    /// What the command line said.
    pub args: Arc<RuntimeArgs>,
    /// The metrics behind `/metrics`.
    pub metrics: Metrics,
    /// What `/readyz` waits for.
    pub readiness: Readiness,
    /// Who may write.
    pub leadership: Leadership,
    /// The one recorder of events.
    pub events: Events,
    /// Cancelled by SIGTERM: start nothing new, let running work end.
    pub drain: CancellationToken,
    /// Cancelled when running work has ended: watches and background tasks stop.
    pub stop: CancellationToken,
}

impl Runtime {
    /// A runtime around a client, for tests and tools: no admin server, no signals; leadership that
    /// the caller chooses.
    pub fn new(
        controller: &'static str,
        client: kube::Client,
        args: RuntimeArgs,
        metrics: Metrics,
        leadership: Leadership,
    ) -> Self {
        let events = Events::start(client.clone(), controller, &args.identity(), &metrics);
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        Self {
            controller,
            client,
            args: Arc::new(args),
            metrics,
            readiness: Readiness::default(),
            leadership,
            events,
            drain,
            stop,
        }
    }

    /// Ends what [`Runtime::new`] started: first the work, then the watches.
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

/// No arguments of its own.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct NoArgs {}

/// The whole life of a controller: `fn main() -> ExitCode { gastown_runtime::run("rig-ctl",
/// rig_ctl::start) }`.
///
/// `start` gets the runtime and the controller's own arguments ([`NoArgs`] if it has none), and
/// returns when the runtime's `drain` is cancelled and its running work has ended.
pub fn run<A, F, Fut>(controller: &'static str, start: F) -> ExitCode
where
    A: clap::Args,
    F: FnOnce(Runtime, A) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let Cli { runtime: args, own } = Cli::<A>::parse();
    // Fails only where somebody installed one before: then that one serves.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    raise_descriptors();
    let ended = executor
        .context("starting the async runtime")
        .and_then(|executor| executor.block_on(live(controller, args, own, start)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The subscriber may be what could not be started.
            tracing::error!("{controller}: {error:#}");
            eprintln!("{controller}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Allows this process as many descriptors as it may have. Each caller's connection is one, a node
/// may give 1,024 at first, and a witness has more agents than that.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // Never more than it may be: it cannot fail, and a process that has too few says so when it
    // runs out.
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
    let telemetry = telemetry::init(&args, controller, version)?;
    tracing::info!(controller, version, namespace = args.namespace, "starting");
    let ended = serve(controller, version, args, own, start).await;
    telemetry.shutdown();
    ended
}

async fn serve<A, F, Fut>(
    controller: &'static str,
    version: &'static str,
    args: RuntimeArgs,
    own: A,
    start: F,
) -> anyhow::Result<()>
where
    F: FnOnce(Runtime, A) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    // Before anything that takes time: a signal during start must not kill the process in the
    // middle of a write.
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let metrics = Metrics::default();
    let client = client::infer(controller, &metrics).await?;
    let lease =
        lease::Config::new(&args.namespace, &format!("gastown-{controller}"), &args.identity());
    let release = CancellationToken::new();
    let (leadership, mut keeper) = lease::spawn(client.clone(), lease, &metrics, release.clone());
    let drain_time = args.drain();
    let admin_addr = args.admin_addr;
    let runtime = Runtime::new(controller, client, args, metrics, leadership);

    let listener = TcpListener::bind(admin_addr)
        .await
        .with_context(|| format!("listening on {admin_addr}"))?;
    let pages = admin::router(
        runtime.readiness.clone(),
        runtime.metrics.clone(),
        Version { name: controller, version },
        runtime.drain.clone(),
    );
    let admin_stop = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(listener, pages, admin_stop.clone()));

    let mut work = std::pin::pin!(start(runtime.clone(), own));
    let ended = tokio::select! {
        ended = &mut work => ended.and_then(|()| Err(anyhow::anyhow!("the controller ended by itself"))),
        _ = terminate.recv() => drain(&runtime, drain_time, work).await,
        _ = interrupt.recv() => drain(&runtime, drain_time, work).await,
        _ = &mut keeper => Err(anyhow::anyhow!("the lease's task has ended")),
    };
    runtime.shutdown();
    release.cancel();
    if !keeper.is_finished() {
        let _ = keeper.await;
    }
    admin_stop.cancel();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), admin).await;
    tracing::info!(controller, "ended");
    ended
}

async fn drain(
    runtime: &Runtime,
    time: std::time::Duration,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tracing::info!(controller = runtime.controller, "draining");
    runtime.drain.cancel();
    let Ok(ended) = tokio::time::timeout(time, work).await else {
        tracing::warn!(
            controller = runtime.controller,
            "running work did not end in {time:?} and is cut off"
        );
        return Ok(());
    };
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_may_have_as_many_descriptors_as_its_node_allows() {
        raise_descriptors();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
