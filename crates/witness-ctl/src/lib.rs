//! The witness controller: takes the heartbeats of agents, assesses whether they make progress, and
//! delivers Escalations to people.
//!
//! The rules are in [`gastown_core::witness`] and [`gastown_core::escalation`]; here they meet
//! streams, channels and the API server. It must not know how pods are made or restarted: an
//! assessment is a condition, and polecat-ctl acts on it.

mod act;
mod args;
mod channels;
mod context;
mod delivery;
mod error;
mod escalation;
mod escalations;
mod gather;
mod metrics;
mod policy;
mod reconcile;
mod report;
mod service;
mod steps;
mod streams;
mod watches;

use std::sync::Arc;

use anyhow::Context as _;
use gastown_api::{Escalation, Witness, rbac};
use gastown_proto::v1::DESCRIPTORS;
use gastown_runtime::controller::Controller;
use gastown_runtime::tls::Tls;
use gastown_runtime::{Runtime, definitions, grpc, watch};
use tokio::net::TcpListener;

pub use crate::args::WitnessArgs;
use crate::context::{Context, Stores};

/// Runs the controller until the runtime drains: both kinds, and the gRPC service.
pub async fn start(runtime: Runtime, WitnessArgs {}: WitnessArgs) -> anyhow::Result<()> {
    let listener = grpc::listen(runtime.args.grpc_addr).await.context("listening for gRPC")?;
    Box::pin(serve(runtime, listener)).await
}

/// Like [`start`], with a listener that the caller has bound.
pub async fn serve(runtime: Runtime, listener: TcpListener) -> anyhow::Result<()> {
    let tls = Tls::load(&runtime.args.tls_dir, runtime.stop.clone())?;
    definitions::check(&runtime, rbac::Controller::Witness);
    let (trigger, triggers) = watch::triggers::<Witness>();
    let (escalation_trigger, escalation_triggers) = watch::triggers::<Escalation>();
    let (by_cause, witnesses_by_rig, polecats_by_rig) = Default::default();
    let escalations = watches::escalations(&runtime, &escalation_trigger, &by_cause);
    let witnesses = watches::witnesses(
        &runtime,
        &trigger,
        &escalation_trigger,
        &escalations,
        &witnesses_by_rig,
    );
    let polecats = watches::polecats(&runtime, &trigger, &witnesses_by_rig, &polecats_by_rig);
    let stores =
        Stores { witnesses, polecats, polecats_by_rig, escalations, by_cause, witnesses_by_rig };
    let ctx = Arc::new(Context::new(&runtime, stores.clone(), trigger)?);

    let server = grpc::serve(
        listener,
        &tls,
        service::routes(&ctx),
        DESCRIPTORS,
        policy::policy(&runtime.args.namespace),
        &runtime,
    );
    let health = Controller {
        name: "witness",
        store: stores.witnesses,
        own: ctx.own_witnesses.clone(),
        triggers,
        rig: |witness| witness.spec.rig_ref.as_str().into(),
        conditions: Some(|object| Some(&object.status.as_ref()?.conditions)),
    };
    let delivery = Controller {
        name: "escalation",
        store: stores.escalations,
        own: ctx.own_escalations.clone(),
        triggers: escalation_triggers,
        rig: |escalation| escalation.spec.rig_ref.as_str().into(),
        conditions: Some(|object| Some(&object.status.as_ref()?.conditions)),
    };
    let controllers = async {
        tokio::join!(
            health.run(&runtime, ctx.clone(), reconcile::reconcile),
            delivery.run(&runtime, ctx.clone(), escalation::reconcile)
        );
        anyhow::Ok(())
    };
    tokio::try_join!(controllers, async { server.await.context("serving gRPC") })?;
    Ok(())
}
