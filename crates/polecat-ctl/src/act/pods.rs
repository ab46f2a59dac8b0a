//! Actions on pods.

use gastown_api::Polecat;
use gastown_api::names::{annotation, finalizer, manager};
use gastown_core::polecat::{PodInputs, Snapshot};
use gastown_runtime::answers;
use gastown_runtime::apply::{self, Deletion};
use gastown_runtime::ours::{self, Parent};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt as _};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Error, api_error};
use crate::pod::{AgentPod, Prompt};
use crate::{beads, claims, pod};

fn pods(ctx: &Context, s: &Snapshot) -> Api<AgentPod> {
    Api::namespaced(ctx.runtime.client.clone(), &s.namespace)
}

fn create_params() -> PostParams {
    PostParams { field_manager: Some(manager::POLECAT.to_owned()), ..PostParams::default() }
}

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(manager::POLECAT.to_owned()), ..PatchParams::default() }
}

/// Creates the pod, and before it its prompt where that is an object of its own.
pub(super) async fn start(
    ctx: &Context,
    polecat: &Polecat,
    s: &Snapshot,
    inputs: &PodInputs,
) -> Result<(), Error> {
    let owner = apply::owner(polecat)?;
    let bead = beads::read(ctx, polecat, inputs).await?;
    let prompt = pod::prompt(s, inputs, bead.as_ref(), owner.clone());
    if let Prompt::InConfigMap(map) = &prompt {
        put_prompt(ctx, s, map).await?;
    }
    claims::confirm(ctx, polecat).await?;
    confirm(ctx, polecat, s).await?;
    let wanted = pod::build(s, inputs, &ctx.pod_defaults(), owner, &prompt);
    // until the answer is clear the pod may exist, and its slot is in use
    let (admission, rig) = (&ctx.shared.admission, s.rig.name());
    admission.promise(rig, &s.uid, &inputs.name);
    let api: Api<Pod> = Api::namespaced(ctx.runtime.client.clone(), &s.namespace);
    let answer = answers::create(&api, &create_params(), &wanted).await.map(AgentPod::from);
    if is_clear(&answer) {
        admission.settle(rig, &s.uid);
    }
    match answer {
        Ok(pod) => {
            tracing::info!(
                pod = inputs.name,
                attempt = inputs.attempt,
                resume = inputs.resume,
                "started"
            );
            ctx.shared.own_pods.record(pod);
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            adopt(ctx, s, &inputs.name).await
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            Err(Error::Refused { name: inputs.name.clone(), message: status.message.clone() })
        }
        Err(error) => Err(api_error("creating pod", &inputs.name)(error)),
    }
}

/// Whether an answer states that the pod was created, or that it was not.
fn is_clear(answer: &Result<AgentPod, kube::Error>) -> bool {
    match answer {
        Ok(_) => true,
        // the name is taken: by our own pod, perhaps
        Err(kube::Error::Api(status)) => (400..500).contains(&status.code) && status.code != 409,
        Err(_) => false,
    }
}

/// Reads the Polecat itself before its pod is created, unless a write of it was answered just now: the
/// cache may be behind what another process wrote, and a finished attempt must not be started again.
async fn confirm(ctx: &Context, polecat: &Polecat, s: &Snapshot) -> Result<(), Error> {
    if ctx.shared.own_polecats.is_answered(polecat, claims::JUST_NOW) {
        return Ok(());
    }
    let api: Api<Polecat> = Api::namespaced(ctx.runtime.client.clone(), &s.namespace);
    let found = api.get_opt(&s.name).await.map_err(api_error("reading polecat", &s.name))?;
    let ledger = |p: &Polecat| p.annotations().get(annotation::LEDGER).cloned();
    let stale = || Error::Stale { name: s.name.clone() };
    let found = found.ok_or_else(stale)?;
    let same = found.uid() == polecat.uid()
        && found.meta().deletion_timestamp.is_none()
        && found.spec == polecat.spec
        && ledger(&found) == ledger(polecat);
    if same {
        return Ok(());
    }
    if found.uid() == polecat.uid() {
        ctx.shared.own_polecats.record(found);
    }
    Err(stale())
}

