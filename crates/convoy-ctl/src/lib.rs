//! The convoy controller: follows beads until all are done, and starts a Polecat for each where
//! that is wanted.
//!
//! The rules are in [`gastown_core::convoy`]; here they meet the API server and the server of the
//! rigs' beads.

mod act;
mod beads;
mod expect;
mod gather;
mod report;

use std::sync::Arc;
use std::time::Duration;

use gastown_api::{
    BeadStore, Convoy, ConvoyPhase, MergeRequest, Polecat, PolecatSpec, PolecatStatus, Rig,
};
use gastown_core::convoy::{self, Phase};
use gastown_runtime::controller::{Class, Classify, Controller, resync};
use gastown_runtime::pace::Pace;
use gastown_runtime::watch::{self, Watch};
use gastown_runtime::{Runtime, apply, jittered};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};

pub use beads::{BeadSource, Revisions, Served};

/// A convoy that is not over is looked at again after this time, whatever the watches say.
const RESYNC: Duration = Duration::from_secs(30);

/// What convoy-ctl can be told.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ConvoyArgs {
    /// Where beadstore-ctl serves beads; its Service in our namespace when absent
    #[arg(long, env = "GASTOWN_BEADSTORE_ENDPOINT")]
    pub beadstore_endpoint: Option<String>,
}

/// What a reconcile reads and writes through.
struct Context {
    runtime: Runtime,
    rigs: Store<Rig>,
    stores: Store<BeadStore>,
    polecats: Store<Polecat>,
    requests: Store<MergeRequest>,
    beads: Arc<beads::Beads>,
    expected: expect::Expected,
    pace: Pace,
}

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("carrying out the plan for convoy {convoy}")]
    Act {
        convoy: String,
        #[source]
        source: apply::Error,
    },
    #[error("making a polecat for convoy {convoy}")]
    Feed {
        convoy: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("writing the status of convoy {convoy}")]
    Report {
        convoy: String,
        #[source]
        source: apply::Error,
    },
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Act { source, .. } | Self::Report { source, .. } => source.class(),
            Self::Feed { source, .. } => Class::of(source),
        }
    }
}

/// Runs the controller until the runtime drains.
pub async fn start(runtime: Runtime, args: ConvoyArgs) -> anyhow::Result<()> {
    let endpoint = args.beadstore_endpoint.filter(|endpoint| !endpoint.is_empty());
    let endpoint = endpoint
        .unwrap_or_else(|| format!("https://beadstore-ctl.{}.svc:9443", runtime.args.namespace));
    let source = Served::new(&endpoint, &runtime.args);
    serve(runtime, Arc::new(source)).await
}

/// Runs the controller on the beads of `source` until the runtime drains.
pub async fn serve(runtime: Runtime, source: Arc<dyn BeadSource>) -> anyhow::Result<()> {
    let (trigger, triggers) = watch::triggers::<Convoy>();
    let convoys = Watch::<Convoy>::all(&runtime).notify_self(&trigger).start();
    let of_rig = |convoys: &Store<Convoy>| {
        let convoys = convoys.clone();
        move |rig: &str| references(&convoys, |convoy| convoy.spec.rig_ref.as_deref() == Some(rig))
    };
    let of_bead = |convoys: &Store<Convoy>| {
        let convoys = convoys.clone();
        move |rig: &str, bead: Option<&str>| {
            references(&convoys, |convoy| concerns(convoy, rig, bead))
        }
    };
    let named = of_rig(&convoys);
    let rigs =
        Watch::<Rig>::all(&runtime).notify(&trigger, move |rig| named(&rig.name_any())).start();
    let named = of_rig(&convoys);
    let stores = Watch::<BeadStore>::all(&runtime)
        .notify(&trigger, move |store| named(&store.spec.rig_ref))
        .start();
    let concerned = of_bead(&convoys);
    let polecats = Watch::<Polecat>::all(&runtime)
        .trim(trim_polecat)
        .notify(&trigger, move |polecat| {
            concerned(&polecat.spec.rig, polecat.spec.bead_id.as_deref())
        })
        .start();
    let concerned = of_bead(&convoys);
    let requests = Watch::<MergeRequest>::all(&runtime)
        .trim(trim_request)
        .notify(&trigger, move |request| {
            concerned(&request.spec.rig_ref, request.spec.bead_id.as_deref())
        })
        .start();
    let beads = beads::Beads::new(&runtime, source, convoys.clone(), trigger);
    let context = Context {
        runtime: runtime.clone(),
        rigs,
        stores,
        polecats,
        requests,
        beads,
        expected: expect::Expected::default(),
        pace: Pace::new(report::DETAILS_EVERY),
    };
    Controller { name: "convoy", store: convoys, triggers }
        .run(&runtime, Arc::new(context), reconcile)
        .await;
    Ok(())
}

