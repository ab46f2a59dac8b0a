//! Pods whose Polecat is gone: they lose their finalizer, so that nothing of ours stays for ever.

use std::sync::Arc;

use gastown_api::Polecat;
use gastown_api::names::{finalizer, manager};
use gastown_core::polecat::NODE_LOST_SECONDS;
use gastown_runtime::apply;
use gastown_runtime::controller::{Action, resync};
use gastown_runtime::ours;
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use crate::context::Context;
use crate::error::{Error, api_error};
use crate::pod::{AgentPod, owner_uid};
use crate::sightings::{Look, Sightings};

/// Reconciles one pod. One whose Polecat exists is that Polecat's to reconcile.
pub(crate) async fn reconcile(pod: Arc<AgentPod>, ctx: Arc<Context>) -> Result<Action, Error> {
    let Some(uid) = owner_uid(&pod) else { return Ok(Action::await_change()) };
    if !pod.finalizers().iter().any(|f| f == finalizer::OUTCOME)
        || has_owner(&ctx, &pod, uid).await?
    {
        return Ok(Action::await_change());
    }
    let api: Api<AgentPod> =
        Api::namespaced(ctx.runtime.client.clone(), &pod.namespace().unwrap_or_default());
    if is_over(&pod, &ctx.shared.sightings, Timestamp::now()) {
        apply::remove_finalizer(&api, manager::POLECAT, pod.as_ref(), finalizer::OUTCOME).await?;
        return Ok(Action::await_change());
    }
    if pod.metadata.deletion_timestamp.is_none() {
        // its agent saves its work within the pod's grace period
        apply::delete(&api, pod.as_ref()).await?;
    }
    Ok(resync())
}

/// Whether the pod can do no more work: it has ended, its node is lost, or it never had one.
fn is_over(pod: &AgentPod, sightings: &Sightings, now: Timestamp) -> bool {
    if pod.has_ended() {
        return true;
    }
    let meta = &pod.metadata;
    let look = Look { deleted: meta.deletion_timestamp.is_some(), ..Look::default() };
    let (_, deleted) = sightings.look(now, meta.uid.as_deref().unwrap_or_default(), look);
    let limit = meta.deletion_grace_period_seconds.unwrap_or(0).saturating_add(NODE_LOST_SECONDS);
    deleted.is_some_and(|t| !pod.scheduled || now.duration_since(t).as_secs() >= limit)
}

/// Whether the pod's Polecat exists. A cache may be behind, so the API server is asked before the
/// answer is no.
async fn has_owner(ctx: &Context, pod: &AgentPod, uid: &str) -> Result<bool, Error> {
    let namespace = pod.namespace().unwrap_or_default();
    let Some(name) = ours::controller::<Polecat>(pod).map(|owner| owner.name.clone()) else {
        return Ok(true);
    };
    let cached = ctx.stores.polecats.get(&ObjectRef::<Polecat>::new(&name).within(&namespace));
    if cached.is_some_and(|p| p.uid().as_deref() == Some(uid)) {
        return Ok(true);
    }
    let api: Api<Polecat> = Api::namespaced(ctx.runtime.client.clone(), &namespace);
    let found = api.get_opt(&name).await.map_err(api_error("reading polecat", &name))?;
    Ok(found.is_some_and(|p| p.uid().as_deref() == Some(uid)))
}
