//! Ending requests that do not land, opening them again, and deleting them.

use gastown_api::names::reason;
use gastown_api::{MergeAttempt, MergePhase, MergeRequest};
use gastown_core::train::{Author, Landing, RequestId};
use gastown_runtime::apply;
use gastown_runtime::events::Note;
use jiff::Timestamp;
use kube::{Api, ResourceExt as _};

use super::land::publish;
use super::polecat::author;
use super::record::{end, ended, save};
use crate::error::Error;
use crate::gate;
use crate::pass::Pass;
use crate::record::Evidence;
use crate::train::Train;

/// Finds out whether the author exists.
pub(super) async fn look_up_author(
    pass: &Pass<'_>,
    train: &mut Train,
    id: &RequestId,
) -> Result<(), Error> {
    let Some(e) = train.entry(id) else { return Ok(()) };
    let by_person = e.object().spec.polecat_ref.is_none();
    let exists = by_person
        || author(&pass.client(), e.object())
            .await?
            .is_some_and(|p| p.metadata.deletion_timestamp.is_none());
    e.cached.author = if exists { Author::Present } else { Author::Gone };
    Ok(())
}

/// Sends a request back to its author.
pub(super) async fn rework(
    pass: &Pass<'_>,
    train: &mut Train,
    id: &RequestId,
    why: &'static str,
    evidence: String,
) -> Result<(), Error> {
    let base = train.tip().cloned();
    let Some(e) = train.entry(id) else { return Ok(()) };
    let message = match why {
        "Conflict" => format!("it does not apply to {}", pass.target),
        "GateFailed" => "its gate failed; status.attempts has the end of the output".to_owned(),
        _ => evidence.clone(),
    };
    // The evidence of a failed gate is in its run.
    if why != "GateFailed" {
        let text = gate::evidence(&evidence, MergeAttempt::MAX_EVIDENCE);
        let evidence = Evidence { base, text };
        e.add_attempt(why, &evidence, Timestamp::now());
        e.durable.record.evidence = Some(evidence);
    }
    let (object, author) = (e.durable.object.clone(), e.author_name());
    end(pass, train, id, ended(MergePhase::Rework, why, message.clone())).await?;
    if why == "Conflict" {
        pass.ctx.metrics.conflicts.inc(pass.labels());
    }
    let message = format!("Merge failed for {author}: {why}: {message}");
    publish(pass, &object, Note::warning("landing", reason::MERGE_FAILED, message));
    Ok(())
}

/// Ends a request that will not land.
pub(super) async fn reject(
    pass: &Pass<'_>,
    train: &mut Train,
    id: &RequestId,
    why: &'static str,
    message: String,
) -> Result<(), Error> {
    let Some(object) = train.entry(id).map(|e| e.durable.object.clone()) else { return Ok(()) };
    end(pass, train, id, ended(MergePhase::Rejected, why, message.clone())).await?;
    pass.ctx.runtime.events.publish(object.as_ref(), Note::warning("landing", why, message));
    Ok(())
}

/// Ends a request that the request named `by` replaces.
pub(super) async fn supersede(
    pass: &Pass<'_>,
    train: &mut Train,
    id: &RequestId,
    by: &str,
) -> Result<(), Error> {
    let message = format!("MergeRequest {by} replaces it");
    end(pass, train, id, ended(MergePhase::Superseded, "Superseded", message)).await
}

/// Opens an ended request again.
pub(super) async fn reopen(
    pass: &Pass<'_>,
    train: &mut Train,
    id: &RequestId,
) -> Result<(), Error> {
    let Some(e) = train.entry(id) else { return Ok(()) };
    let retried = e.object().spec.retry;
    let record = &mut e.durable.record;
    (record.end, record.evidence) = (None, None);
    // No earlier run counts any more.
    record.since = e.cached.history.last_run + 1;
    record.retried = retried;
    (e.cached.build, e.cached.landing) = (None, Landing::No);
    // Its author may have gone since it was looked up.
    e.cached.author = Author::Unknown;
    (e.scratch.not_before, e.scratch.retest_at) = (None, None);
    save(pass, train, id).await
}

/// Deletes a request.
pub(super) async fn delete(
    pass: &Pass<'_>,
    train: &mut Train,
    id: &RequestId,
) -> Result<(), Error> {
    let Some(e) = train.entries.remove(id) else { return Ok(()) };
    let namespace = e.object().namespace().unwrap_or_default();
    let api = Api::<MergeRequest>::namespaced(pass.client(), &namespace);
    apply::delete(&api, e.object()).await.map_err(|source| Error::Apply {
        doing: format!("deleting MergeRequest {}", e.object().name_any()),
        source,
    })?;
    Ok(())
}
