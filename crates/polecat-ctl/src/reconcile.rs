//! One reconcile of one Polecat: gather → decide → act until no action is left → report.

use std::sync::Arc;
use std::time::Duration;

use gastown_api::Polecat;
use gastown_api::names::reason;
use gastown_core::admission::{Candidate, Decision};
use gastown_core::polecat::{self, ClaimFacts, Failure, Plan, Snapshot, assess, decide};
use jiff::Timestamp;
use kube::runtime::controller::Action;

use crate::act::{self, Effect};
use crate::context::Context;
use crate::error::Error;
use crate::{gather, report};

/// More rounds than any plan needs, so that a defect of ours cannot loop for ever.
const MAX_ROUNDS: usize = 8;

/// Reconciles one Polecat.
pub(crate) async fn reconcile(polecat: Arc<Polecat>, ctx: Arc<Context>) -> Result<Action, Error> {
    count_slots(&ctx); // client
    for _ in 0..MAX_ROUNDS {
        let Some(polecat) = ctx.own_polecats.newest(polecat.clone()) else {
            return Ok(Action::await_change());
        };
        let now = Timestamp::now();
        let s = gather::snapshot(&ctx, &polecat); // client
        let assessment = assess(now, &s); // pure
        let candidate = assessment.candidate(now, &s); // pure
        let admission = admit(&ctx, &s, candidate, now); // client
        let plan = decide(now, &s, &assessment, &admission); // pure
        if plan.actions.is_empty() {
            let status = report::status(&polecat, &s, &plan.status, ctx.agent_image(), now); // pure
            report::publish(&ctx, &polecat, &status, plan.status.event.clone()).await?; // client
            return Ok(requeue(&s, &plan, &admission, now)); // pure
        }
        for action in &plan.actions {
            carry_out(&ctx, &polecat, &s, action, now).await?; // client
            match action {
                // what follows was decided about the object as it was: decide again
                polecat::Action::PatchMetadata { finalizer, .. } if !s.deleting || *finalizer => {
                    break;
                }
                // the last finalizer of a deleted object, or its deletion: the watch shows what
                // comes of it
                polecat::Action::PatchMetadata { .. } | polecat::Action::DeletePolecat => {
                    return Ok(Action::await_change());
                }
                _ => {}
            }
        }
    }
    tracing::error!("{MAX_ROUNDS} plans in a row still had actions");
    Ok(Action::requeue(Duration::from_secs(5)))
}

/// Carries out one action and records what became of a request. A request that failed is tried
/// again later and does not fail the reconcile.
async fn carry_out(
    ctx: &Context,
    polecat: &Polecat,
    s: &Snapshot,
    action: &polecat::Action,
    now: Timestamp,
) -> Result<(), Error> {
    tracing::debug!(?action, "action");
    let result = act::act(ctx, polecat, s, action).await;
    if let Err(error @ (Error::Comment { .. } | Error::Escalation { .. })) = &result {
        tracing::warn!(error = error as &dyn std::error::Error, "a request is sent again later");
    }
    let update = |change: &dyn Fn(&mut polecat::Deliveries)| {
        ctx.update_deliveries(&s.uid, change);
        Ok(())
    };
    match (action, result) {
        (polecat::Action::Submit(inputs), Ok(Effect::Submitted(request))) => {
            update(&|d| d.submitted(now, &inputs.commit, request.clone()))
        }
        (polecat::Action::Submit(inputs), Err(Error::Submit { reason, message, .. })) => {
            let failure = Failure { reason, message };
            update(&|d| d.submit_failed(now, &inputs.commit, failure.clone()))
        }
        (polecat::Action::Comment(inputs), Ok(_)) => update(&|d| d.commented(&inputs.text)),
        (polecat::Action::Comment(inputs), Err(Error::Comment { refused, .. })) => {
            update(&|d| d.comment_failed(now, &inputs.text, refused))
        }
        (polecat::Action::Escalate(inputs), Ok(_)) => update(&|d| d.escalated(&inputs.request)),
        (polecat::Action::Escalate(inputs), Err(Error::Escalation { .. })) => {
            update(&|d| d.escalation_failed(now, &inputs.request))
        }
        (polecat::Action::StartPod(_), Ok(_)) => update(&polecat::Deliveries::pod_created),
        (_, Err(Error::Refused { message, .. })) => {
            update(&|d| d.pod_failed(now, reason::POD_CREATE_FAILED, &message))
        }
        (_, Err(Error::Bead { reason, message })) => {
            update(&|d| d.pod_failed(now, reason, &message))
        }
        (_, result) => result.map(|_| ()),
    }
}

/// Records what the snapshot shows of the rig's slots, and asks for one where a pod could start.
fn admit(ctx: &Context, s: &Snapshot, candidate: Option<Candidate>, now: Timestamp) -> Decision {
    let name = s.rig.name();
    observe_slot(ctx, s, candidate.clone(), now);
    match (candidate, ctx.rig(name)) {
        (Some(me), Some(rig)) => {
            let cap = usize::try_from(rig.spec.settings.max_polecats).unwrap_or(0);
            ctx.shared.admission.ask(name, cap, &me)
        }
        _ => Decision::NotAsked,
    }
}

fn observe_slot(ctx: &Context, s: &Snapshot, candidate: Option<Candidate>, now: Timestamp) {
    let live = s.live(now).next().is_some();
    let next = ctx.shared.admission.observe(s.rig.name(), &s.uid, live, candidate);
    ctx.trigger(&next);
}

/// Before the first slot of a term is granted, all Polecats that hold or want one are known.
fn count_slots(ctx: &Context) {
    let term = ctx.runtime.leadership.held();
    let mut counted = ctx.counted_term.lock();
    if term.is_none() || *counted == term {
        return;
    }
    ctx.shared.admission.clear();
    let now = Timestamp::now();
    for polecat in ctx.stores.polecats.state() {
        if let Some(polecat) = ctx.own_polecats.newest(polecat) {
            let s = gather::snapshot(ctx, &polecat);
            observe_slot(ctx, &s, assess(now, &s).candidate(now, &s), now);
        }
    }
    *counted = term;
}

/// When to reconcile again although nothing changed.
fn requeue(s: &Snapshot, plan: &Plan, admission: &Decision, now: Timestamp) -> Action {
    let most = match (admission, &s.claim) {
        // a freed slot triggers the first in line; this is for a trigger that was dropped
        (Decision::AtCapacity { .. }, _)
        // a released claim triggers those that wait for it; this is for one whose holder's last pod
        // has just ended
        | (_, ClaimFacts::HeldBy { .. } | ClaimFacts::ToLand { .. } | ClaimFacts::Unknown(_)) => {
            Duration::from_secs(60)
        }
        _ => Duration::from_secs(600),
    };
    match plan.wake {
        Some(wake) => {
            let left = wake.duration_since(now).unsigned_abs();
            // whole seconds are compared: a moment later, not a moment earlier
            Action::requeue(left.min(most) + Duration::from_millis(50))
        }
        None => Action::requeue(gastown_runtime::jittered(most)),
    }
}
