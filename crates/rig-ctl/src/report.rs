//! From the verdict to the Rig's status, and one event a change.

use std::time::Duration;

use gastown_api::names::{condition, manager};
use gastown_api::{PolecatCounts, Rig, RigPhase, RigStatus, conditions};
use gastown_core::rig::{self, Child, Snapshot, Verdict};
use gastown_runtime::apply::{self, StatusOwner};
use gastown_runtime::events::Note;
use jiff::Timestamp;
use kube::Api;

use crate::{Context, gather};

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

/// Counts of a busy rig change many times a second; they are written at most this often.
pub const COUNTS_EVERY: Duration = Duration::from_secs(1);

/// The status that the verdict makes.
pub fn status(
    rig: &Rig,
    snapshot: &Snapshot,
    context: &Context,
    verdict: &Verdict,
    now: Timestamp,
) -> RigStatus {
    let small = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let counts = rig::count(&snapshot.polecats);
    let there = |children: &[Child]| {
        children.iter().any(|child| !child.deleting && (child.ours || child.same_duty))
    };
    let mut all = rig.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    let verdicts = [
        (condition::READY, &verdict.ready),
        (condition::AVAILABLE, &verdict.available),
        (condition::PROGRESSING, &verdict.progressing),
        (condition::DEGRADED, &verdict.degraded),
    ];
    for (kind, (holds, reason, message)) in verdicts {
        conditions::set(&mut all, kind, *holds, reason, message, rig.metadata.generation, now);
    }
    RigStatus {
        phase: Some(match (verdict.ready.0, verdict.degraded.0) {
            (true, _) => RigPhase::Ready,
            (false, true) => RigPhase::Degraded,
            (false, false) => RigPhase::Initializing,
        }),
        polecat_count: small(counts.total),
        polecats: Some(PolecatCounts {
            idle: small(counts.idle),
            queued: small(counts.queued),
            working: small(counts.working),
            done: small(counts.done),
            stuck: small(counts.stuck),
        }),
        active_convoys: small(gather::active_convoys(&snapshot.name, context)),
        witness_created: there(&snapshot.witnesses),
        refinery_created: there(&snapshot.refineries),
        child_namespace: Some(snapshot.namespace.clone()),
        conditions: all,
    }
}

/// Writes the status if it says anything new, and an event if the verdict does. Returns after which
/// time to come back when only counts have changed and it is too early to write them.
pub async fn publish(
    rig: &Rig,
    status: &RigStatus,
    verdict: &Verdict,
    context: &Context,
) -> Result<Option<Duration>, apply::Error> {
    let before = rig.status.clone().unwrap_or_default();
    let counts_only = before.phase == status.phase
        && before.conditions == status.conditions
        && before.refinery_created == status.refinery_created;
    if counts_only
        && before != *status
        && let Some(wait) = context.pace.wait(rig)
    {
        return Ok(Some(wait));
    }
    let api: Api<Rig> = Api::all(context.runtime.client.clone());
    if OWNER.apply(&api, rig, status).await? {
        context.pace.wrote(rig);
        say(rig, &before, verdict, context);
    }
    Ok(None)
}

/// Only a change of `Ready` is news; the words of a wait may change with every polecat.
fn say(rig: &Rig, before: &RigStatus, verdict: &Verdict, context: &Context) {
    let (ready, reason, message) = &verdict.ready;
    let old = conditions::find(&before.conditions, condition::READY);
    if old.is_some_and(|old| old.reason == *reason && (old.status == "True") == *ready) {
        return;
    }
    let note = if verdict.degraded.0 {
        Note::warning(condition::READY, *reason, message)
    } else {
        Note::normal(condition::READY, *reason, message)
    };
    context.runtime.events.publish(rig, note);
}
