//! Pods whose Polecat is gone: they are let go, so that nothing of ours stays for ever.

use std::sync::Arc;

use gastown_api::Polecat;
use gastown_api::names::finalizer;
use gastown_runtime::apply;
use gastown_runtime::controller::resync;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use crate::act::Error;
use crate::context::Context;
use crate::gather::owner_uid;

/// Looks at one pod. One with an owner is the owner's business.
pub async fn reconcile(pod: Arc<Pod>, cx: Arc<Context>) -> Result<Action, Error> {
    let Some(uid) = owner_uid(&pod) else { return Ok(Action::await_change()) };
    if !pod.finalizers().iter().any(|f| f == finalizer::OUTCOME)
        || has_owner(&cx, &pod, uid).await?
    {
        return Ok(Action::await_change());
    }
    let api: Api<Pod> =
        Api::namespaced(cx.runtime.client.clone(), &pod.namespace().unwrap_or_default());
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let scheduled = pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
    let now = Timestamp::now();
    let lost = pod.metadata.deletion_timestamp.as_ref().is_some_and(|t| {
        now.as_second() - t.0.as_second() >= gastown_core::polecat::NODE_LOST_SECONDS
    });
    if matches!(phase, Some("Succeeded" | "Failed"))
        || lost
        || (pod.metadata.deletion_timestamp.is_some() && !scheduled)
    {
        apply::remove_finalizer(
            &api,
            gastown_api::names::manager::POLECAT,
            pod.as_ref(),
            finalizer::OUTCOME,
        )
        .await?;
        return Ok(Action::await_change());
    }
    if pod.metadata.deletion_timestamp.is_none() {
        // its agent saves what it has within the pod's grace
        apply::delete(&api, pod.as_ref()).await?;
    }
    Ok(resync())
}

/// Asked of the API server when the cache says no: a missing owner must really be missing.
async fn has_owner(cx: &Context, pod: &Pod, uid: &str) -> Result<bool, Error> {
    let namespace = pod.namespace().unwrap_or_default();
    let Some(name) = pod.owner_references().iter().find(|o| o.uid == uid).map(|o| o.name.clone())
    else {
        return Ok(true);
    };
    let cached = cx.polecats.get(&ObjectRef::<Polecat>::new(&name).within(&namespace));
    if cached.is_some_and(|p| p.uid().as_deref() == Some(uid)) {
        return Ok(true);
    }
    let api: Api<Polecat> = Api::namespaced(cx.runtime.client.clone(), &namespace);
    let found = api.get_opt(&name).await.map_err(|source| Error::Api {
        doing: "reading polecat",
        name,
        source: Box::new(source),
    })?;
    Ok(found.is_some_and(|p| p.uid().as_deref() == Some(uid)))
}
