//! The witness controller: hears what agents do, judges whether they get on, and tells people of
//! trouble.
//!
//! The rules are in [`gastown_core::witness`] and [`gastown_core::escalation`]; here they meet
//! streams, channels and the API server. It must not know how pods are made or restarted: a verdict
//! is a condition, and its reader acts on it.

mod alarms;
mod channels;
mod context;
mod escalation;
mod gather;
mod hub;
mod metrics;
mod policy;
mod report;
mod service;
mod witness;

use std::sync::Arc;

use anyhow::Context as _;
use gastown_api::names::condition;
use gastown_api::{Escalation, Polecat, PolecatSpec, PolecatStatus, Witness};
use gastown_proto::v1::witness_server::WitnessServer;
use gastown_runtime::auth::TokenReviewer;
use gastown_runtime::controller::Controller;
use gastown_runtime::tls::Tls;
use gastown_runtime::watch::{self, Watch};
use gastown_runtime::{AUDIENCE, NoArgs, Runtime, grpc};
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::channels::Channels;
use crate::context::Context;
use crate::hub::Hub;
use crate::metrics::WitnessMetrics;

/// No message of ours is longer: the longest is a Raise.
const MESSAGE_MAX: usize = 64 * 1024;

/// Runs the controller until the runtime drains: both kinds, and the gRPC service.
pub async fn start(runtime: Runtime, NoArgs {}: NoArgs) -> anyhow::Result<()> {
    let listener = grpc::listen(runtime.args.grpc_addr).await.context("listening for gRPC")?;
    Box::pin(serve(runtime, listener)).await
}

/// As [`start`], on a listener that the caller has bound.
pub async fn serve(runtime: Runtime, listener: TcpListener) -> anyhow::Result<()> {
    let tls = Tls::load(&runtime.args.tls_dir, runtime.stop.clone())?;
    let channels = Channels::new(runtime.client.clone())?;
    let (trigger, triggers) = watch::triggers::<Witness>();
    let (alarm, alarms) = watch::triggers::<Escalation>();
    let escalations = Watch::<Escalation>::all(&runtime).notify_self(&alarm).start();
    let of_rig = {
        let escalations = escalations.clone();
        move |witness: &Witness| {
            let rig = witness.spec.rig_ref.clone();
            let all = escalations.state_filter(|e: &Escalation| e.spec.rig_ref == rig);
            all.iter().map(|e| ObjectRef::from_obj(e.as_ref())).collect::<Vec<_>>()
        }
    };
    // One that comes or goes may change which of a rig's serves.
    let known: Arc<std::sync::OnceLock<kube::runtime::reflector::Store<Witness>>> = Arc::default();
    let of = {
        let known = known.clone();
        move |rig: &str| {
            let all = known
                .get()
                .map(|store| store.state_filter(|w: &Witness| w.spec.rig_ref == rig))
                .unwrap_or_default();
            all.iter().map(|w| ObjectRef::from_obj(w.as_ref())).collect::<Vec<_>>()
        }
    };
    let peers = of.clone();
    let witnesses = Watch::<Witness>::all(&runtime)
        .notify_self(&trigger)
        .notify(&trigger, move |witness: &Witness| peers(&witness.spec.rig_ref))
        .notify(&alarm, of_rig)
        .start();
    let _ = known.set(witnesses.clone());
    let polecats = Watch::<Polecat>::all(&runtime)
        .trim(trim)
        .notify(&trigger, move |polecat| of(&polecat.spec.rig))
        .start();
    let ctx = Arc::new(Context {
        runtime: runtime.clone(),
        witnesses: witnesses.clone(),
        polecats,
        escalations: escalations.clone(),
        hub: Hub::new(WitnessMetrics::new(&runtime.metrics)),
        channels,
        trigger,
        carried: Mutex::default(),
        passes: Mutex::default(),
    });
    let server =
        WitnessServer::new(service::Service(ctx.clone())).max_decoding_message_size(MESSAGE_MAX);
    let reviewer = TokenReviewer::new(runtime.client.clone(), AUDIENCE);
    let policy = policy::policy(&runtime.args.namespace);
    let drain = runtime.drain.clone();
    let calls = grpc::serve(
        listener,
        &tls,
        Routes::new(server),
        gastown_proto::v1::DESCRIPTORS,
        reviewer,
        policy,
        drain,
    );
    let health = Controller { name: "witness", store: witnesses, triggers };
    let told = Controller { name: "escalation", store: escalations, triggers: alarms };
    let work = async {
        tokio::join!(
            health.run(&runtime, ctx.clone(), witness::reconcile),
            told.run(&runtime, ctx.clone(), escalation::reconcile)
        );
        anyhow::Ok(())
    };
    tokio::try_join!(work, async { calls.await.context("serving gRPC") })?;
    Ok(())
}

/// Leaves of a Polecat what is judged and counted: there are thousands.
fn trim(polecat: &mut Polecat) {
    polecat.spec = PolecatSpec::of_rig(std::mem::take(&mut polecat.spec.rig));
    polecat.metadata.annotations = None;
    polecat.metadata.labels = None;
    if let Some(status) = polecat.status.take() {
        let read = [condition::HEALTHY, condition::DEGRADED];
        polecat.status = Some(PolecatStatus {
            phase: status.phase,
            pod_name: status.pod_name,
            pod_active: status.pod_active,
            activity: status.activity,
            conditions: status
                .conditions
                .into_iter()
                .filter(|c| read.contains(&c.type_.as_str()))
                .collect(),
            ..PolecatStatus::default()
        });
    }
}
