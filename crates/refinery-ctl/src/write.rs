//! Writes to the API server, each remembered as the newest version of its object.

use std::sync::Arc;

use gastown_api::conditions::time;
use gastown_api::names::{annotation, manager};
use gastown_api::{
    MergeAttempt, MergeRequest, MergeRequestStatus, Polecat, Refinery, RefineryStatus,
};
use gastown_core::train::{End, EndPhase, Facts, RequestId};
use gastown_runtime::apply::StatusOwner;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;

use crate::conditions::{condition, settle};
use crate::context::{Error, doing};
use crate::gather::Pass;
use crate::memory::{Entry, Train};
use crate::report;
use gastown_runtime::own_writes::resource_version;

/// What of a Polecat's status is ours.
const MERGED: StatusOwner = StatusOwner {
    manager: manager::REFINERY,
    fields: &[],
    conditions: &[gastown_api::names::condition::MERGED],
};

fn gone(error: &kube::Error) -> bool {
    // 409: the name is another object's by now.
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}

/// Applies a request's status when it differs from the newest that we know.
pub(crate) async fn request_status(
    client: &kube::Client,
    object: &MergeRequest,
    status: &MergeRequestStatus,
) -> Result<Option<Arc<MergeRequest>>, Error> {
    if object.status.as_ref() == Some(status) {
        return Ok(None);
    }
    let name = object.name_any();
    let api =
        Api::<MergeRequest>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let body = json!({
        "apiVersion": MergeRequest::api_version(&()),
        "kind": MergeRequest::kind(&()),
        "metadata": {"name": name, "uid": object.uid()},
        "status": status,
    });
    let params = PatchParams::apply(manager::REFINERY).force();
    match api.patch_status(&name, &params, &Patch::Apply(&body)).await {
        Ok(written) => Ok(Some(Arc::new(written))),
        Err(e) if gone(&e) => Ok(None),
        Err(e) => Err(doing(format!("writing the status of request {name}"))(e)),
    }
}

/// Applies a Refinery's status when it differs from what the cache shows.
pub(crate) async fn refinery_status(
    client: &kube::Client,
    object: &Refinery,
    status: &RefineryStatus,
) -> Result<Option<u64>, Error> {
    let name = object.name_any();
    let api = Api::<Refinery>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let body = json!({
        "apiVersion": Refinery::api_version(&()),
        "kind": Refinery::kind(&()),
        "metadata": {"name": name, "uid": object.uid()},
        "status": status,
    });
    let params = PatchParams::apply(manager::REFINERY).force();
    match api.patch_status(&name, &params, &Patch::Apply(&body)).await {
        Ok(written) => Ok(Some(resource_version(&written))),
        Err(e) if gone(&e) => Ok(None),
        Err(e) => Err(doing(format!("writing the status of refinery {name}"))(e)),
    }
}

