//! Reconciles a Witness: judges its rig's polecats, does what the verdicts ask for, counts.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use gastown_api::names::{condition, reason};
use gastown_api::{
    EscalationSpec, Polecat, PolecatPhase, RelatedObject, Witness, WitnessStatus, conditions,
    duration,
};
use gastown_core::witness::{self, Alarm, Facts, Order, Thresholds, Verdict};
use gastown_runtime::events::Note;
use jiff::{SignedDuration, Timestamp};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt as _};

use crate::alarms::{self, Raiser};
use crate::context::{Context, Error, Pass};
use crate::{gather, report};

/// Polecats of a busy rig change many times a second; a rig is looked at this often at most.
const APART: SignedDuration = SignedDuration::from_secs(1);
/// So many polecats are looked at at a time: most looks write nothing, but when a rig's agents all
/// attach, each is written to.
const AT_ONCE: usize = 16;
const NUDGE: &str = "You have been silent for a while. Go on with your task; if you are through, run `gt done`; if you cannot go on, run \
                     `gt escalate -s medium` and say what you need.";
const CHECKPOINT: &str = "the agent does nothing any more and is about to be restarted";

pub(crate) async fn reconcile(object: Arc<Witness>, ctx: Arc<Context>) -> Result<Action, Error> {
    let uid = object.uid().unwrap_or_default();
    if object.metadata.deletion_timestamp.is_some() {
        ctx.passes.lock().remove(&uid);
        return Ok(Action::await_change());
    }
    let now = Timestamp::now();
    let rig = &object.spec.rig_ref;
    if let Some(serving) = ctx.serving(rig).filter(|w| w.uid() != object.uid()) {
        let other = format!("{}/{}", serving.namespace().unwrap_or_default(), serving.name_any());
        publish(&object, &report::duplicate(&object, &other, now), &ctx).await?;
        return Ok(Action::await_change());
    }
    let pass = {
        let mut passes = ctx.passes.lock();
        let pass = passes.get(&uid).copied();
        if let Some(wait) = pass
            .map(|p| APART.saturating_sub(now.duration_since(p.last)))
            .filter(SignedDuration::is_positive)
        {
            return Ok(Action::requeue(wait.unsigned_abs()));
        }
        let pass = Pass { first: pass.map_or(now, |p| p.first), last: now };
        passes.insert(uid, pass);
        pass
    };
    let thresholds = gather::thresholds(&object.spec);
    let mut counted = Vec::new();
    let mut failed = None;
    let looks = ctx.polecats.state_filter(|p| p.spec.rig == *rig).into_iter().map(|polecat| {
        let ctx = ctx.clone();
        async move { (look(&polecat, &thresholds, pass.first, now, &ctx).await, polecat) }
    });
    let mut looks = futures::stream::iter(looks).buffer_unordered(AT_ONCE);
    while let Some((looked, polecat)) = looks.next().await {
        match looked {
            Ok(current) => counted.push(gather::counted(current.as_ref().unwrap_or(&polecat))),
            Err(error) => {
                // One polecat's trouble is not that of the others.
                counted.push(gather::counted(&polecat));
                failed = Some(error);
            }
        }
    }
    publish(&object, &report::witness(&object, &witness::count(&counted), now), &ctx).await?;
    if let Some(error) = failed {
        return Err(error);
    }
    let interval =
        duration::parse(&object.spec.health_check_interval).unwrap_or(Duration::from_secs(30));
    Ok(Action::requeue(gastown_runtime::jittered(
        interval.clamp(Duration::from_secs(1), Duration::from_secs(600)),
    )))
}

async fn publish(object: &Witness, status: &WitnessStatus, ctx: &Context) -> Result<(), Error> {
    let namespace = object.namespace().unwrap_or_default();
    let api = Api::<Witness>::namespaced(ctx.runtime.client.clone(), &namespace);
    let named = || format!("witness {namespace}/{}", object.name_any());
    report::WITNESS.apply(&api, object, status).await.map_err(|e| Error::Report(named(), e))?;
    if let Some(ready) = conditions::find(&status.conditions, condition::READY) {
        let note = if ready.status == "True" { Note::normal } else { Note::warning };
        ctx.runtime.events.publish(object, note(condition::READY, &ready.reason, &ready.message));
    }
    if object.spec.routes.is_empty() && object.spec.escalation_target != "mayor" {
        let reason = match object.spec.escalation_target.as_str() {
            "slack" => "SlackNotConfigured",
            "email" => "EmailNotConfigured",
            _ => "UnknownEscalationTarget",
        };
        let words = format!(
            "escalationTarget {} says not how: the mayor is told until spec.routes does",
            object.spec.escalation_target
        );
        ctx.runtime.events.publish(object, Note::warning("Routes", reason, words));
    }
    Ok(())
}

