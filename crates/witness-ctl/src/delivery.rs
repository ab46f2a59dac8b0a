//! Carries out the plan for an Escalation: sends it along its routes, records how that ended, and
//! deletes it in the end.

use gastown_api::names::{annotation, manager};
use gastown_api::{Escalation, Route, Witness};
use gastown_core::escalation::{EscalationState, Outcome, Plan};
use gastown_runtime::apply;
use jiff::Timestamp;
use kube::{Api, ResourceExt};

use crate::channels::Notification;
use crate::context::{Context, route_key};
use crate::error::{Error, object_name};
use crate::escalations;

/// How many conflicting writes of others one record gets past.
const MAX_CONFLICTS: u32 = 4;

fn api(object: &Escalation, ctx: &Context) -> Api<Escalation> {
    Api::namespaced(ctx.runtime.client.clone(), &object.namespace().unwrap_or_default())
}

pub(crate) async fn delete(object: &Escalation, ctx: &Context) -> Result<(), Error> {
    let deleted = apply::delete(&api(object, ctx), object).await;
    deleted.map(drop).map_err(|e| Error::Delete(object_name(object), e))
}

/// Makes the plan's attempts and records them. Returns the object and its state afterwards.
pub(crate) async fn deliver(
    object: &Escalation,
    witness: Option<&Witness>,
    routes: &[Route],
    plan: &Plan,
    ctx: &Context,
) -> Result<(Escalation, EscalationState), Error> {
    let state = send(object, witness, routes, plan, ctx).await;
    let api = api(object, ctx);
    match write(&api, object, &state).await {
        Ok(Some(written)) => {
            ctx.own_escalations.record(written.clone());
            Ok((written, state))
        }
        Ok(None) => Ok((object.clone(), state)),
        // Somebody has raised or settled it meanwhile: the attempts are recorded in addition, or
        // they would be made again.
        Err(_) if !plan.attempts.is_empty() => merge(&api, object, plan, &state).await,
        Err(error) => Err(error),
    }
    .map_err(|e| Error::Record(object_name(object), e))
}

/// Makes the plan's attempts, each beside the others: a route that does not answer delays no other.
/// Returns the state with the outcome of each.
async fn send(
    object: &Escalation,
    witness: Option<&Witness>,
    routes: &[Route],
    plan: &Plan,
    ctx: &Context,
) -> EscalationState {
    let namespace = &witness.and_then(ResourceExt::namespace).unwrap_or_default();
    let raises = plan.state.raises;
    let sent = plan.attempts.iter().filter_map(|attempt| {
        let route = routes.iter().find(|r| r.name() == attempt.route)?;
        ctx.sent.record(witness, &attempt.route, Timestamp::now());
        let notification = Notification::new(object, attempt.severity, raises);
        let (witness, route_name) = route_key(witness, &attempt.route);
        let place = format!("{witness}/{route_name}");
        Some(async move {
            let (channels, events) = (&ctx.channels, &ctx.runtime.events);
            let send = channels.send(route, namespace, &notification, object, events);
            (attempt, ctx.routes.call(&place, send).await)
        })
    });
    let mut state = plan.state.clone();
    for (attempt, outcome) in futures::future::join_all(sent).await {
        ctx.metrics.delivered(&object.spec.rig_ref, &outcome);
        if let Outcome::Failed { why, .. } = &outcome {
            tracing::warn!(
                route = attempt.route,
                attempt = attempt.number,
                why,
                "an Escalation could not be delivered"
            );
        }
        state = state.record(attempt, Timestamp::now(), &outcome);
    }
    state
}

async fn write(
    api: &Api<Escalation>,
    object: &Escalation,
    state: &EscalationState,
) -> Result<Option<Escalation>, apply::Error> {
    let text = state.write();
    let annotations = [(annotation::ESCALATION_STATE, Some(text.as_str()))];
    apply::annotate(api, manager::WITNESS, object, &annotations).await
}

/// Records the deliveries of `ours` in the state that the object has by now.
async fn merge(
    api: &Api<Escalation>,
    object: &Escalation,
    plan: &Plan,
    ours: &EscalationState,
) -> Result<(Escalation, EscalationState), apply::Error> {
    let mut conflicts = 0;
    loop {
        let fresh = match api.get_opt(&object.name_any()).await {
            Ok(Some(fresh)) if fresh.uid() == object.uid() => fresh,
            // Deleted, or not readable now: the next reconcile decides from what it finds.
            _ => return Ok((object.clone(), ours.clone())),
        };
        let mut state = escalations::state(&fresh);
        for attempt in &plan.attempts {
            if let Some(made) = ours.deliveries.iter().find(|d| d.route == attempt.route) {
                state.deliveries.retain(|d| d.route != attempt.route);
                state.deliveries.push(made.clone());
            }
        }
        state.stale.clone_from(&ours.stale);
        match write(api, &fresh, &state).await {
            Ok(written) => return Ok((written.unwrap_or(fresh), state)),
            Err(_) if conflicts < MAX_CONFLICTS => conflicts += 1,
            Err(error) => return Err(error),
        }
    }
}
