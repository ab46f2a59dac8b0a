//! The bead store controller: the one writer of a rig's beads, and who is asked for them.
//!
//! The beads' format is in [`gastown_beads`], git is in [`gastown_git`], `bd serve` in
//! [`gastown_beads_http`]; here they meet the API server. Claims are decided by Leases and landings
//! by refineries: this controller copies both into the store, and never decides either.

mod args;
pub mod branches;
mod context;
mod deeds;
pub mod desk;
mod escalations;
pub mod folder;
mod gather;
pub mod keeper;
pub mod ledger;
mod mirror;
pub mod place;
pub mod plan;
mod reconcile;
pub mod records;
mod report;
mod serve;
pub mod served;
pub mod view;

use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use gastown_api::names::{annotation, label};
use gastown_api::{BeadStore, MergeRequest, Refinery, Rig};
use gastown_escalations::Escalations;
use gastown_git::Git;
use gastown_proto::v1::beads_server::BeadsServer;
use gastown_runtime::auth::TokenReviewer;
use gastown_runtime::controller::Controller;
use gastown_runtime::tls::Tls;
use gastown_runtime::watch::{self, Watch};
use gastown_runtime::{AUDIENCE, Runtime, grpc};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::net::TcpListener;
use tonic::service::Routes;

pub use args::BeadStoreArgs;

use crate::context::Context;
use crate::desk::Desks;

/// Runs the controller until the runtime drains: the workers and the Beads server.
pub async fn start(runtime: Runtime, args: BeadStoreArgs) -> anyhow::Result<()> {
    let listener = grpc::listen(runtime.args.grpc_addr).await.context("listening for gRPC")?;
    Box::pin(serve(runtime, args, listener)).await
}

/// As [`start`], on a listener that the caller has bound.
pub async fn serve(
    runtime: Runtime,
    args: BeadStoreArgs,
    listener: TcpListener,
) -> anyhow::Result<()> {
    let tls = Tls::load(&runtime.args.tls_dir, runtime.stop.clone())?;
    let (context, controller) = watches(&runtime, args);
    let reviewer = TokenReviewer::new(runtime.client.clone(), AUDIENCE);
    let routes = Routes::new(BeadsServer::new(serve::Beads(context.clone())));
    let policy = serve::policy(&runtime.args.namespace);
    let calls = grpc::serve(
        listener,
        &tls,
        routes,
        gastown_proto::v1::DESCRIPTORS,
        reviewer,
        policy,
        runtime.drain.clone(),
    );
    let work = async {
        controller.run(&runtime, context, reconcile::reconcile).await;
        anyhow::Ok(())
    };
    tokio::try_join!(work, async { calls.await.context("serving gRPC") })?;
    Ok(())
}

fn watches(runtime: &Runtime, args: BeadStoreArgs) -> (Arc<Context>, Controller<BeadStore>) {
    let (trigger, triggers) = watch::triggers::<BeadStore>();
    // Filled below: the maps of other kinds ask which BeadStores there are.
    let known: Arc<OnceLock<Store<BeadStore>>> = Arc::default();
    let of_rig = {
        let known = known.clone();
        move |rig: &str| known.get().map(|stores| Context::of_rig(stores, rig)).unwrap_or_default()
    };
    let stores = {
        let of_rig = of_rig.clone();
        // One that comes or goes changes the places of the others.
        let map = move |changed: &BeadStore| {
            let mut refs = of_rig(&changed.spec.rig_ref);
            refs.push(ObjectRef::from_obj(changed));
            refs
        };
        Watch::<BeadStore>::all(runtime).notify(&trigger, map).start()
    };
    let _ = known.set(stores.clone());
    let rigs = {
        let of_rig = of_rig.clone();
        Watch::<Rig>::all(runtime)
            .trim(|rig| rig.status = None)
            .notify(&trigger, move |rig| of_rig(&rig.name_any()))
            .start()
    };
    let refineries = {
        let of_rig = of_rig.clone();
        let map = move |refinery: &Refinery| of_rig(&refinery.spec.rig_ref);
        Watch::<Refinery>::all(runtime)
            .trim(|refinery| refinery.status = None)
            .notify(&trigger, map)
            .start()
    };
    let requests = {
        let of_rig = of_rig.clone();
        let map = move |request: &MergeRequest| {
            let named = request.spec.bead_id.as_ref().is_some_and(|bead| !bead.is_empty());
            if named { of_rig(&request.spec.rig_ref) } else { Vec::new() }
        };
        Watch::<MergeRequest>::all(runtime).trim(trim).notify(&trigger, map).start()
    };
    let claims = {
        let map = move |lease: &Lease| {
            lease
                .annotations()
                .get(annotation::CLAIM_RIG)
                .map(|rig| of_rig(rig))
                .unwrap_or_default()
        };
        let selector = format!("{}=true", label::CLAIM);
        Watch::<Lease>::namespaced(runtime, &runtime.args.namespace)
            .labels(&selector)
            .notify(&trigger, map)
            .start()
    };
    let escalations =
        Escalations::start(runtime, args.witness_endpoint.as_deref(), "beadstore-ctl");
    let desks = Desks::new(Git::from_env(), args.data_dir);
    let context = Context {
        runtime: runtime.clone(),
        stores: stores.clone(),
        rigs,
        refineries,
        requests,
        claims,
        escalations,
        desks,
    };
    (Arc::new(context), Controller { name: "beadstore", store: stores, triggers })
}

/// Leaves of a MergeRequest what closes a bead, and whether it did.
fn trim(request: &mut MergeRequest) {
    if let Some(annotations) = request.metadata.annotations.as_mut() {
        annotations.retain(|key, _| key == annotation::BEAD_CLOSED);
    }
    if let Some(status) = request.status.as_mut() {
        status.attempts.clear();
        status.conditions.clear();
    }
}
