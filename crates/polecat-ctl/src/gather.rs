//! From objects to facts: the one place where the snapshot of a Polecat is built. It reads stores
//! and what this process remembers; it judges and waits for nothing.

mod pods;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use gastown_api::names::{annotation, condition, finalizer, label, reason};
use gastown_api::{MergeAttempt, MergePhase, MergeRequest, Polecat, PolecatPhase, Rig, conditions};
use gastown_core::polecat::{
    BeadRequest, BeadView, ClaimFacts, ClaimRecord, Deliveries, End, InvalidSpec, Ledger, Margins,
    RequestFacts, RequestTrace, RigFacts, Snapshot, TraceFacts, ValidPolecat, sanitize,
};
use gastown_types::GitUrl;
use jiff::Timestamp;
use kube::{Resource, ResourceExt as _};

use crate::claims;
use crate::context::Context;
use crate::pod::AgentPod;
use crate::sightings::Sightings;

/// What a snapshot is made from, beside the Polecat.
#[derive(Default)]
pub(crate) struct Objects {
    /// The time of the snapshot.
    pub now: Timestamp,
    /// When this process first saw pods in a state.
    pub sightings: Arc<Sightings>,
    /// Its rig.
    pub rig: Option<Arc<Rig>>,
    /// The branches that the rig's Refineries land on.
    pub targets: Vec<String>,
    /// The pods that name it as their controller.
    pub pods: Vec<Arc<AgentPod>>,
    /// The MergeRequests that name it as their author.
    pub requests: Vec<Arc<MergeRequest>>,
    /// The claim on its bead.
    pub claim: Option<ClaimRecord>,
    /// When that was taken.
    pub claimed: Option<Timestamp>,
    /// The MergeRequests for its bead.
    pub bead_requests: Vec<Arc<MergeRequest>>,
    /// The rig has a BeadStore.
    pub bead_store: bool,
    /// The installation has a witness-ctl.
    pub witness: bool,
    /// What became of its requests to other services.
    pub deliveries: Deliveries,
    /// How long a pod that does not obey may take.
    pub margins: Margins,
    /// The hash of its task, if it is known.
    pub hash: Option<String>,
}

/// The snapshot of a Polecat at `now`, from the caches.
pub(crate) fn snapshot(ctx: &Context, polecat: &Polecat, now: Timestamp) -> Snapshot {
    let uid = polecat.uid().unwrap_or_default();
    let shared = &ctx.shared;
    let claim = claims::name_for(polecat);
    let lease = claim.as_ref().and_then(|name| ctx.claim(name));
    let objects = Objects {
        now,
        sightings: shared.sightings.clone(),
        rig: ctx.rig(&polecat.spec.rig),
        targets: ctx.targets(&polecat.spec.rig),
        pods: ctx.pods(&uid),
        requests: shared.requests_by_polecat.of(&uid),
        claimed: lease.as_ref().and_then(|lease| claims::taken_at(lease, &uid)),
        claim: lease.map(|lease| claims::read(ctx, &lease)),
        bead_requests: claim.map(|name| shared.requests_by_claim.of(&name)).unwrap_or_default(),
        bead_store: ctx.has_bead_store(&polecat.spec.rig),
        witness: ctx.has_witness(),
        deliveries: ctx.deliveries(&uid),
        margins: ctx.margins,
        hash: Some(shared.hashes.of(polecat)),
    };
    let mut s = facts(polecat, objects);
    s.service_wait = service_wait(ctx, &s, now);
    s.network = ctx.network_problem(&s.namespace, &polecat.spec.rig);
    s
}

/// Until when the Polecat has to wait for its model's service, because another one of the same
/// account was asked to. What this one was asked is passed on to the others.
fn service_wait(ctx: &Context, s: &Snapshot, now: Timestamp) -> Option<Timestamp> {
    let account = s.spec.as_ref().ok().and_then(|spec| spec.pod.account())?;
    let account = format!("{} {account}", s.namespace);
    let last = s.ledger.as_ref().ok().and_then(|ledger| ledger.last.as_ref());
    let asked = last.filter(|last| last.end == End::Later).and_then(|last| last.until);
    if let Some(until) = asked.and_then(|t| Timestamp::from_second(t).ok()) {
        ctx.shared.busy.report(now, &account, &s.uid, until);
    }
    ctx.shared.busy.wait(now, &account, &s.uid)
}

