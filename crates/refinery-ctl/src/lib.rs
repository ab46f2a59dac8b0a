//! The refinery controller: tests what polecats finished on the tip of its target branch, and lands
//! it there.
//!
//! The rules are in [`gastown_core::train`], git is in [`gastown_git`]; here both meet the API
//! server. It must not know how work is done: a request is a commit on a branch, whoever wrote it.

mod act;
mod args;
pub mod builder;
mod candidates;
mod context;
#[cfg(test)]
mod crowd_tests;
mod endpoint;
mod error;
mod escalations;
mod gate;
mod gather;
mod log;
mod metrics;
mod pass;
mod reconcile;
mod record;
mod remote;
mod report;
mod service;
mod trace;
mod train;
mod validate;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use gastown_api::rbac;
use gastown_escalations::Escalations;
use gastown_git::Git;
use gastown_runtime::controller::Controller;
use gastown_runtime::forward::Forward;
use gastown_runtime::image::Image;
use gastown_runtime::pace::Pace;
use gastown_runtime::places::Places;
use gastown_runtime::telemetry::Lives;
use gastown_runtime::tls::Tls;
use gastown_runtime::{Runtime, definitions, grpc, https};
use tokio::net::TcpListener;

pub use args::RefineryArgs;

use crate::args::GateSettings;
use crate::builder::Limits;
use crate::candidates::Candidates;
use crate::context::Context;
use crate::metrics::RefineryMetrics;

/// Details of a request's status are written this long after they changed.
const REQUEST_SETTLE: Duration = Duration::from_secs(2);
/// Details of one request's status are written at most this often.
const REQUEST_EVERY: Duration = Duration::from_secs(5);

/// How many requests are made to one host at a time.
const REQUESTS_PER_HOST: usize = 8;
/// How many candidates are built at a time.
const BUILDS: usize = 2;

/// Runs the controller until the runtime drains: the workers, the MergeQueue server and the git
/// endpoint.
pub async fn start(runtime: Runtime, args: RefineryArgs) -> anyhow::Result<()> {
    let grpc = grpc::listen(runtime.args.grpc_addr).await.context("listening for gRPC")?;
    let git = grpc::listen(args.git_addr).await.context("listening for git")?;
    Box::pin(serve(runtime, args, grpc, git)).await
}

/// Does what [`start`] does, on listeners that the caller has bound.
pub async fn serve(
    runtime: Runtime,
    args: RefineryArgs,
    grpc: TcpListener,
    git: TcpListener,
) -> anyhow::Result<()> {
    let tls = Tls::load(&runtime.args.tls_dir, runtime.stop.clone())?;
    definitions::check(&runtime, rbac::Controller::Refinery);
    let (stores, triggers) = watches::start(&runtime);
    let refineries = stores.refineries.clone();
    let controller = Controller {
        name: "refinery",
        store: refineries,
        // A pass has its own last write of the Refinery.
        own: Arc::default(),
        triggers,
        rig: |refinery| refinery.spec.rig_ref.as_str().into(),
        conditions: Some(|object| Some(&object.status.as_ref()?.conditions)),
    };
    let forward = forward(&runtime, &args, git.local_addr()?.port())?;
    let ctx = Arc::new(context(&runtime, args, stores)?);

    let requests = grpc::serve(
        grpc,
        &tls,
        service::routes(&ctx),
        gastown_proto::v1::DESCRIPTORS,
        service::policy(&runtime.args.namespace),
        &runtime,
    );
    let router = endpoint::router(ctx.clone(), runtime.reviewer(), forward);
    let fetches = https::serve(git, &tls, router, runtime.drain.clone());
    let workers = async {
        controller.run(&runtime, ctx, reconcile::reconcile).await;
        anyhow::Ok(())
    };
    tokio::try_join!(workers, async { requests.await.context("serving gRPC") }, async {
        fetches.await.context("serving git")
    })?;
    Ok(())
}

/// The way of fetches to the replica that works for the rig.
fn forward(runtime: &Runtime, args: &RefineryArgs, port: u16) -> anyhow::Result<Forward> {
    let endpoint: http::Uri = args.git_endpoint.parse().context("reading the git endpoint")?;
    let host = endpoint.host().context("the git endpoint has no host")?.to_owned();
    let name = host.try_into().context("the git endpoint's host is not a name")?;
    Ok(Forward::new(runtime.shards.clone(), &runtime.args.tls_dir, name, port))
}

fn context(
    runtime: &Runtime,
    args: RefineryArgs,
    stores: context::Stores,
) -> anyhow::Result<Context> {
    let RefineryArgs {
        agent_image,
        agent_image_file,
        agent_pull_policy,
        git_endpoint,
        // The caller listens there already.
        git_addr: _,
        witness_endpoint,
        data_dir,
        gate_seconds,
        git_memory_mib,
        build_memory_mib,
        build_seconds,
        builder,
        platform_ids,
        proxy,
        network,
    } = args;
    let program = match builder {
        Some(program) => program,
        None => std::env::current_exe().context("finding this program, which builds candidates")?,
    };
    let agent_image = Image::new(agent_image, agent_image_file)?;
    let metrics =
        RefineryMetrics::new(&runtime.metrics, &runtime.shards, &stores.refineries, &stores.rigs);
    Ok(Context {
        build_limits: Limits {
            program,
            memory: build_memory_mib << 20,
            time: Duration::from_secs(build_seconds),
        },
        gates: GateSettings {
            image: agent_image.now(),
            pull_policy: agent_pull_policy,
            git_endpoint,
            seconds: gate_seconds,
            fixed_ids: !platform_ids,
            proxy,
            network,
            release: runtime.args.namespace.clone(),
        },
        agent_image,
        data_dir,
        git: Git::from_env().with_memory(git_memory_mib << 20),
        remotes: Places::new(REQUESTS_PER_HOST),
        builds: Places::new(BUILDS),
        stores,
        escalations: Escalations::start(runtime, witness_endpoint.as_deref(), "refinery-ctl"),
        metrics,
        pace: Pace::default(),
        request_pace: Pace::new(REQUEST_SETTLE, REQUEST_EVERY),
        candidates: Candidates::default(),
        lives: Lives::default(),
        trains: parking_lot::Mutex::default(),
        swept: parking_lot::Mutex::default(),
        mirror_locks: parking_lot::Mutex::default(),
        runtime: runtime.clone(),
    })
}
