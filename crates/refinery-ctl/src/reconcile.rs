//! One reconcile of a Refinery: snapshot, step, snapshot, step, … until there is nothing to do but
//! wait.

use std::sync::Arc;
use std::time::Duration;

use gastown_api::Refinery;
use gastown_api::names::reason;
use gastown_core::train::{RequestId, Step, decide};
use gastown_credentials::reason_of;
use gastown_git::{Class, GitError};
use gastown_runtime::controller::{Action, resync};
use gastown_runtime::events::Note;
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::act::{act, ensure_policy, offer_candidates};
use crate::context::Context;
use crate::error::Error;
use crate::gather::snapshot;
use crate::pass::Pass;
use crate::remote::PassRemote;
use crate::train::{Train, WaitReason};
use crate::validate::{Role, ValidRefinery, role};
use crate::{escalations, report};

/// The most steps of one reconcile; the rest follows at once in the next one.
const MAX_STEPS: usize = 200;

pub(crate) async fn reconcile(refinery: Arc<Refinery>, ctx: Arc<Context>) -> Result<Action, Error> {
    if refinery.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let all = ctx.stores.refineries.state();
    let role = role(&refinery, &all, |name| ctx.rig(name)); // pure
    match role {
        Role::Inactive { reason, message } => {
            let later = report::publish_inactive(&ctx, &refinery, reason, &message).await?; // client
            Ok(later.map_or_else(resync, Action::requeue))
        }
        Role::Active(ValidRefinery { rig, url, target, committing }) => {
            let gates = ctx.gates();
            let pass = Pass { ctx: &ctx, refinery, rig, url, target, committing, gates };
            run(&pass).await
        }
    }
}

async fn run(pass: &Pass<'_>) -> Result<Action, Error> {
    let train = pass.ctx.train(&(pass.url.normalised(), pass.target.clone()));
    let mut train = train.lock().await;
    pass.ctx.metrics.begin(pass.rig_name());
    let term = pass.ctx.runtime.shards.held(&pass.refinery.spec.rig_ref).ok_or(Error::LeaseLost)?;
    let refinery = pass.refinery.uid().unwrap_or_default();
    // What was learnt in another term, or for another Refinery, may be wrong by now.
    if train.term != Some(term) || train.refinery != refinery {
        *train = Train { term: Some(term), refinery, ..Train::default() };
    }
    pass.ctx.sweep_mirrors().await;
    train.use_mirror(pass.mirror().id());
    train.use_committing(&pass.committing);
    let not_admitted = report::publish_not_admitted(pass).await?; // client
    ensure_policy(pass, &mut train).await; // client
    match steps(pass, &mut train).await {
        Ok(until) => {
            let snapshot = snapshot(pass, &mut train); // client: caches only
            let later = report::publish(pass, &mut train, &snapshot).await?; // client
            let problems = escalations::problems(&snapshot, &train, &pass.refinery); // pure
            for p in problems {
                pass.ctx.escalations.update(&p.subject, p.reasons, &p.present); // client: an outbox
            }
            let gates = train.gates_held.as_ref().map(|held| held.until);
            let remote = train.held_until(snapshot.now, pass.refinery.metadata.generation);
            let times = [until, gates, remote].map(|time| time.map(duration_until));
            let next = times.into_iter().chain([later, not_admitted]);
            let next = next.flatten().min();
            Ok(next.map_or_else(resync, Action::requeue))
        }
        Err(Error::Git(error)) => recover(pass, &mut train, &error).await,
        Err(Error::Credentials { reason, message }) => {
            retry_remote(pass, &mut train, reason, message).await
        }
        Err(error) => Err(error),
    }
}

/// Carries out steps until the next one is to wait. Returns when to look again.
async fn steps(pass: &Pass<'_>, train: &mut Train) -> Result<Option<Timestamp>, Error> {
    let remote = &PassRemote::new(pass);
    let generation = pass.refinery.metadata.generation;
    let held = train.held_until(Timestamp::now(), generation);
    if held.is_none() && train.problem.is_some() {
        // What is shown is looked at again, also when no request waits for it.
        act_apart(pass, train, remote, Step::Fetch).await?; // client
        train.remote_works();
    } else if held.is_none() && train.credentials_of != generation {
        // Wrong credentials are shown before the first request comes.
        remote.get().await?; // client
    }
    train.credentials_of = generation;
    for _ in 0..MAX_STEPS {
        if pass.ctx.runtime.shards.held(&pass.refinery.spec.rig_ref).is_none() {
            return Err(Error::LeaseLost);
        }
        let before = snapshot(pass, train); // client: caches only
        offer_candidates(pass, train, &before); // client: the git endpoint
        let step = decide(&before); // pure
        if let Step::Wait { until, .. } = &step {
            return Ok(*until);
        }
        if pass.ctx.runtime.drain.is_cancelled() {
            return Ok(None);
        }
        if uses_remote(&step) && held.is_some() {
            return Ok(held);
        }
        tracing::debug!(?step, "step");
        let (uses_remote, changes_status) = (uses_remote(&step), changes_status(&step));
        let about = step.request().cloned();
        let acted = act_apart(pass, train, remote, step).await; // client
        match (about, acted) {
            (Some(request), Err(error)) if error.is_refusal() => {
                refused(pass, train, &request, &error);
                continue;
            }
            (about, acted) => {
                acted?;
                if let Some(e) = about.and_then(|request| train.entries.get_mut(&request)) {
                    (e.scratch.failures, e.scratch.failed_until) = (0, None);
                }
            }
        }
        if uses_remote {
            train.remote_works();
        }
        if changes_status {
            let after = snapshot(pass, train); // client: caches only
            report::publish(pass, train, &after).await?; // client
        }
    }
    Ok(Some(Timestamp::now()))
}

