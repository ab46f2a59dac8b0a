//! Reconciles an Escalation: tells its routes, records that, shows it.

use std::sync::Arc;

use gastown_api::names::{annotation, manager};
use gastown_api::{Escalation, Route, Witness};
use gastown_core::escalation::{self, Facts, Ledger, Plan, RATE_WINDOW, RouteFacts};
use gastown_runtime::apply;
use gastown_runtime::controller::resync;
use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt as _};

use crate::alarms;
use crate::channels::Letter;
use crate::context::{Context, Error};
use crate::report;

pub(crate) async fn reconcile(object: Arc<Escalation>, ctx: Arc<Context>) -> Result<Action, Error> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let named =
        || format!("escalation {}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let witness = ctx.serving(&object.spec.rig_ref);
    let routes = routes(witness.as_deref());
    let now = Timestamp::now();
    let plan = escalation::decide(now, &facts(&object, witness.as_deref(), &routes, &ctx, now));
    tracing::debug!(?plan, "decided");
    let api = Api::<Escalation>::namespaced(
        ctx.runtime.client.clone(),
        &object.namespace().unwrap_or_default(),
    );
    if plan.delete {
        apply::delete(&api, object.as_ref()).await.map_err(|e| Error::Delete(named(), e))?;
        return Ok(Action::await_change());
    }
    let ledger = tell(&object, witness.as_deref(), &routes, &plan, &ctx).await;
    let text = ledger.write();
    let written = apply::annotate(
        &api,
        manager::WITNESS,
        object.as_ref(),
        &[(annotation::ALARM, Some(&text))],
    )
    .await;
    // Somebody raised or settled it meanwhile: the telling is recorded on top of that, or it would
    // be done again.
    let (current, ledger) = match written {
        Ok(Some(written)) => (written, ledger),
        Ok(None) => (object.as_ref().clone(), ledger),
        Err(_) if !plan.sends.is_empty() => {
            merge(&api, &object, &plan, &ledger).await.map_err(|e| Error::Record(named(), e))?
        }
        Err(error) => return Err(Error::Record(named(), error)),
    };
    let status = report::escalation(&current, &plan, &ledger, &routes, now);
    report::ESCALATION
        .apply(&api, &current, &status)
        .await
        .map_err(|e| Error::Report(named(), e))?;
    let next =
        [plan.next, ledger.told.iter().filter_map(|t| t.next).min()].into_iter().flatten().min();
    Ok(next.map_or_else(resync, |t| {
        Action::requeue(
            t.duration_since(now).unsigned_abs().max(std::time::Duration::from_millis(100)),
        )
    }))
}

/// Whom a Witness tells; without one, or without routes of its own, the mayor.
fn routes(witness: Option<&Witness>) -> Vec<Route> {
    let routes = witness.map(|w| w.spec.routes.clone()).unwrap_or_default();
    if routes.is_empty() { vec![Route::mayor()] } else { routes }
}

fn key(witness: Option<&Witness>, route: &str) -> (String, String) {
    (witness.and_then(kube::ResourceExt::uid).unwrap_or_default(), route.to_owned())
}

fn facts(
    object: &Escalation,
    witness: Option<&Witness>,
    routes: &[Route],
    ctx: &Context,
    now: Timestamp,
) -> Facts {
    let mut carried = ctx.carried.lock();
    carried.retain(|_, times| {
        times.retain(|t| now.duration_since(*t) < RATE_WINDOW);
        !times.is_empty()
    });
    let route = |r: &Route| RouteFacts {
        name: r.name().to_owned(),
        least: r.min_severity,
        carried: carried.get(&key(witness, r.name())).cloned().unwrap_or_default(),
    };
    Facts {
        severity: object.spec.severity,
        created: object.creation_timestamp().map_or(now, |t| t.0),
        acknowledged: object.spec.acknowledged.is_some(),
        closed: object.spec.closed.is_some(),
        ledger: alarms::ledger(object),
        routes: routes.iter().map(route).collect(),
    }
}

async fn tell(
    object: &Escalation,
    witness: Option<&Witness>,
    routes: &[Route],
    plan: &Plan,
    ctx: &Context,
) -> Ledger {
    let mut ledger = plan.ledger.clone();
    for send in &plan.sends {
        let Some(route) = routes.iter().find(|r| r.name() == send.route) else { continue };
        ctx.carried.lock().entry(key(witness, &send.route)).or_default().push(Timestamp::now());
        let letter = Letter::new(object, send.severity, ledger.raises);
        let namespace = witness.and_then(kube::ResourceExt::namespace).unwrap_or_default();
        let outcome =
            ctx.channels.tell(route, &namespace, &letter, object, &ctx.runtime.events).await;
        if let escalation::Outcome::Failed { why, .. } = &outcome {
            tracing::warn!(
                route = send.route,
                attempt = send.attempt,
                why,
                "an escalation did not go through"
            );
        }
        ledger = ledger.tried(send, Timestamp::now(), &outcome);
    }
    ledger
}

/// What was told now, on the ledger that is there now.
async fn merge(
    api: &Api<Escalation>,
    object: &Escalation,
    plan: &Plan,
    ours: &Ledger,
) -> Result<(Escalation, Ledger), apply::Error> {
    let mut tries = 0;
    loop {
        let fresh = match api.get_opt(&object.name_any()).await {
            Ok(Some(fresh)) if fresh.uid() == object.uid() => fresh,
            // Gone, or not to be had: the next look decides with what is there.
            _ => return Ok((object.clone(), ours.clone())),
        };
        let mut ledger = alarms::ledger(&fresh);
        for send in &plan.sends {
            if let Some(told) = ours.told.iter().find(|t| t.route == send.route) {
                ledger.told.retain(|t| t.route != send.route);
                ledger.told.push(told.clone());
            }
        }
        ledger.stale.clone_from(&ours.stale);
        match apply::annotate(
            api,
            manager::WITNESS,
            &fresh,
            &[(annotation::ALARM, Some(&ledger.write()))],
        )
        .await
        {
            Ok(written) => return Ok((written.unwrap_or(fresh), ledger)),
            Err(_) if tries < 4 => tries += 1,
            Err(error) => return Err(error),
        }
    }
}
