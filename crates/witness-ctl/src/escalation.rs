//! Reconciles an Escalation: delivers it, and publishes its state.

use std::sync::Arc;
use std::time::Duration;

use gastown_api::Escalation;
use gastown_core::escalation::{self, EscalationState, Plan};
use gastown_runtime::controller::{Action, resync};
use jiff::Timestamp;

use crate::context::Context;
use crate::error::Error;
use crate::{delivery, gather, report};

/// No Escalation is reconciled again sooner than this.
const MIN_REQUEUE: Duration = Duration::from_millis(100);

/// A longer wait ends at the next resync: it is looked for what an Escalation is about.
const LOOKED_FOR: Duration = Duration::from_secs(600);

pub(crate) async fn reconcile(object: Arc<Escalation>, ctx: Arc<Context>) -> Result<Action, Error> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let now = Timestamp::now();
    let witness = ctx.active_witness(&object.spec.rig_ref);
    let routes = gather::routes(witness.as_deref()); // pure
    let snapshot = gather::escalation(&object, witness.as_deref(), &routes, now, &ctx).await; // client
    let plan = escalation::decide(now, &snapshot); // pure
    tracing::debug!(?plan, "decided");
    if plan.delete {
        delivery::delete(&object, &ctx).await?; // client
        return Ok(Action::await_change());
    }
    let (current, state) =
        delivery::deliver(&object, witness.as_deref(), &routes, &plan, &ctx).await?; // client
    let status = report::escalation(&current, &plan, &state, &routes, now); // pure
    report::publish_escalation(&current, &status, &ctx).await?; // client
    Ok(next(&plan, &state, now))
}

fn next(plan: &Plan, state: &EscalationState, now: Timestamp) -> Action {
    let retry = state.deliveries.iter().filter_map(|d| d.next).min();
    let next = [plan.next, retry].into_iter().flatten().min();
    let wait = next.map(|t| t.duration_since(now).unsigned_abs().max(MIN_REQUEUE));
    match wait {
        Some(wait) if wait < LOOKED_FOR => Action::requeue(wait),
        // What it is about may be gone by then.
        _ => resync(),
    }
}
