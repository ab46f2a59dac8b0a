//! Reads the stores into one [`Snapshot`]; no judgement.

use gastown_api::names::condition;
use gastown_api::{
    BeadStore, ConvoyPhase, DesiredState, Polecat, PolecatPhase, RefineryPhase, Rig, conditions,
    names,
};
use gastown_core::rig::{Child, ChildRef, Phase, PolecatFact, Readiness, Snapshot};
use gastown_runtime::apply;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt as _};

use crate::Context;

/// Everything that decides about this rig now.
pub fn snapshot(rig: &Rig, context: &Context) -> Snapshot {
    let name = rig.name_any();
    let namespace = &context.runtime.args.namespace;
    let is_own_name = |object: &dyn Fn() -> (Option<String>, String), suffix: &str| {
        let (at, called) = object();
        at.as_deref() == Some(namespace.as_str()) && called == format!("{name}-{suffix}")
    };
    let branch = rig.spec.refinery.clone().unwrap_or_default().for_rig(&name).target_branch;
    let refineries = context.refineries.state_filter(|child| {
        child.spec.rig_ref == name
            || apply::is_owned_by(child, rig)
            || is_own_name(&|| (child.namespace(), child.name_any()), "refinery")
    });
    let witnesses = context.witnesses.state_filter(|child| {
        child.spec.rig_ref == name
            || apply::is_owned_by(child, rig)
            || is_own_name(&|| (child.namespace(), child.name_any()), "witness")
    });
    let bead_stores = context.bead_stores.state_filter(|child| {
        child.spec.rig_ref == name
            || apply::is_owned_by(child, rig)
            || is_own_name(&|| (child.namespace(), child.name_any()), "beads")
    });
    let polecats = context.polecats.state_filter(|polecat| polecat.spec.rig == name);
    Snapshot {
        namespace: namespace.clone(),
        deleting: rig.metadata.deletion_timestamp.is_some(),
        finalizer: rig.finalizers().iter().any(|finalizer| finalizer == names::finalizer::RIG),
        suspended: rig.spec.suspend,
        refineries: refineries
            .iter()
            .map(|refinery| Child {
                same_duty: refinery.spec.rig_ref == name && refinery.spec.target_branch == branch,
                busy: refinery
                    .status
                    .as_ref()
                    .is_some_and(|status| status.phase == Some(RefineryPhase::Processing)),
                readiness: readiness(
                    refinery.as_ref(),
                    refinery.status.as_ref().map(|status| &status.conditions),
                ),
                ..child(refinery.as_ref(), rig)
            })
            .collect(),
        witnesses: witnesses
            .iter()
            .map(|witness| Child {
                same_duty: witness.spec.rig_ref == name,
                ..child(witness.as_ref(), rig)
            })
            .collect(),
        bead_stores: bead_stores
            .iter()
            .map(|store: &std::sync::Arc<BeadStore>| Child {
                same_duty: store.spec.rig_ref == name,
                readiness: readiness(
                    store.as_ref(),
                    store.status.as_ref().map(|status| &status.conditions),
                ),
                ..child(store.as_ref(), rig)
            })
            .collect(),
        wants_beads: rig.spec.beads.is_some(),
        polecats: polecats.iter().map(|polecat| fact(polecat)).collect(),
        name,
    }
}

/// Convoys of the rig that are in progress.
pub fn active_convoys(rig: &str, context: &Context) -> usize {
    let active = |convoy: &gastown_api::Convoy| {
        let phase = convoy.status.as_ref().and_then(|status| status.phase);
        convoy.spec.rig_ref.as_deref() == Some(rig) && phase == Some(ConvoyPhase::InProgress)
    };
    context.convoys.state_filter(active).len()
}

fn child<K: Resource<DynamicType = ()>>(child: &K, rig: &Rig) -> Child {
    Child {
        reference: ChildRef {
            namespace: child.namespace().unwrap_or_default(),
            name: child.name_any(),
            uid: child.uid().unwrap_or_default(),
        },
        ours: apply::is_owned_by(child, rig),
        same_duty: false,
        deleting: child.meta().deletion_timestamp.is_some(),
        busy: false,
        created: child.creation_timestamp().map(|time| time.0),
        readiness: Readiness::Unknown,
    }
}

/// A verdict about an older spec says nothing about this one.
fn readiness<K: Resource<DynamicType = ()>>(
    child: &K,
    conditions: Option<&Vec<Condition>>,
) -> Readiness {
    let current = conditions::find(conditions.map_or(&[][..], Vec::as_slice), condition::READY)
        .filter(|ready| {
            ready.observed_generation.is_none()
                || ready.observed_generation == child.meta().generation
        });
    match current {
        Some(ready) if ready.status == "True" => Readiness::Ready,
        Some(ready) if ready.status == "False" => {
            Readiness::NotReady { reason: ready.reason.clone(), message: ready.message.clone() }
        }
        _ => Readiness::Unknown,
    }
}

fn fact(polecat: &Polecat) -> PolecatFact {
    let status = polecat.status.as_ref();
    let admitted =
        status.is_some_and(|status| conditions::is_true(&status.conditions, condition::ADMITTED));
    PolecatFact {
        name: format!("{}/{}", polecat.namespace().unwrap_or_default(), polecat.name_any()),
        phase: match status.and_then(|status| status.phase) {
            None | Some(PolecatPhase::Idle) => Phase::Idle,
            Some(PolecatPhase::Working) => Phase::Working,
            Some(PolecatPhase::Done) => Phase::Done,
            Some(PolecatPhase::Stuck) => Phase::Stuck,
            Some(PolecatPhase::Terminated) => Phase::Terminated,
        },
        wanted: polecat.spec.desired_state == DesiredState::Working,
        holds_slot: admitted || status.and_then(|status| status.pod_active) == Some(true),
    }
}
