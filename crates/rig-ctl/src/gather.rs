//! Reads the watches' stores into one [`Snapshot`]; no judgement.

use std::sync::Arc;

use gastown_api::names::{condition, finalizer};
use gastown_api::{
    Convoy, ConvoyPhase, DesiredState, Polecat, PolecatPhase, RefineryPhase, Rig, conditions,
};
use gastown_core::rig::{Child, ChildRef, PolecatFact, Readiness, Snapshot};
use gastown_core::seniority::Seniority;
use gastown_runtime::ours;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt as _};

use crate::context::Context;

/// Everything that decides about this Rig now.
pub(crate) fn snapshot(rig: &Rig, ctx: &Context) -> Snapshot {
    let name = rig.name_any();
    let polecats = ctx.polecats.of(&name);
    Snapshot {
        namespace: ctx.runtime.args.namespace.clone(),
        deleting: rig.metadata.deletion_timestamp.is_some(),
        finalizer: rig.finalizers().iter().any(|present| present == finalizer::RIG),
        suspended: rig.spec.suspend,
        wants_beads: rig.spec.beads.is_some(),
        refineries: refineries(rig, ctx),
        witnesses: witnesses(rig, ctx),
        bead_stores: bead_stores(rig, ctx),
        polecats: polecats.iter().map(|polecat| polecat_fact(polecat)).collect(),
        active_convoys: active_convoys(&name, ctx),
        name,
    }
}

fn refineries(rig: &Rig, ctx: &Context) -> Vec<Child> {
    let name = rig.name_any();
    let branch = rig.spec.refinery.clone().unwrap_or_default().for_rig(&name).target_branch;
    candidates(&ctx.refineries, rig, "refinery", ctx, |refinery| &refinery.spec.rig_ref)
        .iter()
        .map(|refinery| {
            let status = refinery.status.as_ref();
            Child {
                same_duty: refinery.spec.rig_ref == name && refinery.spec.target_branch == branch,
                busy: status.and_then(|status| status.phase) == Some(RefineryPhase::Processing),
                readiness: readiness(
                    refinery.as_ref(),
                    status.map_or(&[], |status| &status.conditions),
                ),
                ..child(refinery.as_ref(), rig, ctx)
            }
        })
        .collect()
}

fn witnesses(rig: &Rig, ctx: &Context) -> Vec<Child> {
    let name = rig.name_any();
    candidates(&ctx.witnesses, rig, "witness", ctx, |witness| &witness.spec.rig_ref)
        .iter()
        .map(|witness| Child {
            same_duty: witness.spec.rig_ref == name,
            readiness: readiness(
                witness.as_ref(),
                witness.status.as_ref().map_or(&[], |status| &status.conditions),
            ),
            ..child(witness.as_ref(), rig, ctx)
        })
        .collect()
}

fn bead_stores(rig: &Rig, ctx: &Context) -> Vec<Child> {
    let name = rig.name_any();
    candidates(&ctx.bead_stores, rig, "beads", ctx, |store| &store.spec.rig_ref)
        .iter()
        .map(|store| Child {
            same_duty: store.spec.rig_ref == name,
            readiness: readiness(
                store.as_ref(),
                store.status.as_ref().map_or(&[], |status| &status.conditions),
            ),
            ..child(store.as_ref(), rig, ctx)
        })
        .collect()
}

/// The objects of a kind that name the Rig, that it created, or that have the name of its own one,
/// `<rig>-<suffix>` in the namespace of the installation.
fn candidates<K>(
    store: &Store<K>,
    rig: &Rig,
    suffix: &str,
    ctx: &Context,
    rig_ref: impl Fn(&K) -> &String,
) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let name = rig.name_any();
    let own_name = format!("{name}-{suffix}");
    store.state_filter(|child| {
        *rig_ref(child) == name
            || is_ours(child, rig, ctx)
            || (child.meta().namespace.as_ref() == Some(&ctx.runtime.args.namespace)
                && child.meta().name.as_ref() == Some(&own_name))
    })
}

/// Whether the Rig created the child: where it creates its children, and controlled by it.
fn is_ours<K: Resource>(child: &K, rig: &Rig, ctx: &Context) -> bool {
    child.meta().namespace.as_ref() == Some(&ctx.runtime.args.namespace)
        && ours::controls(rig, child)
}

/// What is read of every kind of child in the same way.
fn child<K: Resource<DynamicType = ()>>(child: &K, rig: &Rig, ctx: &Context) -> Child {
    Child {
        reference: ChildRef {
            namespace: child.namespace().unwrap_or_default(),
            name: child.name_any(),
            uid: child.uid().unwrap_or_default(),
        },
        ours: is_ours(child, rig, ctx),
        same_duty: false,
        deleting: child.meta().deletion_timestamp.is_some(),
        busy: false,
        seniority: Seniority::of(child),
        readiness: Readiness::Unknown,
    }
}

/// The `Ready` condition of a child. One that was observed of an older generation does not count.
fn readiness<K: Resource<DynamicType = ()>>(child: &K, conditions: &[Condition]) -> Readiness {
    let current = conditions::find(conditions, condition::READY).filter(|ready| {
        ready.observed_generation.is_none() || ready.observed_generation == child.meta().generation
    });
    match current {
        Some(ready) if ready.status == "True" => Readiness::Ready,
        Some(ready) if ready.status == "False" => {
            Readiness::NotReady { reason: ready.reason.clone(), message: ready.message.clone() }
        }
        _ => Readiness::Unknown,
    }
}

fn polecat_fact(polecat: &Polecat) -> PolecatFact {
    let status = polecat.status.as_ref();
    let admitted =
        status.is_some_and(|status| conditions::is_true(&status.conditions, condition::ADMITTED));
    PolecatFact {
        name: format!("{}/{}", polecat.namespace().unwrap_or_default(), polecat.name_any()),
        phase: status.and_then(|status| status.phase).unwrap_or(PolecatPhase::Idle),
        wanted: polecat.spec.desired_state == DesiredState::Working,
        holds_slot: admitted || status.and_then(|status| status.pod_active) == Some(true),
    }
}

fn active_convoys(rig: &str, ctx: &Context) -> usize {
    let is_active = |convoy: &Convoy| {
        let phase = convoy.status.as_ref().and_then(|status| status.phase);
        phase == Some(ConvoyPhase::InProgress)
    };
    ctx.convoys.filter(rig, is_active).len()
}
