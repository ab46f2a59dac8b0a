//! One Convoy, from what is known of it to its status: gather, decide, act, report.

use std::sync::Arc;
use std::time::Duration;

use gastown_api::{Convoy, ConvoyPhase};
use gastown_core::convoy::decide;
use gastown_runtime::controller::{Action, resync};
use gastown_runtime::jittered;
use jiff::Timestamp;

use crate::context::Context;
use crate::error::Error;
use crate::{act, gather, report, trace};

/// A Convoy that is not complete is reconciled again after this time, whatever the watches show.
const RESYNC: Duration = Duration::from_secs(30);

/// A bead whose MergeRequest a watch has not delivered is looked at again after this time, or when it
/// has.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Looks at one Convoy and does what it needs now. A Polecat that the API server refuses is shown
/// in the status before it is an error.
pub(crate) async fn reconcile(convoy: Arc<Convoy>, ctx: Arc<Context>) -> Result<Action, Error> {
    // Before the Rig is locked: a slow server must not keep other Convoys of the Rig waiting.
    let beads = gather::beads(&convoy, &ctx).await; // client
    let lock = match convoy.spec.rig_ref.as_deref().filter(|_| convoy.spec.dispatch) {
        Some(rig) => Some(ctx.rig_locks.lock(rig).await),
        None => None,
    };
    // Before the slots are counted: one that is freed meanwhile wakes this one again.
    ctx.waiting.join(&convoy);
    let snapshot = gather::snapshot(&convoy, &beads, &ctx); // client
    ctx.worked.saw(&convoy, &snapshot, &ctx.convoys);
    let plan = decide(&snapshot); // pure
    tracing::debug!(?plan, "decided");
    if snapshot.deleting || !plan.waits_for_slot() {
        ctx.waiting.leave(&convoy);
    }
    if snapshot.deleting {
        ctx.lives.forget(convoy.metadata.uid.as_deref().unwrap_or_default());
        return Ok(Action::await_change());
    }
    let acted = act::act(&convoy, &snapshot, &beads, &plan, &ctx).await; // client
    drop(lock);
    let convoy = ctx.own.newest(convoy.clone()).unwrap_or(convoy);
    let refused = acted.as_ref().err().and_then(Error::refusal);
    let status = report::status(&convoy, &plan.assessment, refused.as_deref(), Timestamp::now()); // pure
    let reported = report::publish(&convoy, &status, &plan.assessment, &ctx).await; // client
    if reported.is_ok() {
        trace::export(&convoy, &status, &ctx);
    }
    if acted? {
        return Ok(Action::requeue(jittered(CATCH_UP)));
    }
    if let Some(wait) = reported? {
        return Ok(Action::requeue(wait));
    }
    Ok(if plan.assessment.phase == ConvoyPhase::Complete {
        resync()
    } else {
        Action::requeue(jittered(RESYNC))
    })
}
