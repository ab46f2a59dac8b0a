//! The polecat controller: one pod for each attempt at a task, until its branch is on the remote
//! and submitted.
//!
//! The rules are in `gastown_core::polecat`; this crate reads and writes the objects. It must not
//! know how work is tested or merged.

mod act;
mod admission;
mod args;
mod bead_view;
mod beads;
mod busy;
mod claims;
mod context;
mod error;
mod escalations;
mod gather;
mod metrics;
mod network;
mod orphans;
mod pod;
mod promises;
mod reconcile;
mod report;
mod service;
mod sightings;
mod task_hashes;
mod term;
mod watches;

use std::sync::Arc;

use gastown_api::names::{annotation, label};
use gastown_api::rbac;
use gastown_runtime::controller::Controller;
use gastown_runtime::{Runtime, definitions};
use kube::ResourceExt as _;

pub use crate::args::PolecatArgs;
use crate::context::Context;
pub use crate::pod::{AgentNetworkArgs, RoomArgs};

/// Runs until the runtime drains.
pub async fn start(runtime: Runtime, args: PolecatArgs) -> anyhow::Result<()> {
    definitions::check(&runtime, rbac::Controller::Polecat);
    let (stores, shared, queues) = watches::start(&runtime);
    let ctx = Arc::new(Context::new(&runtime, args, stores, shared)?);
    let polecats = Controller {
        name: "polecat",
        store: ctx.stores.polecats.clone(),
        own: ctx.shared.own_polecats.clone(),
        triggers: queues.polecats,
        rig: |polecat| polecat.spec.rig.as_str().into(),
        conditions: None,
    };
    let orphans = Controller {
        name: "polecat-orphans",
        store: ctx.stores.pods.clone(),
        own: Arc::default(),
        triggers: queues.pods,
        rig: |pod| pod.labels().get(label::RIG).map(String::as_str).unwrap_or_default().into(),
        conditions: None,
    };
    let claims = Controller {
        name: "polecat-claims",
        store: ctx.stores.claims.clone(),
        own: Arc::default(),
        triggers: queues.claims,
        rig: |claim| {
            let rig = claim.annotations().get(annotation::CLAIM_RIG);
            rig.map(String::as_str).unwrap_or_default().into()
        },
        conditions: None,
    };
    tokio::join!(
        polecats.run(&runtime, ctx.clone(), reconcile::reconcile),
        orphans.run(&runtime, ctx.clone(), orphans::reconcile),
        claims.run(&runtime, ctx.clone(), claims::reconcile),
    );
    Ok(())
}
