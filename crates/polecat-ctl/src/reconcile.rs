//! One reconcile of one Polecat: gather → decide → act until no action is left → report.

use std::sync::Arc;
use std::time::Duration;

use gastown_api::Polecat;
use gastown_api::names::reason;
use gastown_core::admission::{Candidate, Decision};
use gastown_core::polecat::{self, ClaimFacts, Failure, Plan, Snapshot, assess, decide};
use gastown_runtime::controller::{Action, Class, Classify as _};
use gastown_runtime::telemetry;
use jiff::Timestamp;

use crate::act::{self, Effect};
use crate::context::Context;
use crate::error::Error;
use crate::{bead_view, gather, network, promises, report, term};

/// More rounds than any plan needs, so that a defect of ours cannot loop for ever.
const MAX_ROUNDS: usize = 8;

/// What is due is done this long after its time.
const MOMENT: Duration = Duration::from_millis(50);

/// Reconciles one Polecat.
pub(crate) async fn reconcile(polecat: Arc<Polecat>, ctx: Arc<Context>) -> Result<Action, Error> {
    term::begin(&ctx, &polecat.spec.rig).await?; // client
    promises::resolve(&ctx, &polecat).await?; // client
    bead_view::refresh(&ctx, &polecat, Timestamp::now()).await; // client
    network::ensure(&ctx, &polecat, Timestamp::now()).await; // client
    for _ in 0..MAX_ROUNDS {
        let Some(polecat) = ctx.newest(&polecat) else { return Ok(Action::await_change()) };
        let now = Timestamp::now();
        let s = gather::snapshot(&ctx, &polecat, now); // client
        telemetry::about(polecat::life(&s).root());
        // What was written before is known to be, so that what follows is exported whenever it was.
        ctx.shared.lives.export(&s.uid, now, || polecat::spans(&s));
        let assessment = assess(now, &s); // pure
        let candidate = assessment.candidate(now, &s); // pure
        let admission = admit(&ctx, &s, candidate, now); // client
        let plan = decide(now, &s, &assessment, &admission); // pure
        let round = carry_out(&ctx, &polecat, &s, &plan, now).await; // client
        if let Some((what, error)) = round.failed {
            return failed(&ctx, &polecat, &s, plan, (&what, error), now).await; // client
        }
        if plan.actions.is_empty() {
            ctx.actions_succeeded(&s.uid);
            let status = report::status(&polecat, &s, &plan.status, &ctx.agent_image(), now); // pure
            ctx.shared.metrics.show(&s, &status, now);
            let later = report::publish(&ctx, &polecat, &status, &plan.status).await?; // client
            ctx.shared.lives.export(&s.uid, now, || polecat::spans(&s));
            return Ok(requeue(&s, &plan, &admission, later, now)); // pure
        }
        if round.ended {
            ctx.shared.lives.export(&s.uid, now, || polecat::spans(&s));
            return Ok(Action::await_change());
        }
    }
    tracing::error!("{MAX_ROUNDS} plans in a row still had actions");
    Ok(Action::requeue(Duration::from_secs(5)))
}

/// What became of a plan's actions.
#[derive(Default)]
struct Round {
    /// The first action that failed, and why.
    failed: Option<(String, Error)>,
    /// The Polecat is gone, or going: the watch shows what comes of it.
    ended: bool,
}

/// Carries out the actions of a plan. One that fails does not stop those that do not depend on it.
async fn carry_out(
    ctx: &Context,
    polecat: &Polecat,
    s: &Snapshot,
    plan: &Plan,
    now: Timestamp,
) -> Round {
    let mut round = Round::default();
    let mut ledger_failed = false;
    for action in &plan.actions {
        if round.failed.is_some() && !action.after_failure(ledger_failed) {
            continue;
        }
        let is_ledger = matches!(action, polecat::Action::PatchMetadata { .. });
        if let Err(error) = attempt(ctx, polecat, s, action, now).await {
            ledger_failed |= is_ledger;
            tracing::debug!(?action, error = &error as &dyn std::error::Error, "an action failed");
            round.failed.get_or_insert((name(action), error));
            continue;
        }
        match action {
            // what follows was decided about the object as it was: decide again
            polecat::Action::PatchMetadata { finalizer, .. } if !s.deleting || *finalizer => break,
            // the last finalizer of a deleted object, or its deletion
            polecat::Action::PatchMetadata { .. } | polecat::Action::DeletePolecat => {
                round.ended = true;
                break;
            }
            _ => {}
        }
    }
    round
}

