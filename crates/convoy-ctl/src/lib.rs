//! The convoy controller: tracks a Convoy's beads until all are done and, where the Convoy
//! dispatches, creates a Polecat for each bead that is ready.
//!
//! The rules are in [`gastown_core::convoy`]; here they meet the API server and beadstore-ctl. This
//! crate must not know how beads are stored or how a Polecat works: it reads what the store lists
//! as ready and which phase a Polecat has.

mod act;
mod args;
mod bead_cache;
mod context;
mod error;
mod escalations;
mod gather;
mod indices;
mod metrics;
mod reconcile;
mod report;
mod rig_locks;
mod service;
mod trace;
mod waiting;
mod watches;
mod worked;

use std::sync::Arc;

use gastown_api::{Convoy, rbac};
use gastown_runtime::Runtime;
use gastown_runtime::controller::Controller;
use gastown_runtime::own_writes::OwnWrites;
use gastown_runtime::pace::Pace;
use gastown_runtime::telemetry::Lives;
use gastown_runtime::{definitions, watch};

pub use args::ConvoyArgs;
pub use service::{BeadSource, RemoteBeads, Revisions};

use crate::bead_cache::BeadCache;
use crate::context::Context;
use crate::indices::Indices;
use crate::metrics::ConvoyMetrics;
use crate::reconcile::reconcile;
use crate::rig_locks::RigLocks;
use crate::waiting::Waiting;
use crate::worked::Worked;

/// Runs the controller until the runtime drains.
pub async fn start(runtime: Runtime, args: ConvoyArgs) -> anyhow::Result<()> {
    let ConvoyArgs { beadstore_endpoint } = args;
    let endpoint = args::endpoint(beadstore_endpoint, &runtime.args.namespace);
    let source = RemoteBeads::new(&endpoint, &runtime.args);
    serve(runtime, Arc::new(source)).await
}

/// Runs the controller on the beads of `source` until the runtime drains.
pub async fn serve(runtime: Runtime, source: Arc<dyn BeadSource>) -> anyhow::Result<()> {
    definitions::check(&runtime, rbac::Controller::Convoy);
    let (trigger, triggers) = watch::triggers::<Convoy>();
    let (indices, waiting) = (Indices::default(), Arc::new(Waiting::default()));
    let convoys = watches::convoys(&runtime, &trigger, &indices);
    let own_polecats = Arc::new(OwnWrites::default());
    let own = Arc::new(OwnWrites::default());
    watches::merge_requests(&runtime, &trigger, &indices);
    let rigs = watches::rigs(&runtime, &trigger, &indices);
    let ctx = Context {
        metrics: ConvoyMetrics::new(&runtime.metrics, &runtime.shards, &convoys, &rigs),
        rigs,
        bead_stores: watches::bead_stores(&runtime, &trigger, &indices),
        polecats: watches::polecats(&runtime, &trigger, &indices, &waiting, &own_polecats),
        own_polecats,
        beads: BeadCache::new(&runtime, source, convoys.clone(), &indices, trigger),
        indices,
        waiting,
        worked: Worked::default(),
        convoys: convoys.clone(),
        rig_locks: RigLocks::default(),
        pace: Pace::default(),
        own: own.clone(),
        lives: Lives::default(),
        runtime: runtime.clone(),
    };
    Controller {
        name: "convoy",
        store: convoys,
        own,
        triggers,
        rig: |convoy| convoy.spec.rig_ref.as_deref().unwrap_or_default().into(),
        conditions: Some(|object| Some(&object.status.as_ref()?.conditions)),
    }
    .run(&runtime, Arc::new(ctx), reconcile)
    .await;
    Ok(())
}
