//! What a pod's metadata and status show.

use gastown_api::Polecat;
use gastown_api::names::{annotation, finalizer};
use gastown_core::polecat::{Begin, PodFacts, PodPhase, PodTrace, Seen, attempt_of, sanitize};
use gastown_core::report::{self, InitReport, InitResult};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStateTerminated;
use kube::ResourceExt as _;

use crate::pod::{ASKED, AgentPod, CLAUDE, Container, GIT_INIT, GIT_SYNC, drain};
use crate::sightings::{Look, Sightings};

/// The kubelet's reason for the end of a container that it cannot find.
const NOT_LOCATED: &str = "ContainerStatusUnknown";

/// The facts about a pod at `now`; none where its name is not one of the Polecat's.
pub(super) fn pod_facts(
    pod: &AgentPod,
    polecat: &Polecat,
    sightings: &Sightings,
    now: Timestamp,
) -> Option<PodFacts> {
    let mut facts = shown(pod, polecat)?;
    let init = pod.container(GIT_INIT);
    let look = Look {
        running: facts.agent_started && !facts.agent_ended,
        drained: facts.drain.is_some(),
        stalled: !facts.agent_started && !init.is_some_and(is_running),
        deleted: facts.deletion.is_some(),
        saved: facts.saved,
    };
    (facts.seen, facts.deletion) = sightings.look(now, &facts.uid, look);
    Some(facts)
}

/// What the object shows, without what this process remembers of it.
fn shown(pod: &AgentPod, polecat: &Polecat) -> Option<PodFacts> {
    let attempt = attempt_of(&pod.name_any(), &polecat.name_any(), &polecat.uid()?)?;
    let (init, sync, claude) =
        (pod.container(GIT_INIT), pod.container(GIT_SYNC), pod.container(CLAUDE));
    let message = |c: Option<&Container>| {
        c.and_then(terminated).and_then(|t| t.message.clone()).unwrap_or_default()
    };
    let init_report = report::parse(&message(init));
    let agent_ended = claude.is_some_and(|c| agent_ended(c, init_report.as_ref()));
    let run = report::parse(&message(claude));
    Some(PodFacts {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        attempt,
        branch: pod.branch.as_ref().and_then(|b| b.parse().ok()),
        asked: pod.annotations().get(ASKED).cloned(),
        created: pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        phase: phase(pod, sync, claude),
        scheduled: pod.scheduled,
        deletion: pod.metadata.deletion_timestamp.as_ref().map(|t| t.0),
        grace_seconds: pod.metadata.deletion_grace_period_seconds.unwrap_or(0).max(0),
        finalizer: pod.finalizers().iter().any(|f| f == finalizer::OUTCOME),
        drain: drain(pod).cloned(),
        agent_started: agent_ended || claude.is_some_and(is_running),
        agent_ended,
        strangers: strangers(pod),
        saved: saved(pod, sync),
        deadline_seconds: pod.deadline.as_ref().and_then(|d| d.parse().ok()),
        seen: Seen::default(),
        started: pod.started,
        ended: ended(pod),
        init: init_report,
        sync: report::parse(&message(sync)),
        oom: claude.and_then(terminated).is_some_and(|t| t.reason.as_deref() == Some("OOMKilled")),
        disruption: disruption(pod),
        waiting: waiting(pod),
        failure: failure(pod),
        trace: trace(pod, init, claude),
        run,
    })
}

/// What only the spans of the life need.
fn trace(pod: &AgentPod, init: Option<&Container>, claude: Option<&Container>) -> PodTrace {
    let started = |c: &Container| {
        let running = c.state.running.as_ref().and_then(|r| r.started_at.clone());
        running.or_else(|| c.state.terminated.as_ref()?.started_at.clone())
    };
    let end = claude.and_then(|c| c.state.terminated.as_ref()?.finished_at.clone());
    PodTrace {
        begin: pod.annotations().get(annotation::TRACE_BEGIN).and_then(|text| Begin::parse(text)),
        init: init.and_then(started).map(|t| t.0),
        agent: claude.and_then(started).map(|t| t.0),
        agent_ended: end.map(|t| t.0),
    }
}

