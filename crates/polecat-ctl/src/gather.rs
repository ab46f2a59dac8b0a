//! From objects to facts. No judgement, no waiting: stores and what this process remembers.

use gastown_api::names::{annotation, condition, finalizer, reason};
use gastown_api::{MergeAttempt, MergePhase, MergeRequest, Polecat, PolecatPhase, Rig, conditions};
use gastown_core::polecat::{
    AlarmFacts, ClaimFacts, Ledger, PodFacts, PodPhase, RemarkFacts, RequestFacts, RequestPhase,
    RigFacts, Snapshot, SubmitFacts, ValidPolecat, attempt_of, tame,
};
use gastown_core::report;
use gastown_types::GitUrl;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use kube::{Resource, ResourceExt as _};

use crate::claims;
use crate::pod::{ASKED, CLAUDE, GIT_INIT, GIT_SYNC, wanted_labels};

/// The facts about one Polecat.
pub fn snapshot(
    polecat: &Polecat,
    rig: Option<&Rig>,
    pods: &[&Pod],
    requests: &[&MergeRequest],
    submit: SubmitFacts,
) -> Snapshot {
    let annotations = polecat.annotations();
    let namespace = polecat.namespace().unwrap_or_default();
    let spec = ValidPolecat::try_from(polecat);
    let bead = claims::bead(polecat).map(str::to_owned);
    let wanted =
        wanted_labels(&polecat.name_any(), &polecat.spec.rig, polecat.spec.bead_id.as_deref());
    Snapshot {
        created: created(polecat),
        name: polecat.name_any(),
        uid: polecat.uid().unwrap_or_default(),
        deleting: polecat.meta().deletion_timestamp.is_some(),
        finalizer: polecat.finalizers().iter().any(|f| f == finalizer::POLECAT),
        labelled: wanted.iter().all(|(key, value)| polecat.labels().get(key) == Some(value)),
        force_delete: annotations.get(annotation::FORCE_DELETE).is_some_and(|v| v == "true"),
        retry: annotations.get(annotation::RETRY).cloned(),
        ledger: annotations
            .get(annotation::LEDGER)
            .map_or_else(|| Ok(Ledger::default()), |text| Ledger::parse(text)),
        desired: polecat.spec.desired_state.into(),
        ttl_seconds: polecat.spec.ttl_seconds_after_finished.map(i64::from),
        rig: rig_facts(&polecat.spec.rig, rig, &namespace),
        pods: pods
            .iter()
            .filter(|pod| pod.namespace().as_deref() == Some(&namespace))
            .filter_map(|pod| pod_facts(pod, polecat))
            .collect(),
        requests: requests
            .iter()
            .filter(|r| is_of(r, polecat, &namespace))
            .filter_map(|r| request_facts(r))
            .collect(),
        slot: gastown_core::admission::Slot::Unasked,
        refused: None,
        claim: if bead.is_some() {
            ClaimFacts::Unknown("it was not looked at".to_owned())
        } else {
            ClaimFacts::NotNeeded
        },
        bead,
        bead_store: false,
        remark: RemarkFacts::Untried,
        witness: false,
        alarm: AlarmFacts::Untried,
        shown_stuck: polecat.status.as_ref().is_some_and(|s| s.phase == Some(PolecatPhase::Stuck)),
        unhealthy: unhealthy(polecat).map(str::to_owned),
        namespace,
        spec,
        submit,
    }
}

/// The pod that witness-ctl wants restarted: `Healthy=False/RestartWanted`, whose message begins
/// with `pod <uid>: `.
fn unhealthy(polecat: &Polecat) -> Option<&str> {
    let verdict = conditions::find(&polecat.status.as_ref()?.conditions, condition::HEALTHY)?;
    let wanted = verdict.status == "False" && verdict.reason == reason::RESTART_WANTED;
    let (uid, _) = verdict.message.strip_prefix("pod ").filter(|_| wanted)?.split_once(": ")?;
    (!uid.is_empty()).then_some(uid)
}

