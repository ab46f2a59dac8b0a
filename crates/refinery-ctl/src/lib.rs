//! The refinery controller: what polecats finished is tested on the tip of its target and landed
//! there.
//!
//! The rules are in [`gastown_core::train`], git is in [`gastown_git`]; here both meet the API
//! server. It must not know how work is made: a request is a commit on a branch, whoever wrote it.

mod act;
mod args;
mod conditions;
mod context;
mod endpoint;
mod escalations;
mod gate;
mod gather;
mod look;
mod memory;
mod metrics;
mod place;
mod queue;
mod reconcile;
mod report;
mod write;

use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use gastown_api::names::condition;
use gastown_api::{MergeRequest, Polecat, PolecatSpec, PolecatStatus, Refinery, Rig};
use gastown_core::train::EndPhase;
use gastown_escalations::Escalations;
use gastown_git::Git;
use gastown_proto::v1::merge_queue_server::MergeQueueServer;
use gastown_runtime::auth::TokenReviewer;
use gastown_runtime::controller::Controller;
use gastown_runtime::tls::Tls;
use gastown_runtime::watch::{self, Watch};
use gastown_runtime::{AUDIENCE, Runtime, grpc, https};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::net::TcpListener;
use tonic::service::Routes;

pub use args::RefineryArgs;

use crate::context::Context;

/// Runs the controller until the runtime drains: the workers, the MergeQueue server and the git
/// endpoint.
pub async fn start(runtime: Runtime, args: RefineryArgs) -> anyhow::Result<()> {
    let grpc = grpc::listen(runtime.args.grpc_addr).await.context("listening for gRPC")?;
    let git = grpc::listen(args.git_addr).await.context("listening for git")?;
    Box::pin(serve(runtime, args, grpc, git)).await
}

/// As [`start`], on listeners that the caller has bound.
pub async fn serve(
    runtime: Runtime,
    args: RefineryArgs,
    grpc: TcpListener,
    git: TcpListener,
) -> anyhow::Result<()> {
    let tls = Tls::load(&runtime.args.tls_dir, runtime.stop.clone())?;
    let (ctx, controller) = watches(&runtime, args);
    let reviewer = TokenReviewer::new(runtime.client.clone(), AUDIENCE);
    let routes = Routes::new(MergeQueueServer::new(queue::Queue(ctx.clone())));
    let policy = queue::policy(&runtime.args.namespace);
    let drain = runtime.drain.clone();
    let calls = grpc::serve(
        grpc,
        &tls,
        routes,
        gastown_proto::v1::DESCRIPTORS,
        reviewer.clone(),
        policy,
        drain.clone(),
    );
    let pages = https::serve(git, &tls, endpoint::router(ctx.clone(), reviewer), drain);
    let work = async {
        controller.run(&runtime, ctx, reconcile::reconcile).await;
        anyhow::Ok(())
    };
    tokio::try_join!(work, async { calls.await.context("serving gRPC") }, async {
        pages.await.context("serving git")
    })?;
    Ok(())
}

