//! Publishing statuses: the pure part, from a snapshot to a status, is in [`refinery`] and
//! [`request`].

mod conditions;
mod refinery;
mod request;

use std::sync::Arc;
use std::time::Duration;

use gastown_api::names::{condition, manager, reason};
use gastown_api::{MergeRequest, MergeRequestStatus, Refinery, RefineryStatus};
use gastown_core::train::{RequestId, Snapshot};
use gastown_runtime::apply::{Applied, Details, StatusOwner};
use gastown_runtime::events::Note;
use gastown_runtime::own_writes::resource_version;
use jiff::Timestamp;
use kube::{Api, ResourceExt as _};

use crate::context::Context;
use crate::error::Error;
use crate::pass::Pass;
use crate::record::RequestRecord;
use crate::report::request::Positions;
use crate::trace;
use crate::train::{Entry, Train, in_seconds};

pub(crate) use refinery::{gate_problem, target_health};
pub(crate) use request::broken_target;

/// The part of a Refinery's status that is ours.
const REFINERY: StatusOwner = StatusOwner {
    manager: manager::REFINERY,
    fields: &[
        "phase",
        "queueLength",
        "currentMerge",
        "lastMergeTime",
        "mergesSummary",
        "targetCommit",
        "lastLandedCommit",
    ],
    conditions: &[
        condition::READY,
        condition::PROCESSING,
        condition::GATED,
        condition::TARGET_HEALTHY,
    ],
};

/// The part of a request's status that is ours.
const REQUEST: StatusOwner = StatusOwner {
    manager: manager::REFINERY,
    fields: &[
        "phase",
        "reason",
        "position",
        "testedCommit",
        "landedCommit",
        "queuedAt",
        "startedTestingAt",
        "landedAt",
        "attempts",
        "finishedAt",
        "traceID",
    ],
    conditions: &[condition::READY, condition::PROGRESSING],
};

/// What changes while a request is in one phase.
const REQUEST_DETAILS: Details = Details {
    fields: &["reason", "position", "testedCommit", "queuedAt", "startedTestingAt", "attempts"],
    conditions: REQUEST.conditions,
    reasons: &[],
};

/// What may wait of a request's first status: that it waits for its turn, which is often over at
/// once.
const WAITING_DETAILS: Details = REQUEST.everything();

/// What changes with each request: every field, and one condition.
const DETAILS: Details =
    Details { fields: REFINERY.fields, conditions: &[condition::PROCESSING], reasons: &[] };

/// What may wait when an idle Refinery begins to process requests: rig-ctl deletes no Refinery that
/// does.
const COUNTS: Details = Details {
    fields: &["queueLength", "lastMergeTime", "mergesSummary", "targetCommit", "lastLandedCommit"],
    conditions: &[],
    reasons: &[],
};

/// A request's status that is refused is tried again after this many seconds.
const STATUS_RETRY: i64 = 20;

/// Writes every status that changed: those of the requests, then the Refinery's. When only details
/// differ and it is too early to write them, returns after which time to come back.
pub(crate) async fn publish(
    pass: &Pass<'_>,
    train: &mut Train,
    snapshot: &Snapshot,
) -> Result<Option<Duration>, Error> {
    let of_requests = publish_requests(pass, train, snapshot).await?;
    let of_refinery = publish_refinery(pass, train, snapshot).await?;
    Ok([of_requests, of_refinery].into_iter().flatten().min())
}

