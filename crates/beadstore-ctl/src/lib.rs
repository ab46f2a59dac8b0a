//! The bead store controller: the only writer of a rig's beads, and the server of reads.
//!
//! The beads' format is in [`gastown_beads`], git is in [`gastown_git`], the client of `bd serve` in
//! [`gastown_beads_http`], and the rules are in [`gastown_core::beads`]; here they meet the API
//! server. Leases decide claims, and refineries decide landings: this controller copies both into
//! the store, and decides neither.

mod act;
pub mod applied;
mod args;
pub mod connection;
mod context;
pub mod error;
mod escalations;
mod gather;
pub mod git;
pub mod http;
mod metrics;
mod reconcile;
mod report;
mod revisions;
mod service;
pub mod snapshot;
pub mod store;
pub mod validate;
mod watches;

use std::sync::Arc;

use anyhow::Context as _;
use gastown_api::{BeadStore, rbac};
use gastown_escalations::Escalations;
use gastown_git::Git;
use gastown_runtime::controller::Controller;
use gastown_runtime::own_writes::OwnWrites;
use gastown_runtime::pace::Pace;
use gastown_runtime::places::Places;
use gastown_runtime::tls::Tls;
use gastown_runtime::watch;
use gastown_runtime::{Runtime, definitions, grpc};
use tokio::net::TcpListener;

pub use args::BeadStoreArgs;

use crate::context::Context;
use crate::store::Stores;
use crate::watches::OfRig;

/// How many stores of one host are read or edited at a time.
const SYNCS_PER_HOST: usize = 8;

/// Runs the controller until the runtime drains: the workers and the gRPC server.
pub async fn start(runtime: Runtime, args: BeadStoreArgs) -> anyhow::Result<()> {
    let listener = grpc::listen(runtime.args.grpc_addr).await.context("listening for gRPC")?;
    Box::pin(serve(runtime, args, listener)).await
}

/// Does the same as [`start`], on a listener that the caller has bound.
pub async fn serve(
    runtime: Runtime,
    args: BeadStoreArgs,
    listener: TcpListener,
) -> anyhow::Result<()> {
    let BeadStoreArgs { data_dir, git_memory_mib, witness_endpoint } = args;
    let tls = Tls::load(&runtime.args.tls_dir, runtime.stop.clone())?;
    definitions::check(&runtime, rbac::Controller::BeadStore);
    let (trigger, triggers) = watch::triggers::<BeadStore>();
    let of_rig = OfRig::default();
    let own = Arc::new(OwnWrites::default());
    let bead_stores = watches::bead_stores(&runtime, &trigger, &of_rig);
    let rigs = watches::rigs(&runtime, &trigger, &of_rig);
    metrics::register(&runtime.metrics, &runtime.shards, &bead_stores, &rigs);
    let ctx = Arc::new(Context {
        bead_stores: bead_stores.clone(),
        rigs,
        refineries: watches::refineries(&runtime, &trigger, &of_rig),
        requests: watches::requests(&runtime, &trigger, &of_rig),
        claims: watches::claims(&runtime, &trigger, &of_rig),
        escalations: Escalations::start(&runtime, witness_endpoint.as_deref(), "beadstore-ctl"),
        stores: Stores::new(Git::from_env().with_memory(git_memory_mib << 20), data_dir),
        remotes: Places::new(SYNCS_PER_HOST),
        pace: Pace::default(),
        own: own.clone(),
        runtime: runtime.clone(),
    });
    let server = grpc::serve(
        listener,
        &tls,
        service::routes(&ctx),
        gastown_proto::v1::DESCRIPTORS,
        service::policy(&runtime.args.namespace),
        &runtime,
    );
    let controller = Controller {
        name: "beadstore",
        store: bead_stores,
        own,
        triggers,
        rig: |store| store.spec.rig_ref.as_str().into(),
        conditions: Some(|object| Some(&object.status.as_ref()?.conditions)),
    };
    let work = async {
        controller.run(&runtime, ctx, reconcile::reconcile).await;
        anyhow::Ok(())
    };
    tokio::try_join!(work, async { server.await.context("serving gRPC") })?;
    Ok(())
}