impl Pass<'_> {
    fn client(&self) -> kube::Client {
        self.ctx.runtime.client.clone()
    }

    /// Writes a request's ledger. What follows from it may be done only when this has returned.
    pub(crate) async fn ledger(&self, train: &mut Train, id: &RequestId) -> Result<(), Error> {
        let Some(e) = train.entry(id) else { return Ok(()) };
        let (text, name) = (e.ledger.text(), e.object.name_any());
        if e.object.annotations().get(annotation::VERDICTS) == Some(&text) {
            return Ok(());
        }
        let api = Api::<MergeRequest>::namespaced(
            self.client(),
            &e.object.namespace().unwrap_or_default(),
        );
        let patch = json!({"metadata": {"uid": e.object.uid(), "annotations": {annotation::VERDICTS: text}}});
        let params =
            PatchParams { field_manager: Some(manager::REFINERY.into()), ..PatchParams::default() };
        match api.patch(&name, &params, &Patch::Merge(&patch)).await {
            Ok(written) => e.object = Arc::new(written),
            Err(error) if gone(&error) => {}
            Err(error) => {
                return Err(doing(format!("writing the verdicts of request {name}"))(error));
            }
        }
        Ok(())
    }

    /// Writes every status that changed: the requests', then the Refinery's.
    pub(crate) async fn report(&self, train: &mut Train, facts: &Facts) -> Result<(), Error> {
        let ids: Vec<RequestId> = train.entries.keys().cloned().collect();
        for id in ids {
            let Some(e) = train.entries.get(&id) else { continue };
            let status = report::request_status(facts, train, &id, e);
            if let Some(written) =
                request_status(&self.ctx.runtime.client, &e.object, &status).await?
                && let Some(e) = train.entry(&id)
            {
                e.object = written;
            }
        }
        let r = &self.refinery;
        // Of our last write and the cache the newer one counts: somebody may have erased a status
        // since.
        let cached_is_ours = train.written.as_ref().is_some_and(|(_, version)| {
            resource_version(r.as_ref()) <= version.unwrap_or_default()
        });
        let present = match &train.written {
            Some((status, _)) if cached_is_ours => Some(status.clone()),
            _ => r.status.clone(),
        };
        let status = report::refinery_status(facts, train, r, present.as_ref());
        let labels = crate::metrics::RigLabels { rig: r.spec.rig_ref.clone() };
        self.ctx.metrics.queue.get_or_create(&labels).set(i64::from(status.queue_length));
        if present.as_ref() != Some(&status) {
            let version = refinery_status(&self.ctx.runtime.client, r, &status).await?;
            train.written = Some((status, version));
        }
        Ok(())
    }

    /// The Polecat of a request, if it still is the one that made it.
    pub(crate) async fn polecat(&self, e: &Entry) -> Result<Option<Polecat>, Error> {
        let Some(author) = &e.object.spec.polecat_ref else { return Ok(None) };
        let api =
            Api::<Polecat>::namespaced(self.client(), &e.object.namespace().unwrap_or_default());
        let found = api
            .get_opt(&author.name)
            .await
            .map_err(doing(format!("reading polecat {}", author.name)))?;
        Ok(found.filter(|p| p.uid().as_deref() == Some(author.uid.as_str())))
    }

    /// Says on the Polecat of a landed request, in these words, that it has landed. Returns the
    /// version of the Polecat that says so; of one that is gone no version says more.
    pub(crate) async fn merged(&self, e: &Entry, message: &str) -> Result<u64, Error> {
        let Some(polecat) = self.polecat(e).await? else { return Ok(u64::MAX) };
        let wanted =
            [condition("Merged", true, "MergeComplete", message, polecat.metadata.generation)];
        let present = polecat.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        let conditions = settle(present, &wanted, Timestamp::now());
        let api =
            Api::<Polecat>::namespaced(self.client(), &polecat.namespace().unwrap_or_default());
        match MERGED.applied(&api, &polecat, &json!({"conditions": conditions})).await {
            Ok(written) => Ok(resource_version(&written.unwrap_or(polecat))),
            Err(source) => Err(Error::Apply {
                doing: format!("marking polecat {} merged", polecat.name_any()),
                source,
            }),
        }
    }

    /// Ends a request: written down first, counted after.
    pub(crate) async fn end(
        &self,
        train: &mut Train,
        id: &RequestId,
        end: End,
    ) -> Result<(), Error> {
        let Some(e) = train.entry(id) else { return Ok(()) };
        let phase = end.phase;
        e.ledger.end = Some(end);
        e.not_before = None;
        if let Err(error) = self.ledger(train, id).await {
            // Not written is not ended.
            if let Some(e) = train.entry(id) {
                e.ledger.end = None;
            }
            return Err(error);
        }
        let result = match phase {
            EndPhase::Landed => "success",
            EndPhase::Rework | EndPhase::Rejected => "error",
            EndPhase::Superseded => return Ok(()),
        };
        let labels =
            crate::metrics::MergeLabels { rig: self.refinery.spec.rig_ref.clone(), result };
        self.ctx.metrics.merges.get_or_create(&labels).inc();
        Ok(())
    }
}

/// The attempt of a candidate in a status: the present one, or a new one at the end of the bounded
/// list.
pub(crate) fn attempt<'a>(
    e: &'a mut Entry,
    base: &str,
    candidate: Option<&str>,
) -> &'a mut MergeAttempt {
    let attempts = &mut e.history.attempts;
    let same = |a: &MergeAttempt| {
        a.result.is_none() && a.base == base && a.candidate.as_deref() == candidate
    };
    let at = if let Some(at) = attempts.iter().position(same) {
        at
    } else {
        let number = attempts.last().map_or(1, |a| a.number.saturating_add(1));
        if attempts.len() >= MergeRequestStatus::MAX_ATTEMPTS {
            attempts.remove(0);
        }
        attempts.push(MergeAttempt {
            number,
            commit: e.commit.to_string(),
            base: base.to_owned(),
            candidate: candidate.map(str::to_owned),
            started_at: Some(time(Timestamp::now())),
            ..MergeAttempt::default()
        });
        attempts.len() - 1
    };
    &mut attempts[at]
}
