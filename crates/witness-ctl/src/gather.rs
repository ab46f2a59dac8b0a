//! From objects, streams and what this process has sent to snapshots; no judgement.

use gastown_api::conditions::Draft;
use gastown_api::names::{condition, reason};
use gastown_api::{
    BeadStore, Convoy, Escalation, MergeRequest, Polecat, PolecatPhase, Refinery, RelatedObject,
    Rig, Route, Witness, WitnessSpec, conditions, duration,
};
use gastown_core::escalation::{self, RouteSnapshot};
use gastown_core::polecat;
use gastown_core::witness::{self, PolecatHealth, Shown, Snapshot, Thresholds};
use jiff::{SignedDuration, Timestamp};
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Resource, ResourceExt as _};

use crate::context::{Context, Pass};
use crate::escalations;

/// The thresholds of a Witness. One that is absent, or is not a duration, has its default.
pub(crate) fn thresholds(spec: &WitnessSpec) -> Thresholds {
    let read = |text: Option<&str>| {
        text.and_then(duration::parse).and_then(|d| SignedDuration::try_from(d).ok())
    };
    let default = Thresholds::default();
    Thresholds {
        quiet: read(spec.quiet_threshold.as_deref()).unwrap_or(default.quiet),
        stuck: read(Some(&spec.stuck_threshold)).filter(|d| !d.is_zero()).unwrap_or(default.stuck),
        nudge_after: read(spec.nudge_after.as_deref()).unwrap_or(default.nudge_after),
        restart_after: read(spec.restart_after.as_deref()).unwrap_or(default.restart_after),
        grace: default.grace,
    }
}

/// The name of a Polecat's pod while its agent is at work.
pub(crate) fn working_pod(polecat: &Polecat) -> Option<&str> {
    let status = polecat.status.as_ref()?;
    let is_working = status.phase == Some(PolecatPhase::Working)
        && status.pod_active == Some(true)
        && polecat.metadata.deletion_timestamp.is_none();
    status.pod_name.as_deref().filter(|_| is_working)
}

/// The name of a Polecat's pod while that is there, also while the Polecat is being deleted: its
/// work may still be saved.
fn saving_pod(polecat: &Polecat) -> Option<&str> {
    let status = polecat.status.as_ref()?;
    let runs = status.phase == Some(PolecatPhase::Working) && status.pod_active == Some(true);
    status.pod_name.as_deref().filter(|_| runs)
}

/// The condition about the saving of a Polecat's work, where there is to be one.
pub(crate) fn saved(polecat: &Polecat, now: Timestamp, ctx: &Context) -> Option<Draft> {
    let pod = saving_pod(polecat)?;
    let all = polecat.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let shown = conditions::find(all, condition::SAVED)
        .map(|c| Shown { saved: c.status == "True", message: &c.message });
    let (saving, written) = ctx.streams.saving(&polecat.uid().unwrap_or_default(), pod);
    witness::saved(now, saving.as_deref(), shown, written)
}

/// The snapshot of a Polecat whose pod `pod` is at work.
pub(crate) fn snapshot(
    polecat: &Polecat,
    pod: &str,
    thresholds: Thresholds,
    pass: Pass,
    ctx: &Context,
) -> Snapshot {
    let uid = polecat.uid().unwrap_or_default();
    let (pod, since) = ctx.streams.pod(pass.began, &uid, pod);
    Snapshot {
        since,
        attached: pod.as_ref().is_some_and(|p| p.attached),
        assessing_since: pass.first,
        heartbeats: ctx.streams.heartbeats(),
        thresholds,
        pod: pod.as_ref().map(|p| p.uid.clone()).unwrap_or_default(),
        activity: pod.and_then(|p| p.activity),
    }
}

/// What is counted of a Polecat.
pub(crate) fn health(polecat: &Polecat) -> PolecatHealth {
    let status = polecat.status.as_ref();
    let all = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
    let healthy = conditions::find(all, condition::HEALTHY);
    let counted = ["Wedged", "NotHeard", reason::RESTART_WANTED];
    PolecatHealth {
        name: format!("{}/{}", polecat.namespace().unwrap_or_default(), polecat.name_any()),
        phase: status.and_then(|s| s.phase),
        failed: conditions::is_true(all, condition::DEGRADED),
        unhealthy: healthy
            .is_some_and(|c| c.status == "False" && counted.contains(&c.reason.as_str())),
    }
}

/// The routes along which a Witness sends Escalations. Without a Witness, or without routes of its
/// own, everything goes to the mayor.
pub(crate) fn routes(witness: Option<&Witness>) -> Vec<Route> {
    let routes = witness.map(|w| w.spec.routes.clone()).unwrap_or_default();
    if routes.is_empty() { vec![Route::mayor()] } else { routes }
}

/// The snapshot of an Escalation, whose rig's active Witness has these routes.
pub(crate) async fn escalation(
    object: &Escalation,
    witness: Option<&Witness>,
    routes: &[Route],
    now: Timestamp,
    ctx: &Context,
) -> escalation::Snapshot {
    let route = |route: &Route| RouteSnapshot {
        name: route.name().to_owned(),
        min_severity: route.min_severity,
        sent_at: ctx.sent.recent(witness, route.name(), now),
    };
    escalation::Snapshot {
        severity: object.spec.severity,
        created: object.creation_timestamp().map_or(now, |t| t.0),
        acknowledged: object.spec.acknowledged.is_some(),
        closed: object.spec.closed.is_some(),
        missing: missing(object, ctx).await,
        state: escalations::state(object),
        routes: routes.iter().map(route).collect(),
    }
}

/// That the object which an open Escalation is about does not exist any more, in a sentence. Lost
/// work stays lost without its Polecat.
async fn missing(object: &Escalation, ctx: &Context) -> Option<String> {
    let about = object.spec.related_object.as_ref()?;
    let outlives = object.spec.cause.ends_with(polecat::LOSS);
    if outlives || !escalations::is_open(object) {
        return None;
    }
    let RelatedObject { kind, namespace, name } = about;
    // Whoever may create an Escalation does not learn by it what is in other namespaces.
    if namespace.is_some() && *namespace != object.namespace() {
        return None;
    }
    let resource = resource(kind)?;
    let client = ctx.runtime.client.clone();
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    match api.get_metadata_opt(name).await {
        Ok(found) => found.is_none().then(|| {
            let name = namespace.as_ref().map_or_else(|| name.clone(), |n| format!("{n}/{name}"));
            format!("{kind} {name} does not exist any more")
        }),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(kind, name, error, "what an Escalation is about cannot be read");
            None
        }
    }
}

/// The resource of a kind that Escalations are about.
fn resource(kind: &str) -> Option<ApiResource> {
    fn of<K: Resource<DynamicType = ()>>(kind: &str) -> Option<ApiResource> {
        (K::kind(&()) == kind).then(|| ApiResource::erase::<K>(&()))
    }
    let all = [
        of::<Polecat>,
        of::<MergeRequest>,
        of::<Convoy>,
        of::<BeadStore>,
        of::<Refinery>,
        of::<Witness>,
        of::<Rig>,
    ];
    all.iter().find_map(|of| of(kind))
}