fn created<K: Resource>(object: &K) -> Timestamp {
    object.meta().creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

fn rig_facts(name: &str, rig: Option<&Rig>, namespace: &str) -> RigFacts {
    let name = name.to_owned();
    match rig {
        None => RigFacts::Missing { name },
        Some(rig) => RigFacts::Present {
            name,
            parked: rig.spec.suspend,
            deleting: rig.meta().deletion_timestamp.is_some(),
            admits_namespace: rig
                .spec
                .allowed_namespaces
                .as_ref()
                .is_none_or(|list| list.iter().any(|n| n == namespace)),
            repository: rig.spec.git_url.parse::<GitUrl>().ok().map(|url| url.normalised()),
        },
    }
}

/// A uid is no secret: a request of another namespace or rig that names it is not this Polecat's.
fn is_of(request: &MergeRequest, polecat: &Polecat, namespace: &str) -> bool {
    let author = request.spec.polecat_ref.as_ref();
    request.namespace().as_deref() == Some(namespace)
        && request.spec.rig_ref == polecat.spec.rig
        && author.is_some_and(|a| Some(&a.uid) == polecat.metadata.uid.as_ref())
}

/// `None` where the commit or branch is none: such a request is nobody's.
fn request_facts(request: &MergeRequest) -> Option<RequestFacts> {
    let status = request.status.as_ref();
    let phase = match status.and_then(|s| s.phase) {
        None | Some(MergePhase::Queued) => RequestPhase::Queued,
        Some(MergePhase::Testing) => RequestPhase::Testing,
        Some(MergePhase::Landed) => RequestPhase::Landed,
        Some(MergePhase::Rework) => RequestPhase::Rework,
        Some(MergePhase::Rejected) => RequestPhase::Rejected,
        Some(MergePhase::Superseded) => RequestPhase::Superseded,
    };
    // A run of the target alone says nothing about the request.
    let own = |a: &&MergeAttempt| a.candidate.as_ref() != Some(&a.base);
    let last = status.and_then(|s| s.attempts.iter().rfind(own));
    let reason = status
        .and_then(|s| s.reason.clone())
        .or_else(|| last.and_then(|a| a.reason.clone()))
        .unwrap_or_default();
    Some(RequestFacts {
        name: request.name_any(),
        created: created(request),
        branch: request.spec.source_branch.parse().ok()?,
        commit: request.spec.commit.parse().ok()?,
        attempt: u32::try_from(request.spec.attempt).ok()?,
        phase,
        reason: tame(&reason),
        evidence: last.and_then(|a| a.evidence.clone()).unwrap_or_default(),
        landed_at: status.and_then(|s| s.landed_at.as_ref()).map(|t| t.0),
    })
}

/// Whose pod this is, by its controller reference.
pub fn owner_uid(pod: &Pod) -> Option<&str> {
    let owner = pod
        .metadata
        .owner_references
        .as_ref()?
        .iter()
        .find(|o| o.controller == Some(true) && o.kind == "Polecat")?;
    Some(owner.uid.as_str())
}

fn pod_facts(pod: &Pod, polecat: &Polecat) -> Option<PodFacts> {
    let attempt = attempt_of(&pod.name_any(), &polecat.name_any(), &polecat.uid()?)?;
    let empty = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&empty);
    let (init, sync, claude) =
        (container(status, GIT_INIT), container(status, GIT_SYNC), container(status, CLAUDE));
    let message = |c: Option<&ContainerStatus>| {
        c.and_then(terminated).and_then(|t| t.message.clone()).unwrap_or_default()
    };
    let agent = claude.and_then(|c| c.state.as_ref());
    let run = report::parse(&message(claude));
    Some(PodFacts {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        attempt,
        branch: variable(pod, "GASTOWN_WORK_BRANCH").and_then(|b| b.parse().ok()),
        asked: pod.annotations().get(ASKED).cloned(),
        created: created(pod),
        phase: phase(pod, status, sync),
        scheduled: pod
            .spec
            .as_ref()
            .and_then(|s| s.node_name.as_deref())
            .is_some_and(|n| !n.is_empty()),
        deletion: pod.metadata.deletion_timestamp.as_ref().map(|t| t.0),
        finalizer: pod.finalizers().iter().any(|f| f == finalizer::OUTCOME),
        drain: crate::pod::drain(pod).cloned(),
        agent_started: agent.is_some_and(|s| s.running.is_some() || s.terminated.is_some()),
        started: status.start_time.as_ref().map(|t| t.0),
        ended: ended(status),
        init: report::parse(&message(init)),
        sync: report::parse(&message(sync)),
        oom: claude.and_then(terminated).is_some_and(|t| t.reason.as_deref() == Some("OOMKilled")),
        disruption: disruption(status),
        waiting: waiting(status),
        failure: failure(status),
        run,
    })
}

