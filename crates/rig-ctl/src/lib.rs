//! The rig controller: creates a Rig's Refinery, Witness and BeadStore, counts its Polecats, and
//! ends it in order.
//!
//! The rules are in [`gastown_core::rig`]; here they meet the API server. This crate must not know
//! what a Refinery, a Witness or a BeadStore does: of its children it reads the `Ready` condition
//! and whether they are busy.

mod act;
mod args;
mod context;
mod error;
mod escalations;
mod gather;
pub mod install_check;
mod metrics;
mod reconcile;
mod report;
mod service;
mod watches;

use std::sync::Arc;

use gastown_api::{Rig, rbac};
use gastown_runtime::Runtime;
use gastown_runtime::controller::Controller;
use gastown_runtime::own_writes::OwnWrites;
use gastown_runtime::pace::Pace;
use gastown_runtime::{definitions, watch};

pub use args::RigArgs;

use crate::context::Context;
use crate::reconcile::reconcile;

/// Runs the controller until the runtime drains.
pub async fn start(runtime: Runtime, args: RigArgs) -> anyhow::Result<()> {
    let RigArgs {} = args;
    definitions::check(&runtime, rbac::Controller::Rig);
    service::log_absence(&runtime);
    let (trigger, triggers) = watch::triggers::<Rig>();
    let own = Arc::new(OwnWrites::default());
    let ctx = Context {
        refineries: watches::refineries(&runtime, &trigger),
        witnesses: watches::witnesses(&runtime, &trigger),
        bead_stores: watches::bead_stores(&runtime, &trigger),
        polecats: watches::polecats(&runtime, &trigger),
        convoys: watches::convoys(&runtime, &trigger),
        pace: Pace::default(),
        own: own.clone(),
        runtime: runtime.clone(),
    };
    let rigs = watches::rigs(&runtime, &trigger);
    metrics::register(&runtime.metrics, &runtime.shards, &rigs);
    Controller {
        name: "rig",
        store: rigs,
        own,
        triggers,
        rig: |rig| rig.metadata.name.as_deref().unwrap_or_default().into(),
        conditions: Some(|object| Some(&object.status.as_ref()?.conditions)),
    }
    .run(&runtime, Arc::new(ctx), reconcile)
    .await;
    Ok(())
}
