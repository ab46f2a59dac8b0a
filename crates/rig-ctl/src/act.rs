//! Carries out a [`Plan`]; no judgement.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use gastown_api::names::{finalizer, label, manager};
use gastown_api::{BeadStore, Refinery, Rig, Witness};
use gastown_core::rig::{ChildPlan, ChildRef, Plan, Snapshot};
use gastown_runtime::apply;
use gastown_runtime::events::Note;
use kube::api::ObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Context;

/// Does what the plan says. The first refusal ends it; the rest is tried again with it.
pub async fn carry_out(
    rig: &Rig,
    snapshot: &Snapshot,
    plan: &Plan,
    context: &Context,
) -> Result<(), apply::Error> {
    let rigs: Api<Rig> = Api::all(context.runtime.client.clone());
    match plan {
        Plan::AddFinalizer => {
            apply::add_finalizer(&rigs, manager::RIG, rig, finalizer::RIG).await.map(drop)
        }
        Plan::Keep { refinery, witness, beads } => {
            let metadata = |suffix: &str| metadata(rig, snapshot, suffix);
            let template = rig.spec.refinery.clone().unwrap_or_default();
            let wanted = Refinery {
                metadata: metadata("refinery")?,
                spec: template.for_rig(&snapshot.name),
                status: None,
            };
            keep(rig, refinery, &wanted, &context.refineries, context).await?;
            let template = rig.spec.witness.clone().unwrap_or_default();
            let wanted = Witness {
                metadata: metadata("witness")?,
                spec: template.for_rig(&snapshot.name),
                status: None,
            };
            keep(rig, witness, &wanted, &context.witnesses, context).await?;
            let template = rig.spec.beads.clone().unwrap_or_default();
            let spec = template.for_rig(&snapshot.name, &rig.spec.beads_prefix);
            let wanted = BeadStore { metadata: metadata("beads")?, spec, status: None };
            keep(rig, beads, &wanted, &context.bead_stores, context).await
        }
        Plan::DeleteChildren { refineries, witnesses, bead_stores } => {
            delete(refineries, &context.refineries, context).await?;
            delete(witnesses, &context.witnesses, context).await?;
            delete(bead_stores, &context.bead_stores, context).await
        }
        Plan::RemoveFinalizer => {
            apply::remove_finalizer(&rigs, manager::RIG, rig, finalizer::RIG).await.map(drop)
        }
        Plan::AwaitPolecats { .. } | Plan::Nothing => Ok(()),
    }
}

fn metadata(rig: &Rig, snapshot: &Snapshot, suffix: &str) -> Result<ObjectMeta, apply::Error> {
    let mut labels =
        BTreeMap::from([(label::MANAGED_BY.to_owned(), label::MANAGED_BY_RIG.to_owned())]);
    // A longer name is no label value.
    if snapshot.name.len() <= 63 {
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

/// The object in the store that is exactly this one.
fn stored<K>(reference: &ChildRef, store: &Store<K>) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let object = store.get(&ObjectRef::new(&reference.name).within(&reference.namespace))?;
    (object.meta().uid.as_deref() == Some(&reference.uid)).then_some(object)
}

async fn keep<K>(
    rig: &Rig,
    plan: &ChildPlan,
    wanted: &K,
    store: &Store<K>,
    context: &Context,
) -> Result<(), apply::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + 'static,
{
    let kind = K::kind(&());
    let named = format!("{}/{}", wanted.namespace().unwrap_or_default(), wanted.name_any());
    match plan {
        ChildPlan::Apply { present } => {
            let present = present.as_ref().and_then(|reference| stored(reference, store));
            let api = Api::namespaced(
                context.runtime.client.clone(),
                &wanted.namespace().unwrap_or_default(),
            );
            if apply::child(&api, manager::RIG, present.as_deref(), wanted).await?
                && present.is_none()
            {
                context.runtime.events.publish(
                    rig,
                    Note::normal("Children", "ChildCreated", format!("made {kind} {named}")),
                );
            }
            Ok(())
        }
        ChildPlan::Use { child, withdraw } => {
            for ours in withdraw {
                let message = format!("{kind} {ours} withdraws: {child} was written for this rig");
                context
                    .runtime
                    .events
                    .publish(rig, Note::normal("Children", "ChildWithdrawn", message));
            }
            delete(withdraw, store, context).await
        }
        ChildPlan::Withdraw { ours } => delete(ours, store, context).await,
        ChildPlan::AwaitDeletion | ChildPlan::Blocked { .. } => Ok(()),
    }
}

async fn delete<K>(
    children: &[ChildRef],
    store: &Store<K>,
    context: &Context,
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
            stored(reference, store).filter(|object| object.meta().deletion_timestamp.is_none())
        else {
            continue;
        };
        let api = Api::namespaced(context.runtime.client.clone(), &reference.namespace);
        apply::delete(&api, object.as_ref()).await?;
    }
    Ok(())
}