/// The facts that objects show. Pure.
pub(crate) fn facts(polecat: &Polecat, objects: Objects) -> Snapshot {
    let Objects {
        now,
        sightings,
        rig,
        targets,
        pods,
        requests,
        claim,
        claimed,
        bead_requests,
        bead_store,
        witness,
        deliveries,
        margins,
        hash,
    } = objects;
    let annotations = polecat.annotations();
    let namespace = polecat.namespace().unwrap_or_default();
    let labels =
        label::of_polecat(&polecat.name_any(), &polecat.spec.rig, polecat.spec.bead_id.as_deref());
    Snapshot {
        created: created(polecat),
        name: polecat.name_any(),
        uid: polecat.uid().unwrap_or_default(),
        deleting: polecat.meta().deletion_timestamp.is_some(),
        finalizer: polecat.finalizers().iter().any(|f| f == finalizer::POLECAT),
        labelled: labels.iter().all(|(key, value)| polecat.labels().get(key) == Some(value)),
        force_delete: annotations.get(annotation::FORCE_DELETE).is_some_and(|v| v == "true"),
        retry: annotations.get(annotation::RETRY).cloned(),
        ledger: annotations
            .get(annotation::LEDGER)
            .map_or_else(|| Ok(Ledger::default()), |text| Ledger::parse(text)),
        desired: polecat.spec.desired_state,
        ttl_seconds: polecat.spec.ttl_seconds_after_finished.map(i64::from),
        max_idle_seconds: polecat.spec.max_idle_seconds.map(i64::from),
        spec: spec(polecat, hash, &deliveries.bead),
        rig: rig_facts(&polecat.spec.rig, rig.as_deref(), targets, &namespace),
        pods: pods
            .iter()
            .filter(|pod| pod.namespace().as_deref() == Some(&namespace))
            .filter_map(|pod| pods::pod_facts(pod, polecat, &sightings, now))
            .collect(),
        requests: requests
            .iter()
            .filter(|r| is_of(r, polecat, &namespace))
            .filter_map(|r| request_facts(r))
            .collect(),
        bead: claims::bead(polecat).map(str::to_owned),
        claim: claim_facts(polecat, claim.as_ref(), &bead_requests),
        bead_store,
        witness,
        deliveries,
        shown_stuck: polecat.status.as_ref().is_some_and(|s| s.phase == Some(PolecatPhase::Stuck)),
        unhealthy: unhealthy(polecat).map(str::to_owned),
        saving: saving(polecat),
        service_wait: None,
        network: None,
        margins,
        trace: trace_facts(polecat, claimed),
        namespace,
    }
}

/// The spec, with the bead's priority where it has none of its own.
fn spec(
    polecat: &Polecat,
    hash: Option<String>,
    bead: &BeadView,
) -> Result<ValidPolecat, InvalidSpec> {
    let mut spec = match hash {
        Some(hash) => ValidPolecat::with_hash(polecat, || hash)?,
        None => ValidPolecat::try_from(polecat)?,
    };
    if let (None, Some(priority)) = (polecat.spec.priority, bead.priority) {
        spec.priority = priority;
    }
    Ok(spec)
}

/// The pod that witness-ctl wants restarted: `Healthy=False/RestartWanted`, whose message begins
/// with `pod <uid>: `.
fn unhealthy(polecat: &Polecat) -> Option<&str> {
    let healthy = conditions::find(&polecat.status.as_ref()?.conditions, condition::HEALTHY)?;
    let wanted = healthy.status == "False" && healthy.reason == reason::RESTART_WANTED;
    let (uid, _) = healthy.message.strip_prefix("pod ").filter(|_| wanted)?.split_once(": ")?;
    (!uid.is_empty()).then_some(uid)
}

/// Why work of the pod is not on the remote yet: witness-ctl's `Saved=False/Saving`.
fn saving(polecat: &Polecat) -> Option<String> {
    let saved = conditions::find(&polecat.status.as_ref()?.conditions, condition::SAVED)?;
    (saved.status == "False").then(|| sanitize(&saved.message))
}