fn references(
    convoys: &Store<Convoy>,
    concerned: impl Fn(&Convoy) -> bool,
) -> Vec<ObjectRef<Convoy>> {
    convoys
        .state_filter(concerned)
        .iter()
        .map(|convoy| ObjectRef::from_obj(convoy.as_ref()))
        .collect()
}

/// Whether a Polecat or a MergeRequest of this rig and bead matters to a convoy: it is about one of
/// its beads, or it takes or frees a place of the rig.
fn concerns(convoy: &Convoy, rig: &str, bead: Option<&str>) -> bool {
    let spec = &convoy.spec;
    let of_rig = spec.rig_ref.as_deref().is_none_or(|named| named == rig);
    let is_over =
        convoy.status.as_ref().and_then(|status| status.phase) == Some(ConvoyPhase::Complete);
    of_rig
        && ((spec.dispatch && !is_over)
            || bead.is_some_and(|bead| spec.tracked_beads.iter().any(|tracked| tracked == bead)))
}

/// Leaves of a Polecat what is read here: there are thousands.
fn trim_polecat(polecat: &mut Polecat) {
    let mut kept = PolecatSpec::of_rig(std::mem::take(&mut polecat.spec.rig));
    kept.desired_state = polecat.spec.desired_state;
    kept.bead_id = polecat.spec.bead_id.take();
    polecat.spec = kept;
    polecat.metadata.annotations = None;
    polecat.metadata.labels = None;
    if let Some(status) = polecat.status.take() {
        let mut conditions = status.conditions;
        conditions.retain(|condition| condition.type_ == gastown_api::names::condition::DEGRADED);
        polecat.status =
            Some(PolecatStatus { phase: status.phase, conditions, ..PolecatStatus::default() });
    }
}

fn trim_request(request: &mut MergeRequest) {
    request.metadata.annotations = None;
    if let Some(status) = request.status.as_mut() {
        status.attempts.clear();
        status.conditions.clear();
    }
}

async fn reconcile(object: Arc<Convoy>, context: Arc<Context>) -> Result<Action, Error> {
    // Asked before the rig's turn is taken: a slow server must not keep other convoys of the rig
    // waiting.
    let known = gather::beads(&object, &context).await;
    let turn =
        context.expected.turn(object.spec.rig_ref.as_deref().filter(|_| object.spec.dispatch));
    let held = match turn {
        Some(turn) => Some(turn.lock_owned().await),
        None => None,
    };
    let snapshot = gather::snapshot(&object, &known, &context);
    let plan = convoy::decide(&snapshot);
    tracing::debug!(?plan, "decided");
    if snapshot.deleting {
        return Ok(Action::await_change());
    }
    let acted = match act::carry_out(&object, &known, &plan, &context).await {
        Ok(present) => act::tell(&present, &plan, &context).await,
        Err(error) => Err(error),
    };
    drop(held);
    let refused = acted.as_ref().err().and_then(act::refusal);
    let status = report::status(&object, &plan.verdict, refused.as_deref(), Timestamp::now());
    if acted.is_ok()
        && report::is_detail(object.status.as_ref(), &status)
        && let Some(wait) = context.pace.wait(object.as_ref())
    {
        return Ok(Action::requeue(wait));
    }
    let reported = report::publish(&object, &status, &plan.verdict, &context).await;
    acted?;
    reported.map_err(|source| Error::Report { convoy: object.name_any(), source })?;
    Ok(if plan.verdict.phase == Phase::Complete {
        resync()
    } else {
        Action::requeue(jittered(RESYNC))
    })
}