/// `status.phase`, except that a pod is not over while its sidecar is shown to run: its record,
/// which alone decides what the remote holds, is still to come. A platform that ended the pod may
/// never say more.
fn phase(pod: &Pod, status: &PodStatus, sync: Option<&ContainerStatus>) -> PodPhase {
    let carrying = sync.and_then(|c| c.state.as_ref()).is_some_and(|s| s.running.is_some());
    let ended_here = disruption(status).is_none() && pod.metadata.deletion_timestamp.is_none();
    match status.phase.as_deref() {
        Some("Succeeded" | "Failed") if carrying && ended_here => PodPhase::Running,
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        Some("Unknown") => PodPhase::Unknown,
        _ => PodPhase::Pending,
    }
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten())
}

fn container<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    containers(status).find(|c| c.name == name)
}

/// How a container ended. The sidecar is started again when it ends by itself: then the end before
/// counts.
fn terminated(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let now = container.state.as_ref().and_then(|s| s.terminated.as_ref());
    now.or_else(|| container.last_state.as_ref().and_then(|s| s.terminated.as_ref()))
}

/// The value that our own builder gave a variable of `git-init`, with its doubled dollars.
fn variable(pod: &Pod, name: &str) -> Option<String> {
    let init = pod.spec.as_ref()?.init_containers.as_ref()?.iter().find(|c| c.name == GIT_INIT)?;
    let var = init.env.as_ref()?.iter().find(|e| e.name == name)?;
    Some(var.value.as_ref()?.replace("$$", "$"))
}

fn ended(status: &PodStatus) -> Option<Timestamp> {
    containers(status)
        .filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
        .map(|t| t.0)
        .max()
}

/// The platform's own word: an eviction, a shutdown, a preemption, a refusal of the node.
fn disruption(status: &PodStatus) -> Option<String> {
    let condition = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "DisruptionTarget" && c.status == "True");
    let word = status.reason.clone().filter(|r| !r.is_empty());
    word.or_else(|| condition.and_then(|c| c.reason.clone())).map(|text| tame(&text))
}

/// What keeps the pod from starting, in words that do not flap.
fn waiting(status: &PodStatus) -> Option<(String, String)> {
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unscheduled {
        let reason = condition.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned());
        return Some((
            reason,
            tame(condition.message.as_deref().unwrap_or("no node takes the pod")),
        ));
    }
    containers(status).find_map(|c| {
        let waits = c.state.as_ref()?.waiting.as_ref()?;
        let message = tame(waits.message.as_deref().unwrap_or_default());
        match waits.reason.as_deref()? {
            "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError" => {
                // the kubelet's own message alternates between the failure and the back-off
                Some((
                    "ImagePullBackOff".to_owned(),
                    format!(
                        "image {} of container {} cannot be pulled; the pod's events say why",
                        tame(&c.image),
                        c.name
                    ),
                ))
            }
            "InvalidImageName" => {
                Some(("InvalidImageName".to_owned(), format!("container {}: {message}", c.name)))
            }
            "CreateContainerConfigError" => {
                let lower = message.to_ascii_lowercase();
                let reason = if lower.contains("secret") {
                    "SecretNotFound"
                } else if lower.contains("configmap") {
                    "ConfigMapNotFound"
                } else {
                    "CreateContainerConfigError"
                };
                Some((reason.to_owned(), message))
            }
            reason @ ("CreateContainerError" | "RunContainerError" | "CrashLoopBackOff") => {
                Some((reason.to_owned(), format!("container {}: {message}", c.name)))
            }
            _ => None,
        }
    })
}

/// The first container that ended badly, in the runtime's words.
fn failure(status: &PodStatus) -> Option<String> {
    let by_container = containers(status).find_map(|c| {
        let end = c.state.as_ref()?.terminated.as_ref().filter(|t| t.exit_code != 0)?;
        let reason = end.reason.as_deref().unwrap_or("Error");
        let message =
            end.message.as_deref().filter(|m| !m.trim_start().starts_with('{')).unwrap_or_default();
        Some(tame(
            format!("container {} ended with code {} ({reason}) {message}", c.name, end.exit_code)
                .trim_end(),
        ))
    });
    by_container.or_else(|| status.message.as_deref().map(tame))
}

/// The conditions that this controller owns.
pub const CONDITIONS: [&str; 8] = [
    condition::READY,
    condition::WORKING,
    condition::PROGRESSING,
    condition::AVAILABLE,
    condition::DEGRADED,
    condition::CLAIMED,
    condition::ADMITTED,
    condition::SUBMITTED,
];

#[cfg(test)]
mod tests;