/// How the pod is, by our containers. It is not over while its sidecar runs: the sidecar's record,
/// which alone decides what the remote holds, is still to come; but where the platform ended the
/// pod, no record may ever come. It is over when both ours have ended after its deletion, whatever a
/// container of others does.
fn phase(pod: &AgentPod, sync: Option<&Container>, claude: Option<&Container>) -> PodPhase {
    let deleted = pod.metadata.deletion_timestamp.is_some();
    let ended_here = disruption(pod).is_none() && !deleted;
    let ours_ended = deleted && claude.is_some_and(has_ended) && sync.is_some_and(has_ended);
    match pod.phase.as_deref() {
        Some("Succeeded" | "Failed") if sync.is_some_and(is_running) && ended_here => {
            PodPhase::Running
        }
        Some("Running" | "Unknown") if ours_ended => {
            let code = claude.and_then(terminated).map(|t| t.exit_code);
            if code == Some(0) { PodPhase::Succeeded } else { PodPhase::Failed }
        }
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        Some("Unknown") => PodPhase::Unknown,
        _ => PodPhase::Pending,
    }
}

fn is_running(container: &Container) -> bool {
    container.state.running.is_some()
}

fn has_ended(container: &Container) -> bool {
    container.state.terminated.is_some()
}

/// Whether the agent's container has ended after it was started. When a pod ends, the kubelet calls
/// those of its containers ended that it cannot find; before `git-init` is done none was started.
fn agent_ended(claude: &Container, init: Option<&InitReport>) -> bool {
    let Some(end) = &claude.state.terminated else { return false };
    let never = end.started_at.is_none() && end.reason.as_deref() == Some(NOT_LOCATED);
    !never || init.is_some_and(|i| i.result == InitResult::Ready)
}

/// Whether containers of others, which a webhook injected, keep the pod from ending.
fn strangers(pod: &AgentPod) -> bool {
    let mut others = pod.containers.iter().filter(|c| !c.is_init && c.name != CLAUDE);
    others.any(is_running)
}

/// What the sidecar's readiness states. A pod of an earlier version has no probe, and states nothing.
fn saved(pod: &AgentPod, sync: Option<&Container>) -> Option<bool> {
    let sync = sync.filter(|_| pod.has_probe)?;
    if is_running(sync) {
        return Some(sync.ready);
    }
    // it ended by itself and is started again
    sync.last.as_ref().map(|_| false)
}

/// How a container ended. The sidecar is started again when it ends by itself: then its last end
/// counts.
fn terminated(container: &Container) -> Option<&ContainerStateTerminated> {
    container.state.terminated.as_ref().or(container.last.as_deref())
}

fn ended(pod: &AgentPod) -> Option<Timestamp> {
    pod.containers
        .iter()
        .filter_map(|c| c.state.terminated.as_ref()?.finished_at.as_ref())
        .map(|t| t.0)
        .max()
}

/// Why the platform ended the pod: an eviction, a shutdown, a preemption, a refusal of the node.
fn disruption(pod: &AgentPod) -> Option<String> {
    let reason = pod.reason.clone().filter(|r| !r.is_empty());
    reason.or_else(|| pod.disrupted.as_ref()?.reason.clone()).map(|text| sanitize(&text))
}

/// What keeps the pod from starting, as a reason and a message that do not flap.
fn waiting(pod: &AgentPod) -> Option<(String, String)> {
    if let Some(condition) = &pod.unscheduled {
        let reason = condition.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned());
        return Some((
            reason,
            sanitize(condition.message.as_deref().unwrap_or("no node can run the pod")),
        ));
    }
    pod.containers.iter().find_map(|c| {
        let waits = c.state.waiting.as_ref()?;
        let message = sanitize(waits.message.as_deref().unwrap_or_default());
        match waits.reason.as_deref()? {
            "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError" => {
                // the kubelet's own message alternates between the failure and the back-off
                Some((
                    "ImagePullBackOff".to_owned(),
                    format!(
                        "image {} of container {} cannot be pulled; see the events of the pod",
                        sanitize(&c.image),
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

/// The container runtime's message about the first container that ended badly.
fn failure(pod: &AgentPod) -> Option<String> {
    let by_container = pod.containers.iter().find_map(|c| {
        let end = c.state.terminated.as_ref().filter(|t| t.exit_code != 0)?;
        let reason = end.reason.as_deref().unwrap_or("Error");
        let message =
            end.message.as_deref().filter(|m| !m.trim_start().starts_with('{')).unwrap_or_default();
        Some(sanitize(
            format!("container {} ended with code {} ({reason}) {message}", c.name, end.exit_code)
                .trim_end(),
        ))
    });
    by_container.or_else(|| pod.message.as_deref().map(sanitize))
}