async fn publish_requests(
    pass: &Pass<'_>,
    train: &mut Train,
    snapshot: &Snapshot,
) -> Result<Option<Duration>, Error> {
    let is_due = |e: &Entry| {
        !e.is_settled() && e.scratch.status_after.is_none_or(|after| after <= snapshot.now)
    };
    let due = train.entries.iter().filter(|(_, e)| is_due(e));
    let ids: Vec<RequestId> = due.map(|(id, _)| id.clone()).collect();
    let positions = Positions::of(snapshot); // pure
    trace::export_again(pass, train, &ids);
    let mut later = None;
    for id in ids {
        let Some(e) = train.entries.get(&id) else { continue };
        let status = request::status(snapshot, train, &id, e, &positions); // pure
        let details = if request::waits_for_its_turn(e.object(), &status) {
            &WAITING_DETAILS
        } else {
            &REQUEST_DETAILS
        };
        let written = write_request_status(pass.ctx, e.object(), &status, details).await; // client
        let Some(e) = train.entry(&id) else { continue };
        match written {
            Ok(applied) => {
                e.scratch.status_after = None;
                if matches!(applied, Applied::Unchanged) {
                    e.settle();
                }
                later = [later, applied.later()].into_iter().flatten().min();
                if let Applied::Written(written) = applied {
                    e.durable.object = Arc::new(written);
                }
            }
            // That one is tried again later; the others are written all the same.
            Err(error) if error.is_refusal() => {
                tracing::warn!(message = error.sentence(), "a request's status is refused");
                e.scratch.status_after = Some(in_seconds(STATUS_RETRY));
                let note = Note::warning("status", reason::ACTION_FAILED, error.sentence());
                pass.ctx.runtime.events.publish(pass.refinery.as_ref(), note.about(e.object()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(later)
}

async fn publish_refinery(
    pass: &Pass<'_>,
    train: &mut Train,
    snapshot: &Snapshot,
) -> Result<Option<Duration>, Error> {
    // Of our last write and the cached object the newer one counts: somebody may have erased the
    // status since.
    let cached_version = resource_version(pass.refinery.as_ref());
    let written = train.written.take();
    let written = written.filter(|written| resource_version(written.as_ref()) >= cached_version);
    let refinery = written.clone().unwrap_or_else(|| pass.refinery.clone());
    train.written = written;
    let status = refinery::status(snapshot, train, &refinery); // pure
    let queue = refinery::queue_metrics(status.queue_length, train, snapshot); // pure
    pass.ctx.metrics.show(&pass.refinery, queue);
    let details = if refinery::starts_processing(&refinery, &status) { &COUNTS } else { &DETAILS };
    let applied = write_refinery_status(pass.ctx, &refinery, &status, details).await?;
    let later = applied.later();
    if let Applied::Written(written) = applied {
        train.written = Some(Arc::new(written));
    }
    Ok(later)
}

/// Reports why a Refinery is inactive, in its status and in those of its requests.
pub(crate) async fn publish_inactive(
    ctx: &Context,
    refinery: &Refinery,
    why: &'static str,
    message: &str,
) -> Result<Option<Duration>, Error> {
    ctx.metrics.forget(refinery);
    let now = Timestamp::now();
    let (mut pending, mut later) = (0, None);
    // The requests of a Duplicate are those of the active Refinery, which works on them.
    if why != reason::DUPLICATE {
        for object in ctx.requests_of(refinery) {
            if RequestRecord::of(&object).end.is_none() {
                pending += 1;
                let waits = publish_waiting(ctx, &object, why, message, now).await?;
                later = [later, waits].into_iter().flatten().min();
            }
        }
    }
    let present = refinery.status.as_ref();
    let generation = refinery.metadata.generation;
    let status = refinery::inactive_status(present, pending, why, message, generation, now);
    let applied = write_refinery_status(ctx, refinery, &status, &COUNTS).await?;
    ctx.runtime.events.publish(refinery, Note::warning("role", why, message));
    Ok([later, applied.later()].into_iter().flatten().min())
}

/// Reports why requests of namespaces that the rig does not admit wait. When it is too early for some
/// of it, returns after which time to come back.
pub(crate) async fn publish_not_admitted(pass: &Pass<'_>) -> Result<Option<Duration>, Error> {
    let (rig, now) = (pass.rig.name_any(), Timestamp::now());
    let mut later = None;
    for object in pass.ctx.requests_of(&pass.refinery) {
        let namespace = object.namespace().unwrap_or_default();
        if pass.rig.spec.admits(&namespace) || RequestRecord::of(&object).end.is_some() {
            continue;
        }
        let message =
            format!("Rig {rig} does not admit namespace {namespace} (spec.allowedNamespaces)");
        let why = reason::NAMESPACE_NOT_ALLOWED;
        let waits = publish_waiting(pass.ctx, &object, why, &message, now).await?;
        later = [later, waits].into_iter().flatten().min();
    }
    Ok(later)
}

async fn publish_waiting(
    ctx: &Context,
    object: &MergeRequest,
    why: &str,
    message: &str,
    now: Timestamp,
) -> Result<Option<Duration>, Error> {
    let generation = object.metadata.generation;
    let status = request::waiting_status(object.status.as_ref(), why, message, generation, now);
    let applied = write_request_status(ctx, object, &status, &REQUEST_DETAILS).await?;
    Ok(applied.later())
}

/// Applies a request's status. Only details may be written later.
async fn write_request_status(
    ctx: &Context,
    object: &MergeRequest,
    status: &MergeRequestStatus,
    details: &Details,
) -> Result<Applied<MergeRequest>, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let api = Api::<MergeRequest>::namespaced(ctx.runtime.client.clone(), &namespace);
    let applied = REQUEST.apply_paced(&api, object, status, details, &ctx.request_pace).await;
    applied.map_err(|source| Error::Apply {
        doing: format!("writing the status of MergeRequest {}", object.name_any()),
        source,
    })
}

/// Applies a Refinery's status. Only details may be written later.
async fn write_refinery_status(
    ctx: &Context,
    object: &Refinery,
    status: &RefineryStatus,
    details: &Details,
) -> Result<Applied<Refinery>, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let api = Api::<Refinery>::namespaced(ctx.runtime.client.clone(), &namespace);
    let applied = REFINERY.apply_paced(&api, object, status, details, &ctx.pace).await;
    applied.map_err(|source| Error::Apply {
        doing: format!("writing the status of Refinery {}", object.name_any()),
        source,
    })
}