fn watches(runtime: &Runtime, args: RefineryArgs) -> (Arc<Context>, Controller<Refinery>) {
    let (trigger, triggers) = watch::triggers::<Refinery>();
    // Filled below: the maps of other kinds ask which Refineries there are.
    let known: Arc<OnceLock<Store<Refinery>>> = Arc::default();
    let all = {
        let known = known.clone();
        move || known.get().map(Store::state).unwrap_or_default()
    };
    let refineries = {
        let all = all.clone();
        // One that comes or goes changes the places of the others.
        let map = move |changed: &Refinery| {
            let mut refs = vec![ObjectRef::from_obj(changed)];
            let target = changed.spec.target_branch.clone();
            refs.extend(
                all()
                    .iter()
                    .filter(|r| r.spec.target_branch == target)
                    .map(|r| ObjectRef::from_obj(r.as_ref())),
            );
            refs
        };
        Watch::<Refinery>::all(runtime).notify(&trigger, map).start()
    };
    let _ = known.set(refineries.clone());
    let rigs = {
        let all = all.clone();
        let map = move |rig: &Rig| {
            let name = rig.name_any();
            let named = all()
                .into_iter()
                .filter(|r| r.spec.rig_ref == name)
                .map(|r| ObjectRef::from_obj(r.as_ref()));
            named.collect::<Vec<_>>()
        };
        Watch::<Rig>::all(runtime).trim(|rig| rig.status = None).notify(&trigger, map).start()
    };
    let requests = {
        let all = all.clone();
        let map = move |m: &MergeRequest| serving(&all(), m);
        Watch::<MergeRequest>::all(runtime).notify(&trigger, map).start()
    };
    let polecats = {
        let (all, requests) = (all.clone(), requests.clone());
        // Only one that ought to say that it has landed, and does not.
        let map = move |p: &Polecat| {
            let uid = p.uid().filter(|_| !conditions::says_merged(p));
            let of = |m: &MergeRequest| {
                uid.is_some() && m.spec.polecat_ref.as_ref().map(|r| &r.uid) == uid.as_ref()
            };
            let request = requests.find(|m| {
                of(m) && memory::Ledger::of(m).end.is_some_and(|e| e.phase == EndPhase::Landed)
            });
            request.map(|m| serving(&all(), &m)).unwrap_or_default()
        };
        Watch::<Polecat>::all(runtime).trim(trim).notify(&trigger, map).start()
    };
    let owner = |job: &Job| {
        let namespace = job.namespace().unwrap_or_default();
        let owner = job
            .owner_references()
            .iter()
            .find(|o| o.controller == Some(true) && o.kind == "Refinery");
        owner.map(|o| ObjectRef::<Refinery>::new(&o.name).within(&namespace))
    };
    let jobs = Watch::<Job>::all(runtime).labels(gate::SELECTOR).notify(&trigger, owner).start();
    let pods = {
        let jobs = jobs.clone();
        let map = move |pod: &Pod| {
            let job = pod
                .owner_references()
                .iter()
                .find(|o| o.controller == Some(true) && o.kind == "Job");
            let job = job.map(|o| {
                ObjectRef::<Job>::new(&o.name).within(&pod.namespace().unwrap_or_default())
            });
            job.and_then(|r| jobs.get(&r)).and_then(|j| owner(&j))
        };
        Watch::<Pod>::all(runtime)
            .labels(gate::SELECTOR)
            .trim(|pod| pod.spec = None)
            .notify(&trigger, map)
            .start()
    };
    let context = Context {
        metrics: metrics::RefineryMetrics::new(&runtime.metrics),
        escalations: Escalations::start(runtime, args.witness_endpoint.as_deref(), "refinery-ctl"),
        runtime: runtime.clone(),
        args,
        git: Git::from_env(),
        refineries: refineries.clone(),
        requests,
        polecats,
        rigs,
        jobs,
        pods,
        trains: parking_lot::Mutex::default(),
        mirrors: parking_lot::Mutex::default(),
        served: parking_lot::Mutex::default(),
    };
    (Arc::new(context), Controller { name: "refinery", store: refineries, triggers })
}

/// The Refineries whose target a request is for.
fn serving(refineries: &[Arc<Refinery>], m: &MergeRequest) -> Vec<ObjectRef<Refinery>> {
    let fits = |r: &&Arc<Refinery>| {
        r.spec.rig_ref == m.spec.rig_ref && r.spec.target_branch == m.spec.target_branch
    };
    refineries.iter().filter(fits).map(|r| ObjectRef::from_obj(r.as_ref())).collect()
}

/// Leaves of a Polecat whether it says that its work has landed.
fn trim(polecat: &mut Polecat) {
    polecat.spec = PolecatSpec::of_rig(std::mem::take(&mut polecat.spec.rig));
    polecat.metadata.annotations = None;
    polecat.metadata.labels = None;
    if let Some(mut status) = polecat.status.take() {
        status.conditions.retain(|c| c.type_ == condition::MERGED);
        polecat.status =
            Some(PolecatStatus { conditions: status.conditions, ..PolecatStatus::default() });
    }
}
