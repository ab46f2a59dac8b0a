//! The rig controller: a Rig's Refinery and Witness, its counts, its orderly end.
//!
//! The rules are in [`gastown_core::rig`]; here they meet the API server.

mod act;
mod gather;
mod report;

use std::sync::Arc;

use gastown_api::{BeadStore, Convoy, Polecat, PolecatSpec, Refinery, Rig, Witness};
use gastown_core::rig::{self, Acted, Plan};
use gastown_runtime::controller::{Class, Classify, Controller, resync};
use gastown_runtime::pace::Pace;
use gastown_runtime::watch::{self, Watch};
use gastown_runtime::{NoArgs, Runtime, apply};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};

/// What a reconcile reads and writes through.
struct Context {
    runtime: Runtime,
    refineries: Store<Refinery>,
    witnesses: Store<Witness>,
    bead_stores: Store<BeadStore>,
    polecats: Store<Polecat>,
    convoys: Store<Convoy>,
    pace: Pace,
}

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("carrying out the plan for rig {rig}")]
    Act {
        rig: String,
        #[source]
        source: apply::Error,
    },
    #[error("writing the status of rig {rig}")]
    Report {
        rig: String,
        #[source]
        source: apply::Error,
    },
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Act { source, .. } | Self::Report { source, .. } => source.class(),
        }
    }
}

/// Runs the controller until the runtime drains.
pub async fn start(runtime: Runtime, NoArgs {}: NoArgs) -> anyhow::Result<()> {
    let (trigger, triggers) = watch::triggers::<Rig>();
    let of_rig = |name: &str| [ObjectRef::<Rig>::new(name)];
    let refineries = Watch::<Refinery>::all(&runtime)
        .notify(&trigger, move |child| of_rig(&child.spec.rig_ref))
        .start();
    let witnesses = Watch::<Witness>::all(&runtime)
        .trim(|child| child.status = None)
        .notify(&trigger, move |child| of_rig(&child.spec.rig_ref))
        .start();
    let bead_stores = Watch::<BeadStore>::all(&runtime)
        .notify(&trigger, move |child| of_rig(&child.spec.rig_ref))
        .start();
    let polecats = Watch::<Polecat>::all(&runtime)
        .trim(trim)
        .notify(&trigger, move |polecat| of_rig(&polecat.spec.rig))
        .start();
    let convoys = Watch::<Convoy>::all(&runtime)
        .trim(|convoy| convoy.spec.tracked_beads.clear())
        .notify(&trigger, move |convoy| convoy.spec.rig_ref.as_deref().map(ObjectRef::<Rig>::new))
        .start();
    let rigs = Watch::<Rig>::all(&runtime).notify_self(&trigger).start();
    let context = Context {
        runtime: runtime.clone(),
        refineries,
        witnesses,
        bead_stores,
        polecats,
        convoys,
        pace: Pace::new(report::COUNTS_EVERY),
    };
    Controller { name: "rig", store: rigs, triggers }
        .run(&runtime, Arc::new(context), reconcile)
        .await;
    Ok(())
}

/// Leaves of a Polecat what is counted: there are thousands.
fn trim(polecat: &mut Polecat) {
    let mut kept = PolecatSpec::of_rig(std::mem::take(&mut polecat.spec.rig));
    kept.desired_state = polecat.spec.desired_state;
    polecat.spec = kept;
    polecat.metadata.annotations = None;
    polecat.metadata.labels = None;
    if let Some(status) = polecat.status.take() {
        let admitted = |condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            condition.type_ == gastown_api::names::condition::ADMITTED
        };
        polecat.status = Some(gastown_api::PolecatStatus {
            phase: status.phase,
            pod_active: status.pod_active,
            conditions: status.conditions.into_iter().filter(admitted).collect(),
            ..gastown_api::PolecatStatus::default()
        });
    }
}

async fn reconcile(object: Arc<Rig>, context: Arc<Context>) -> Result<Action, Error> {
    let snapshot = gather::snapshot(&object, &context);
    let plan = rig::decide(&snapshot);
    tracing::debug!(?plan, "decided");
    let acted = act::carry_out(&object, &snapshot, &plan, &context).await;
    if matches!(plan, Plan::RemoveFinalizer | Plan::Nothing) && acted.is_ok() {
        return Ok(Action::await_change());
    }
    let refused = acted
        .as_ref()
        .err()
        .map(|error| error.refusal().map_or_else(|| error.to_string(), ToOwned::to_owned));
    let outcome = refused.as_deref().map_or(Acted::Done, Acted::Refused);
    let verdict = rig::judge(&snapshot, &plan, outcome);
    let status = report::status(&object, &snapshot, &context, &verdict, Timestamp::now());
    let reported = report::publish(&object, &status, &verdict, &context).await;
    let name = || object.name_any();
    acted.map_err(|source| Error::Act { rig: name(), source })?;
    let later = reported.map_err(|source| Error::Report { rig: name(), source })?;
    Ok(later.map_or_else(resync, Action::requeue))
}