fn created<K: Resource>(object: &K) -> Timestamp {
    object.meta().creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

fn rig_facts(name: &str, rig: Option<&Rig>, targets: Vec<String>, namespace: &str) -> RigFacts {
    let name = name.to_owned();
    match rig {
        None => RigFacts::Missing { name },
        Some(rig) => RigFacts::Present {
            name,
            suspended: rig.spec.suspend,
            deleting: rig.meta().deletion_timestamp.is_some(),
            admits_namespace: rig.spec.admits(namespace),
            repository: rig.spec.git_url.parse::<GitUrl>().ok().map(|url| url.normalised()),
            targets,
            wip_retention: i64::try_from(rig.spec.settings.wip_retention().as_secs())
                .unwrap_or(i64::MAX),
        },
    }
}

/// A uid is not a secret: a request of another namespace or rig that names it is not this
/// Polecat's.
fn is_of(request: &MergeRequest, polecat: &Polecat, namespace: &str) -> bool {
    let author = request.spec.polecat_ref.as_ref();
    request.namespace().as_deref() == Some(namespace)
        && request.spec.rig_ref == polecat.spec.rig
        && author.is_some_and(|a| Some(&a.uid) == polecat.metadata.uid.as_ref())
}

/// The facts about a request; none where its commit or branch is not valid.
fn request_facts(request: &MergeRequest) -> Option<RequestFacts> {
    let status = request.status.as_ref();
    // A run of the target alone shows nothing about the request.
    let own = |a: &&MergeAttempt| a.candidate.as_ref() != Some(&a.base);
    let last = status.and_then(|s| s.attempts.iter().rfind(own));
    let reason = status
        .and_then(|s| s.reason.clone())
        .or_else(|| last.and_then(|a| a.reason.clone()))
        .unwrap_or_default();
    Some(RequestFacts {
        name: request.name_any(),
        uid: request.uid().unwrap_or_default(),
        created: created(request),
        branch: request.spec.source_branch.parse().ok()?,
        commit: request.spec.commit.parse().ok()?,
        attempt: u32::try_from(request.spec.attempt).ok()?,
        phase: phase(request),
        reason: sanitize(&reason),
        evidence: last.and_then(|a| a.evidence.clone()).unwrap_or_default(),
        landed_at: status.and_then(|s| s.landed_at.as_ref()).map(|t| t.0),
        trace: RequestTrace {
            ended: status.and_then(|s| s.finished_at.as_ref()).map(|t| t.0),
            red_run: last
                .filter(|a| a.result.as_deref() == Some("Failed"))
                .and_then(|a| a.job.clone()),
        },
    })
}

/// What only the spans of its life need.
fn trace_facts(polecat: &Polecat, claimed: Option<Timestamp>) -> TraceFacts {
    TraceFacts {
        traceparent: polecat.annotations().get(annotation::TRACEPARENT).cloned(),
        claimed,
        deleted: polecat.meta().deletion_timestamp.as_ref().map(|t| t.0),
    }
}

fn phase(request: &MergeRequest) -> MergePhase {
    request.status.as_ref().and_then(|s| s.phase).unwrap_or(MergePhase::Queued)
}

/// A request as one for its bead, whoever made it.
pub(crate) fn bead_request(request: &MergeRequest) -> BeadRequest {
    BeadRequest {
        key: format!("{}/{}", request.namespace().unwrap_or_default(), request.name_any()),
        author: request.spec.polecat_ref.as_ref().map(|author| author.uid.clone()),
        phase: phase(request),
        deleting: request.metadata.deletion_timestamp.is_some(),
    }
}

fn claim_facts(
    polecat: &Polecat,
    claim: Option<&ClaimRecord>,
    requests: &[Arc<MergeRequest>],
) -> ClaimFacts {
    let Some(bead) = claims::bead(polecat) else { return ClaimFacts::NotNeeded };
    let uid = polecat.uid().unwrap_or_default();
    let requests: Vec<BeadRequest> = requests.iter().map(|r| bead_request(r)).collect();
    ClaimFacts::read(&uid, &polecat.spec.rig, bead, claim, &requests)
}
