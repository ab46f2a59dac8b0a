//! Writing a request's record.

use std::sync::Arc;

use gastown_api::names::{annotation, manager};
use gastown_api::{MergePhase, MergeRequest};
use gastown_core::train::{End, RequestId};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::error::{Error, is_gone};
use crate::pass::Pass;
use crate::trace;
use crate::train::Train;

/// Writes a request's record. What follows from it may be done only after this has returned.
pub(super) async fn save(pass: &Pass<'_>, train: &mut Train, id: &RequestId) -> Result<(), Error> {
    let Some(e) = train.entry(id) else { return Ok(()) };
    let (text, object) = (e.durable.record.text(), e.object());
    if object.annotations().get(annotation::REQUEST_RECORD) == Some(&text) {
        return Ok(());
    }
    let name = object.name_any();
    let namespace = object.namespace().unwrap_or_default();
    let api = Api::<MergeRequest>::namespaced(pass.client(), &namespace);
    let patch = json!({"metadata": {"uid": object.uid(), "annotations": {annotation::REQUEST_RECORD: text}}});
    let params =
        PatchParams { field_manager: Some(manager::REFINERY.into()), ..PatchParams::default() };
    match api.patch(&name, &params, &Patch::Merge(&patch)).await {
        Ok(written) => e.durable.object = Arc::new(written),
        Err(error) if is_gone(&error) => {}
        Err(error) => {
            return Err(Error::kube(format!("writing the record of MergeRequest {name}"))(error));
        }
    }
    Ok(())
}

/// Ends a request: the end is recorded first and counted after.
pub(super) async fn end(
    pass: &Pass<'_>,
    train: &mut Train,
    id: &RequestId,
    end: End,
) -> Result<(), Error> {
    let Some(e) = train.entry(id) else { return Ok(()) };
    e.durable.record.end = Some(end);
    e.scratch.not_before = None;
    if let Err(error) = save(pass, train, id).await {
        // An end that is not recorded does not count.
        if let Some(e) = train.entry(id) {
            (e.durable.record.end, e.durable.record.evidence) = (None, None);
        }
        return Err(error);
    }
    trace::export(pass, train, id);
    if let Some(end) = train.entry(id).and_then(|e| e.durable.record.end.as_ref()) {
        pass.ctx.metrics.ended(pass.rig_name(), end);
    }
    Ok(())
}

/// An end at the present time, without commits.
pub(super) fn ended(phase: MergePhase, reason: &str, message: String) -> End {
    End {
        phase,
        reason: reason.to_owned(),
        message,
        at: Timestamp::now(),
        tested: None,
        landed: None,
    }
}
