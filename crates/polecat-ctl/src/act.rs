//! Carries out one action of a plan. Matches exhaustively, judges nothing.

mod pods;

use gastown_api::Polecat;
use gastown_api::names::{annotation, finalizer, label, manager};
use gastown_core::polecat::{Action, Ledger, Snapshot};
use gastown_runtime::{answers, apply};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::context::Context;
use crate::error::{Error, api_error};
use crate::{claims, escalations};

/// What an action has done beside changing objects.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// refinery-ctl acknowledged the commit; the MergeRequest's name.
    Submitted(String),
}

/// Carries out one action.
pub(crate) async fn act(
    ctx: &Context,
    polecat: &Polecat,
    s: &Snapshot,
    action: &Action,
) -> Result<Effect, Error> {
    match action {
        Action::PatchMetadata { ledger, finalizer } => {
            patch_metadata(ctx, polecat, s, ledger.as_deref(), *finalizer).await?;
        }
        Action::Claim => claims::take(ctx, polecat, s).await?,
        Action::ReleaseClaim => claims::release(ctx, polecat, s).await?,
        Action::Comment(inputs) => ctx.services.comment(inputs).await?,
        Action::Escalate(inputs) => {
            ctx.services.escalate(&inputs.cause, &escalations::request(s, inputs)).await?;
        }
        Action::StartPod(inputs) => pods::start(ctx, polecat, s, inputs).await?,
        Action::DrainPod { pod, uid, why } => pods::drain(ctx, s, pod, uid, why).await?,
        Action::RemovePodFinalizer { pod, uid } => pods::remove_finalizer(ctx, s, pod, uid).await?,
        Action::DeletePod { pod, uid, grace } => pods::delete(ctx, s, pod, uid, *grace).await?,
        Action::Submit(inputs) => {
            return ctx.services.submit(s, inputs).await.map(Effect::Submitted);
        }
        Action::DeletePolecat => {
            apply::delete(&polecats(ctx, s), polecat).await?;
        }
    }
    Ok(Effect::None)
}

fn polecats(ctx: &Context, s: &Snapshot) -> Api<Polecat> {
    Api::namespaced(ctx.runtime.client.clone(), &s.namespace)
}

/// Labels, finalizer and ledger annotation in one patch of exactly the object that was decided
/// about.
async fn patch_metadata(
    ctx: &Context,
    polecat: &Polecat,
    s: &Snapshot,
    ledger: Option<&Ledger>,
    wanted: bool,
) -> Result<(), Error> {
    let mut metadata = json!({ "uid": s.uid, "resourceVersion": polecat.resource_version() });
    if wanted != s.finalizer {
        let others =
            polecat.finalizers().iter().map(String::as_str).filter(|f| *f != finalizer::POLECAT);
        let all: Vec<&str> = others.chain(wanted.then_some(finalizer::POLECAT)).collect();
        metadata["finalizers"] = json!(all);
    }
    if !s.labelled {
        metadata["labels"] =
            json!(label::of_polecat(&s.name, &polecat.spec.rig, polecat.spec.bead_id.as_deref()));
    }
    if let Some(ledger) = ledger {
        metadata["annotations"] = json!({ annotation::LEDGER: ledger.render() });
    }
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    let params =
        PatchParams { field_manager: Some(manager::POLECAT.to_owned()), ..PatchParams::default() };
    match answers::patch(&polecats(ctx, s), &s.name, &params, &patch).await {
        // It goes with its last finalizer.
        Ok(polecat) if s.deleting && polecat.finalizers().is_empty() => {
            ctx.shared.own_polecats.record_deleted(&s.uid);
            if let Some(ledger) = ledger {
                ctx.shared.metrics.recorded(s, ledger);
            }
        }
        Ok(polecat) => {
            ctx.shared.own_polecats.record(polecat);
            if let Some(ledger) = ledger {
                ctx.shared.metrics.recorded(s, ledger);
            }
        }
        // the last finalizer of a deleted object: it is gone with it
        Err(kube::Error::Api(status)) if status.is_not_found() && s.deleting => {}
        Err(error) => return Err(api_error("writing the metadata of polecat", &s.name)(error)),
    }
    Ok(())
}
