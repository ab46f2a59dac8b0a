//! Carries out a [`Plan`]; no judgement.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use gastown_api::names::{finalizer, label, manager};
use gastown_api::{BeadStore, Refinery, Rig, Witness};
use gastown_core::rig::{ChildPlan, ChildRef, Plan, Snapshot};
use gastown_runtime::apply;
use gastown_runtime::events::Note;
use gastown_types::is_label_value;
use kube::api::ObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::error::Error;

/// The topic of Events about children.
const CHILDREN: &str = "Children";

/// Carries out the plan. The first write that fails ends it; the next reconcile does the rest.
pub(crate) async fn act(
    rig: &Rig,
    snapshot: &Snapshot,
    plan: &Plan,
    ctx: &Context,
) -> Result<(), Error> {
    let rigs: Api<Rig> = Api::all(ctx.runtime.client.clone());
    let done = match plan {
        Plan::AddFinalizer => {
            let added = apply::add_finalizer(&rigs, manager::RIG, rig, finalizer::RIG).await;
            added.map(|written| written.into_iter().for_each(|rig| ctx.own.record(rig)))
        }
        Plan::Keep { refinery, witness, beads } => {
            keep_children(rig, snapshot, [refinery, witness, beads], ctx).await
        }
        Plan::DeleteChildren { refineries, witnesses, bead_stores } => {
            delete_children(refineries, witnesses, bead_stores, ctx).await
        }
        Plan::RemoveFinalizer => {
            apply::remove_finalizer(&rigs, manager::RIG, rig, finalizer::RIG).await.map(drop)
        }
        Plan::AwaitPolecats { .. } | Plan::Nothing => Ok(()),
    };
    done.map_err(|source| Error::Act { rig: rig.name_any(), source })
}

async fn keep_children(
    rig: &Rig,
    snapshot: &Snapshot,
    [refinery, witness, beads]: [&ChildPlan; 3],
    ctx: &Context,
) -> Result<(), apply::Error> {
    let spec = rig.spec.refinery.clone().unwrap_or_default().for_rig(&snapshot.name);
    let metadata = child_metadata(rig, snapshot, "refinery")?;
    let wanted = Refinery { metadata, spec, status: None };
    let mut created = Vec::new();
    created.extend(keep(rig, refinery, &wanted, &ctx.refineries, ctx).await?);

    let spec = rig.spec.witness.clone().unwrap_or_default().for_rig(&snapshot.name);
    let metadata = child_metadata(rig, snapshot, "witness")?;
    let wanted = Witness { metadata, spec, status: None };
    created.extend(keep(rig, witness, &wanted, &ctx.witnesses, ctx).await?);

    let template = rig.spec.beads.clone().unwrap_or_default();
    let spec = template.for_rig(&snapshot.name, &rig.spec.beads_prefix);
    let metadata = child_metadata(rig, snapshot, "beads")?;
    let wanted = BeadStore { metadata, spec, status: None };
    created.extend(keep(rig, beads, &wanted, &ctx.bead_stores, ctx).await?);
    if !created.is_empty() {
        let message = format!("created {}", created.join(", "));
        ctx.runtime.events.publish(rig, Note::normal(CHILDREN, "ChildCreated", message));
    }
    Ok(())
}

async fn delete_children(
    refineries: &[ChildRef],
    witnesses: &[ChildRef],
    bead_stores: &[ChildRef],
    ctx: &Context,
) -> Result<(), apply::Error> {
    delete(refineries, &ctx.refineries, ctx).await?;
    delete(witnesses, &ctx.witnesses, ctx).await?;
    delete(bead_stores, &ctx.bead_stores, ctx).await
}

fn child_metadata(
    rig: &Rig,
    snapshot: &Snapshot,
    suffix: &str,
) -> Result<ObjectMeta, apply::Error> {
    let mut labels =
        BTreeMap::from([(label::MANAGED_BY.to_owned(), label::MANAGED_BY_RIG.to_owned())]);
    // A Rig's name may be longer than a label value.
    if is_label_value(&snapshot.name) {
        labels.insert(label::RIG_OWNER.to_owned(), snapshot.name.clone());
    }
    Ok(ObjectMeta {
        name: Some(format!("{}-{suffix}", snapshot.name)),
        namespace: Some(snapshot.namespace.clone()),
        labels: Some(labels),
        owner_references: Some(vec![apply::owner(rig)?]),
        ..ObjectMeta::default()
    })
}

/// Carries out the plan for one kind of child; `wanted` is the Rig's own one. Returns its kind and
/// name when it was created.
async fn keep<K>(
    rig: &Rig,
    plan: &ChildPlan,
    wanted: &K,
    store: &Store<K>,
    ctx: &Context,
) -> Result<Option<String>, apply::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + 'static,
{
    let kind = K::kind(&());
    let namespace = wanted.namespace().unwrap_or_default();
    match plan {
        ChildPlan::Apply { present } => {
            let present = present.as_ref().and_then(|reference| cached(reference, store));
            let api = Api::namespaced(ctx.runtime.client.clone(), &namespace);
            let written = apply::child(&api, manager::RIG, present.as_deref(), wanted).await?;
            let created = written && present.is_none();
            Ok(created.then(|| format!("{kind} {namespace}/{}", wanted.name_any())))
        }
        ChildPlan::Use { child, withdraw } => {
            for ours in withdraw {
                let message =
                    format!("deleting {kind} {ours}: a user created {child} for this rig");
                ctx.runtime.events.publish(rig, Note::normal(CHILDREN, "ChildWithdrawn", message));
            }
            delete(withdraw, store, ctx).await.map(|()| None)
        }
        ChildPlan::Withdraw { ours } => delete(ours, store, ctx).await.map(|()| None),
        ChildPlan::AwaitDeletion | ChildPlan::Blocked { .. } => Ok(None),
    }
}

/// Deletes children, except those that are gone or going.
async fn delete<K>(
    children: &[ChildRef],
    store: &Store<K>,
    ctx: &Context,
) -> Result<(), apply::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + 'static,
{
    for reference in children {
        let Some(object) =
            cached(reference, store).filter(|object| object.meta().deletion_timestamp.is_none())
        else {
            continue;
        };
        let api = Api::namespaced(ctx.runtime.client.clone(), &reference.namespace);
        apply::delete(&api, object.as_ref()).await?;
    }
    Ok(())
}

/// The object in the store that has this name and this uid.
fn cached<K>(reference: &ChildRef, store: &Store<K>) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let object = store.get(&ObjectRef::new(&reference.name).within(&reference.namespace))?;
    (object.meta().uid.as_deref() == Some(&reference.uid)).then_some(object)
}