/// Carries out a step; one that takes its time does not keep other Refineries waiting meanwhile.
async fn act_apart(
    pass: &Pass<'_>,
    train: &mut Train,
    remote: &PassRemote<'_>,
    step: Step,
) -> Result<(), Error> {
    let ctx = pass.ctx;
    match &step {
        Step::Fetch
        | Step::EnsureGate { .. }
        | Step::Land(_)
        | Step::ReadBack { .. }
        | Step::CleanUp(_)
        | Step::DeleteSaved(_) => {
            ctx.remotes.call(pass.url.host(), act(pass, train, remote, step)).await
        }
        Step::Build { .. } => ctx.builds.call("builds", act(pass, train, remote, step)).await,
        _ => act(pass, train, remote, step).await,
    }
}

/// One request's objects cannot be written: that one waits, and the others do not.
fn refused(pass: &Pass<'_>, train: &mut Train, request: &RequestId, error: &Error) {
    let message = error.sentence();
    tracing::warn!(request = request.0, message, "what is to be done for a request is refused");
    let Some(e) = train.entry(request) else { return };
    e.fail(message.clone());
    let note = Note::warning("action", reason::ACTION_FAILED, message);
    pass.ctx.runtime.events.publish(e.object(), note.clone());
    pass.ctx.runtime.events.publish(pass.refinery.as_ref(), note.about(e.object()));
}

/// After an error of the remote or the mirror: deletes a broken mirror once, and else reports the
/// error and backs off.
async fn recover(pass: &Pass<'_>, train: &mut Train, error: &GitError) -> Result<Action, Error> {
    // A branch that the remote has lost meanwhile breaks nothing.
    let is_broken = || pass.mirror().is_broken();
    if matches!(error.class, Class::Corrupt | Class::RefNotFound) && !train.discarded && is_broken()
    {
        tracing::warn!(%error, "the mirror is broken and is created again");
        train.discarded = true;
        let lock = pass.ctx.mirror_lock(&pass.url);
        let _guard = lock.lock().await;
        train.use_mirror(None);
        if let Err(error) = pass.mirror().discard() {
            tracing::warn!(%error, "deleting a broken mirror failed");
        }
        return Ok(Action::requeue(Duration::from_millis(100)));
    }
    // A target that may have moved is asked for again.
    train.target = None;
    retry_remote(pass, train, reason_of(error.class), error.to_string()).await
}

/// Reports why the remote cannot be used, and tries again later.
async fn retry_remote(
    pass: &Pass<'_>,
    train: &mut Train,
    reason: &'static str,
    message: String,
) -> Result<Action, Error> {
    tracing::warn!(reason, detail = message, "the refinery cannot use its remote");
    let note = Note::warning("remote", reason, message.clone());
    pass.ctx.runtime.events.publish(pass.refinery.as_ref(), note);
    train.problem = Some(WaitReason { reason, message });
    train.failures = train.failures.saturating_add(1);
    let snapshot = snapshot(pass, train); // client: caches only
    report::publish(pass, train, &snapshot).await?; // client
    let seconds = 1_u64 << train.failures.min(5);
    let pause = gastown_runtime::jittered(Duration::from_secs(seconds.min(30)));
    let until = Timestamp::now().checked_add(pause).ok();
    train.remote_held = until.map(|until| (until, pass.refinery.metadata.generation));
    Ok(Action::requeue(pause))
}

fn duration_until(t: Timestamp) -> Duration {
    let wait = t.duration_since(Timestamp::now());
    Duration::try_from(wait).unwrap_or_default() + Duration::from_millis(50)
}

/// Whether a step succeeds only when the remote works.
fn uses_remote(step: &Step) -> bool {
    matches!(step, Step::Fetch | Step::Land(_) | Step::ReadBack { .. })
}

/// Whether a step changes a status, which is written before the next step: a phase is not skipped.
fn changes_status(step: &Step) -> bool {
    match step {
        Step::EnsureGate { .. }
        | Step::RecordVerdict { .. }
        | Step::RecordBrokenRun { .. }
        | Step::MarkLanded { .. }
        | Step::Rework { .. }
        | Step::Reject { .. }
        | Step::Supersede { .. }
        | Step::Reopen(_) => true,
        Step::Fetch
        | Step::Build { .. }
        // What follows is that it has landed, or a wait: both are shown.
        | Step::Land(_)
        | Step::ReleaseJob { .. }
        | Step::DeleteRun(_)
        | Step::ReadBack { .. }
        | Step::NotifyAuthor(_)
        | Step::CleanUp(_)
        | Step::DeleteSaved(_)
        | Step::LookUpAuthor(_)
        | Step::DeleteRequest(_)
        | Step::Wait { .. } => false,
    }
}