/// The action and its object, so that the same one is known again.
fn name(action: &polecat::Action) -> String {
    use polecat::Action as A;
    match action {
        A::PatchMetadata { .. } => "PatchMetadata".to_owned(),
        A::Claim => "Claim".to_owned(),
        A::ReleaseClaim => "ReleaseClaim".to_owned(),
        A::Comment(_) => "Comment".to_owned(),
        A::Escalate(_) => "Escalate".to_owned(),
        A::StartPod(inputs) => format!("StartPod {}", inputs.name),
        A::DrainPod { pod, .. } => format!("DrainPod {pod}"),
        A::RemovePodFinalizer { pod, .. } => format!("RemovePodFinalizer {pod}"),
        A::DeletePod { pod, .. } => format!("DeletePod {pod}"),
        A::Submit(_) => "Submit".to_owned(),
        A::DeletePolecat => "DeletePolecat".to_owned(),
    }
}

/// Shows why an action was not carried out, in the other side's words, and has it tried again with
/// back-off. What passes by itself, such as a conflict, is shown only when it comes again.
async fn failed(
    ctx: &Context,
    polecat: &Polecat,
    s: &Snapshot,
    plan: Plan,
    (what, error): (&str, Error),
    now: Timestamp,
) -> Result<Action, Error> {
    let mut tries = 0;
    ctx.update_deliveries(&s.uid, |d| tries = d.action_failed(now, what));
    let lasting = matches!(error.class(), Class::Forbidden | Class::InvalidSpec);
    if lasting || (tries > 1 && error.class() != Class::Conflict) {
        let draft = plan.status.failed(&error.sentence());
        let status = report::status(polecat, s, &draft, &ctx.agent_image(), now); // pure
        ctx.shared.metrics.show(s, &status, now);
        report::publish(ctx, polecat, &status, &draft).await?; // client
    }
    Err(error)
}

/// Carries out one action and records what became of a request. A request to another controller
/// that failed is tried again later and does not fail the reconcile.
async fn attempt(
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
        (polecat::Action::Escalate(inputs), Ok(_)) => {
            update(&|d| d.escalated(&inputs.cause, &inputs.request))
        }
        (polecat::Action::Escalate(inputs), Err(Error::Escalation { .. })) => {
            update(&|d| d.escalation_failed(now, &inputs.cause, &inputs.request))
        }
        (polecat::Action::StartPod(_), Ok(_)) => {
            ctx.shared.metrics.started(s, Timestamp::now());
            update(&polecat::Deliveries::pod_created)
        }
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
    term::observe_slot(ctx, s, candidate.clone(), now);
    match (candidate, ctx.rig(name)) {
        (Some(me), Some(rig)) => {
            let cap = usize::try_from(rig.spec.settings.max_polecats).unwrap_or(0);
            ctx.shared.admission.ask(name, cap, &me)
        }
        _ => Decision::NotAsked,
    }
}

/// When to reconcile again although nothing changed. `later`: when the status is due.
fn requeue(
    s: &Snapshot,
    plan: &Plan,
    admission: &Decision,
    later: Option<Duration>,
    now: Timestamp,
) -> Action {
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
    // whole seconds are compared: a moment later, not a moment earlier
    let left = |wake: Timestamp| wake.duration_since(now).unsigned_abs() + MOMENT;
    let due = [plan.wake.map(left), later].into_iter().flatten().min();
    Action::requeue(due.map_or_else(|| gastown_runtime::jittered(most), |due| due.min(most)))
}