/// Looks at one polecat; returns it as it is then, if it changed.
async fn look(
    polecat: &Polecat,
    limits: &Thresholds,
    judging: Timestamp,
    now: Timestamp,
    ctx: &Context,
) -> Result<Option<Polecat>, Error> {
    let status = polecat.status.as_ref();
    let uid = polecat.uid().unwrap_or_default();
    let works = status
        .is_some_and(|s| s.phase == Some(PolecatPhase::Working) && s.pod_active == Some(true));
    let pod = status
        .and_then(|s| s.pod_name.as_deref())
        .filter(|_| works && polecat.metadata.deletion_timestamp.is_none());
    let Some(pod) = pod else {
        ctx.hub.rested(&uid);
        // A restart that is asked for is of the pod that it names; its reader may not have seen it
        // yet.
        let conditions = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
        let wanted = conditions::find(conditions, condition::HEALTHY)
            .is_some_and(|c| c.reason == reason::RESTART_WANTED);
        let working = status.is_some_and(|s| s.phase == Some(PolecatPhase::Working));
        settle(polecat, None, ctx).await?;
        return if wanted && working { Ok(None) } else { show(polecat, None, now, ctx).await };
    };
    let (known, since) = ctx.hub.known(now, &uid, pod);
    let facts = Facts {
        pod: known.as_ref().map(|k| k.uid.as_str()).unwrap_or_default(),
        since,
        memory: known.as_ref().and_then(|k| k.memory.as_ref()),
        attached: known.as_ref().is_some_and(|k| k.attached),
        judging,
        others: ctx.hub.heard(),
        thresholds: *limits,
    };
    // Nothing can be said yet: what was said before stays.
    let Some(verdict) = witness::judge(now, &facts) else { return Ok(None) };
    if let (Some(order), Some(known)) = (verdict.order, &known) {
        let text = if order == Order::Nudge { NUDGE } else { CHECKPOINT };
        let sent = ctx.hub.order(now, &uid, &known.uid, order, text);
        tracing::info!(?order, sent, pod, "a wedged agent");
        if sent {
            let (word, said) = match order {
                Order::Nudge => ("Nudged", format!("{}; it is nudged", verdict.message)),
                Order::Checkpoint => (
                    "Saving",
                    format!("{}; its work is to be saved before a restart", verdict.message),
                ),
            };
            ctx.runtime.events.publish(polecat, Note::warning("Wedged", word, said));
        }
    }
    let shown = show(polecat, Some(&verdict), now, ctx).await?;
    settle(polecat, Some(&verdict), ctx).await?;
    if let Some(alarm) = &verdict.alarm {
        raise(polecat, alarm, ctx).await?;
    }
    Ok(shown)
}

async fn show(
    polecat: &Polecat,
    verdict: Option<&Verdict>,
    now: Timestamp,
    ctx: &Context,
) -> Result<Option<Polecat>, Error> {
    let namespace = polecat.namespace().unwrap_or_default();
    let api = Api::<Polecat>::namespaced(ctx.runtime.client.clone(), &namespace);
    let status = report::polecat(polecat, verdict, now);
    let written = report::POLECAT.applied(&api, polecat, &status).await;
    written.map_err(|e| Error::Report(format!("polecat {namespace}/{}", polecat.name_any()), e))
}

fn cause(polecat: &Polecat, what: &str) -> String {
    format!("polecat/{}/{}/{what}", polecat.namespace().unwrap_or_default(), polecat.name_any())
}

/// Raises what is not open yet: a look is no new raise.
async fn raise(polecat: &Polecat, alarm: &Alarm, ctx: &Context) -> Result<(), Error> {
    let namespace = polecat.namespace().unwrap_or_default();
    let cause = cause(polecat, alarm.cause);
    if alarms::open(ctx, &namespace, &cause).is_some() {
        return Ok(());
    }
    let spec = EscalationSpec {
        severity: alarm.severity,
        summary: format!("Polecat {}: {}", polecat.name_any(), alarm.summary)
            .chars()
            .take(1024)
            .collect(),
        cause: cause.clone(),
        details: None,
        source: "witness-ctl".to_owned(),
        rig_ref: polecat.spec.rig.clone(),
        related_object: Some(RelatedObject {
            kind: "Polecat".to_owned(),
            namespace: Some(namespace.clone()),
            name: polecat.name_any(),
        }),
        acknowledged: None,
        closed: None,
    };
    alarms::raise(ctx, &namespace, spec, Raiser::Controller)
        .await
        .map(drop)
        .map_err(|e| Error::Alarm(cause, e))
}

/// Settles what this witness raised and what is no more.
async fn settle(polecat: &Polecat, verdict: Option<&Verdict>, ctx: &Context) -> Result<(), Error> {
    let namespace = polecat.namespace().unwrap_or_default();
    let still = verdict.and_then(|v| v.alarm.as_ref()).map(|a| a.cause);
    for what in Alarm::ALL.into_iter().filter(|what| Some(*what) != still) {
        // A wedged agent stays one between two checkpoints.
        if what == Alarm::UNSAVED && verdict.is_some_and(|v| v.reason == "Wedged") {
            continue;
        }
        let cause = cause(polecat, what);
        if alarms::stands(ctx, &namespace, &cause) {
            let why = verdict.map_or("its pod is not at work any more", |v| v.message.as_str());
            alarms::settle(ctx, &namespace, &cause, why)
                .await
                .map_err(|e| Error::Alarm(cause, e))?;
        }
    }
    Ok(())
}
