//! From the snapshot and its assessment to the Rig's status, and an Event when `Ready` changes.

use std::time::Duration;

use gastown_api::conditions::{self, Status};
use gastown_api::names::{condition, manager};
use gastown_api::{Rig, RigPhase, RigStatus};
use gastown_core::rig::{self, Assessment, Child, Snapshot};
use gastown_runtime::apply::{Applied, Details, StatusOwner};
use gastown_runtime::events::Note;
use jiff::Timestamp;
use kube::{Api, ResourceExt as _};

use crate::context::Context;
use crate::error::Error;

const OWNER: StatusOwner = StatusOwner {
    manager: manager::RIG,
    fields: &[
        "phase",
        "polecatCount",
        "polecats",
        "activeConvoys",
        "witnessCreated",
        "refineryCreated",
        "childNamespace",
    ],
    conditions: &[
        condition::READY,
        condition::AVAILABLE,
        condition::PROGRESSING,
        condition::DEGRADED,
    ],
};

/// The counts of a busy Rig change many times a second.
const DETAILS: Details = Details {
    fields: &["polecatCount", "polecats", "activeConvoys"],
    conditions: &[],
    reasons: &[],
};

/// The status as it should be. Pure.
pub(crate) fn status(
    rig: &Rig,
    snapshot: &Snapshot,
    assessment: &Assessment,
    now: Timestamp,
) -> RigStatus {
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let is_there = |children: &[Child]| {
        children.iter().any(|child| !child.deleting && (child.ours || child.same_duty))
    };
    let mut all = rig.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    conditions::merge(&mut all, assessment.drafts(), rig.metadata.generation, now);
    RigStatus {
        phase: Some(match (assessment.ready.status, assessment.degraded.status) {
            (Status::True, _) => RigPhase::Ready,
            (_, Status::True) => RigPhase::Degraded,
            _ => RigPhase::Initializing,
        }),
        polecat_count: count(snapshot.polecats.len()),
        polecats: Some(rig::count(&snapshot.polecats)),
        active_convoys: count(snapshot.active_convoys),
        witness_created: is_there(&snapshot.witnesses),
        refinery_created: is_there(&snapshot.refineries),
        child_namespace: Some(snapshot.namespace.clone()),
        conditions: all,
    }
}

/// Writes the status if it differs from the present one. When only details differ and it is too
/// early to write them, returns after which time to come back.
pub(crate) async fn publish(
    rig: &Rig,
    status: &RigStatus,
    assessment: &Assessment,
    ctx: &Context,
) -> Result<Option<Duration>, Error> {
    let api: Api<Rig> = Api::all(ctx.runtime.client.clone());
    let applied = OWNER.apply_paced(&api, rig, status, &DETAILS, &ctx.pace).await;
    let applied = applied.map_err(|source| Error::Report { rig: rig.name_any(), source })?;
    if let Applied::Written(_) = applied {
        let before = rig.status.clone().unwrap_or_default();
        publish_event(rig, &before, assessment, ctx);
    }
    Ok(applied.record(&ctx.own))
}

/// One Event when the status or the reason of `Ready` changes; the message of a wait may change
/// with every Polecat.
fn publish_event(rig: &Rig, before: &RigStatus, assessment: &Assessment, ctx: &Context) {
    let ready = &assessment.ready;
    let old = conditions::find(&before.conditions, condition::READY);
    if old.is_some_and(|old| old.reason == ready.reason && old.status == ready.status.as_str()) {
        return;
    }
    let note = if assessment.degraded.status == Status::True {
        Note::warning(condition::READY, &*ready.reason, &ready.message)
    } else {
        Note::normal(condition::READY, &*ready.reason, &ready.message)
    };
    ctx.runtime.events.publish(rig, note);
}