/// The name is taken: by our own pod, where the answer to its creation was lost, or by another one,
/// which is left alone.
async fn adopt(ctx: &Context, s: &Snapshot, name: &str) -> Result<(), Error> {
    let found = pods(ctx, s).get(name).await.map_err(api_error("reading pod", name))?;
    ctx.shared.admission.settle(s.rig.name(), &s.uid);
    if is_ours(&found, s) {
        ctx.shared.own_pods.record(found);
        return Ok(());
    }
    Err(Error::Refused {
        name: name.to_owned(),
        message: format!("pod {name} exists and is not this Polecat's: delete it"),
    })
}

/// Whether the Polecat controls the object.
fn is_ours(object: &impl Resource, s: &Snapshot) -> bool {
    let parent = Parent { namespace: Some(&s.namespace), name: &s.name, uid: &s.uid };
    ours::belongs_to::<Polecat>(object, parent)
}

/// Creates the prompt, or updates it.
async fn put_prompt(ctx: &Context, s: &Snapshot, wanted: &ConfigMap) -> Result<(), Error> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.runtime.client.clone(), &s.namespace);
    let name = wanted.name_any();
    match api.create(&create_params(), wanted).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
            return Err(Error::Refused { name, message: status.message.clone() });
        }
        Err(error) => return Err(api_error("creating the prompt", &name)(error)),
    }
    let found = api.get(&name).await.map_err(api_error("reading the prompt", &name))?;
    if !is_ours(&found, s) {
        return Err(Error::Refused {
            message: format!("ConfigMap {name} exists and is not this Polecat's: delete it"),
            name,
        });
    }
    if found.data != wanted.data {
        let patch = json!({ "metadata": { "uid": found.uid() }, "data": wanted.data });
        api.patch(&name, &patch_params(), &Patch::Merge(&patch))
            .await
            .map_err(api_error("writing the prompt", &name))?;
    }
    Ok(())
}

/// Patches a pod's metadata. One that is gone is not an error: the next snapshot shows it.
async fn patch(
    ctx: &Context,
    s: &Snapshot,
    name: &str,
    uid: &str,
    mut metadata: Value,
    doing: &'static str,
) -> Result<(), Error> {
    metadata["uid"] = json!(uid);
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    match answers::patch(&pods(ctx, s), name, &patch_params(), &patch).await {
        Ok(pod) => record(ctx, pod),
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            ctx.shared.own_pods.record_deleted(uid);
        }
        Err(error) => return Err(api_error(doing, name)(error)),
    }
    Ok(())
}

/// Records our write of a pod. One that is being deleted without grace period or finalizer is gone.
fn record(ctx: &Context, pod: AgentPod) {
    let meta = pod.meta();
    let gone = meta.deletion_timestamp.is_some()
        && meta.deletion_grace_period_seconds.unwrap_or(0) == 0
        && pod.finalizers().is_empty();
    match pod.uid() {
        Some(uid) if gone => ctx.shared.own_pods.record_deleted(&uid),
        _ => ctx.shared.own_pods.record(pod),
    }
}

/// Asks a pod's agent to stop, so that everything is saved.
pub(super) async fn drain(
    ctx: &Context,
    s: &Snapshot,
    name: &str,
    uid: &str,
    why: &str,
) -> Result<(), Error> {
    let metadata = json!({ "annotations": { annotation::DRAIN: why } });
    patch(ctx, s, name, uid, metadata, "draining pod").await
}

/// Removes our finalizer from a pod.
pub(super) async fn remove_finalizer(
    ctx: &Context,
    s: &Snapshot,
    name: &str,
    uid: &str,
) -> Result<(), Error> {
    let Some(pod) = ctx.pod(&s.uid, uid) else { return Ok(()) };
    let others: Vec<&str> =
        pod.finalizers().iter().map(String::as_str).filter(|f| *f != finalizer::OUTCOME).collect();
    // the whole list is replaced, and only if it is as we saw it
    let metadata = json!({ "finalizers": others, "resourceVersion": pod.resource_version() });
    patch(ctx, s, name, uid, metadata, "removing the finalizer of pod").await
}

/// Deletes a pod. `grace`: how many seconds its containers have, where that is not its own grace
/// period; with 0 its node is not waited for.
pub(super) async fn delete(
    ctx: &Context,
    s: &Snapshot,
    name: &str,
    uid: &str,
    grace: Option<u32>,
) -> Result<(), Error> {
    match apply::delete_by(&pods(ctx, s), name, uid, grace).await? {
        Deletion::Going(pod) => record(ctx, pod),
        Deletion::Done | Deletion::Absent => ctx.shared.own_pods.record_deleted(uid),
    }
    Ok(())
}
