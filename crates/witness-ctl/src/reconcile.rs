//! Reconciles a Witness: assesses the polecats of its rig, acts on each assessment, and counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use gastown_api::names::{condition, reason};
use gastown_api::{Polecat, PolecatPhase, PolecatStatus, Witness, conditions, duration};
use gastown_core::witness::{self, PolecatHealth};
use gastown_runtime::apply::Applied;
use gastown_runtime::controller::Action;
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::act;
use crate::context::{Context, Pass};
use crate::error::Error;
use crate::{escalations, gather, report};

/// How many polecats of a rig are assessed at a time: most passes write nothing, but when a rig's
/// agents all attach, each Polecat is written to.
const CONCURRENCY: usize = 16;

pub(crate) async fn reconcile(object: Arc<Witness>, ctx: Arc<Context>) -> Result<Action, Error> {
    if object.metadata.deletion_timestamp.is_some() {
        ctx.passes.forget(&object);
        return Ok(Action::await_change());
    }
    let now = Timestamp::now();
    let active = ctx.active_witness(&object.spec.rig_ref);
    if let Some(active) = active.filter(|w| w.uid() != object.uid()) {
        let status = report::duplicate(&object, &active, now); // pure
        report::publish_witness(&object, &status, &ctx).await?; // client
        return Ok(Action::await_change());
    }
    let term = ctx.runtime.shards.held(&object.spec.rig_ref);
    let polecats_of_rig = ctx.stores.polecats_by_rig.count(&object.spec.rig_ref);
    let pass = match ctx.passes.begin(&object, polecats_of_rig, term, now) {
        Ok(pass) => pass,
        Err(wait) => return Ok(Action::requeue(wait)),
    };
    let Round { health, states, failed, later: activity } = polecats(&object, pass, &ctx).await; // client
    ctx.metrics.assessed(&object.spec.rig_ref, states);
    let status = report::witness(&object, &witness::count(&health), now); // pure
    let later = report::publish_witness(&object, &status, &ctx).await?; // client
    if let Some(error) = failed {
        return Err(error);
    }
    let due = [later, activity].into_iter().flatten().min();
    Ok(Action::requeue(due.unwrap_or(Duration::MAX).min(next_pass(&object))))
}

fn next_pass(witness: &Witness) -> Duration {
    let interval =
        duration::parse(&witness.spec.health_check_interval).unwrap_or(Duration::from_secs(30));
    let interval = interval.clamp(Duration::from_secs(1), Duration::from_secs(600));
    gastown_runtime::jittered(interval)
}

/// What came of one pass over the polecats of a rig.
#[derive(Default)]
struct Round {
    health: Vec<PolecatHealth>,
    /// How many agents at work were found in each state.
    states: BTreeMap<&'static str, usize>,
    /// An error, if there was any: the error of one polecat does not stop the others.
    failed: Option<Error>,
    /// After which time details are due that were not written yet.
    later: Option<Duration>,
}

/// Reconciles the polecats of a Witness's rig.
async fn polecats(witness: &Witness, pass: Pass, ctx: &Arc<Context>) -> Round {
    let rig = &witness.spec.rig_ref;
    let thresholds = gather::thresholds(&witness.spec);
    let all = ctx.stores.polecats_by_rig.of(rig).into_iter();
    let all = all.inspect(|polecat| {
        if pass.is_first() {
            ctx.streams.begin_term(&polecat.uid().unwrap_or_default());
        }
    });
    let all = all.map(|before| {
        let ctx = ctx.clone();
        async move { (polecat(&before, thresholds, pass, &ctx).await, before) }
    });
    let mut ended = futures::stream::iter(all).buffer_unordered(CONCURRENCY);
    let mut round = Round::default();
    while let Some((after, before)) = ended.next().await {
        let (applied, state) = after.unwrap_or_else(|error| {
            round.failed = Some(error);
            (Applied::Unchanged, None)
        });
        if let Some(state) = state {
            *round.states.entry(state).or_default() += 1;
        }
        round.later = [round.later, applied.later()].into_iter().flatten().min();
        round.health.push(match &applied {
            Applied::Written(current) => gather::health(current),
            Applied::Unchanged | Applied::Later(_) => gather::health(&before),
        });
    }
    round
}

/// Reconciles one polecat. Returns what became of its status, and the state of its agent.
async fn polecat(
    object: &Polecat,
    thresholds: witness::Thresholds,
    pass: Pass,
    ctx: &Context,
) -> Result<(Applied<Polecat>, Option<&'static str>), Error> {
    let now = pass.began;
    let Some(pod) = gather::working_pod(object) else {
        return Ok((idle(object, now, ctx).await?, None));
    };
    let snapshot = gather::snapshot(object, pod, thresholds, pass, ctx); // pure
    let Some(assessment) = witness::assess(now, &snapshot) else {
        return Ok((Applied::Unchanged, None));
    }; // pure
    act::act(object, &snapshot.pod, &assessment, now, ctx); // client: the pod's stream, an Event
    let written = publish(object, Some(&assessment), now, ctx).await?; // client
    escalations::update(object, Some(&assessment), ctx).await?; // client
    Ok((written, Some(assessment.reason)))
}

/// Takes back what was published about an agent that is not at work any more.
async fn idle(object: &Polecat, now: Timestamp, ctx: &Context) -> Result<Applied<Polecat>, Error> {
    ctx.streams.idle(&object.uid().unwrap_or_default());
    escalations::update(object, None, ctx).await?; // client
    if is_restarting(object) {
        return Ok(Applied::Unchanged);
    }
    publish(object, None, now, ctx).await // client
}

/// Applies our part of a Polecat's status.
async fn publish(
    object: &Polecat,
    assessment: Option<&witness::Assessment>,
    now: Timestamp,
    ctx: &Context,
) -> Result<Applied<Polecat>, Error> {
    let saved = gather::saved(object, now, ctx);
    let status = report::polecat(object, assessment, saved, now); // pure
    let applied = report::publish_polecat(object, &status, ctx).await?; // client
    if let Applied::Written(_) = applied {
        let wants = |status: &PolecatStatus| {
            let healthy = conditions::find(&status.conditions, condition::HEALTHY);
            healthy.is_some_and(|c| c.reason == reason::RESTART_WANTED)
        };
        if wants(&status) && !object.status.as_ref().is_some_and(wants) {
            ctx.metrics.restarted(&object.spec.rig);
        }
        ctx.streams.saving_written(now, &object.uid().unwrap_or_default());
    }
    Ok(applied)
}

/// Whether polecat-ctl may not have seen yet that a restart of the pod that is ending was asked
/// for.
fn is_restarting(polecat: &Polecat) -> bool {
    let Some(status) = &polecat.status else { return false };
    let healthy = conditions::find(&status.conditions, condition::HEALTHY);
    status.phase == Some(PolecatPhase::Working)
        && healthy.is_some_and(|c| c.reason == reason::RESTART_WANTED)
}
