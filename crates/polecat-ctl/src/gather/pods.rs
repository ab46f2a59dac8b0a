//! What a pod's metadata and status show.

use gastown_api::Polecat;
use gastown_api::names::{annotation, finalizer};
use gastown_core::polecat::{Begin, PodFacts, PodPhase, PodTrace, Seen, attempt_of, sanitize};
use gastown_core::report::{self, InitReport, InitResult};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use kube::ResourceExt as _;

use crate::pod::{ASKED, CLAUDE, DEADLINE, GIT_INIT, GIT_SYNC, WORK_BRANCH, drain};
use crate::sightings::{Look, Sightings};

/// The kubelet's reason for the end of a container that it cannot find.
const NOT_LOCATED: &str = "ContainerStatusUnknown";

/// The facts about a pod at `now`; none where its name is not one of the Polecat's.
pub(super) fn pod_facts(
    pod: &Pod,
    polecat: &Polecat,
    sightings: &Sightings,
    now: Timestamp,
) -> Option<PodFacts> {
    let mut facts = shown(pod, polecat)?;
    let init = pod.status.as_ref().and_then(|s| container(s, GIT_INIT));
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
fn shown(pod: &Pod, polecat: &Polecat) -> Option<PodFacts> {
    let attempt = attempt_of(&pod.name_any(), &polecat.name_any(), &polecat.uid()?)?;
    let empty = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&empty);
    let (init, sync, claude) =
        (container(status, GIT_INIT), container(status, GIT_SYNC), container(status, CLAUDE));
    let message = |c: Option<&ContainerStatus>| {
        c.and_then(terminated).and_then(|t| t.message.clone()).unwrap_or_default()
    };
    let init_report = report::parse(&message(init));
    let agent_ended = claude.is_some_and(|c| agent_ended(c, init_report.as_ref()));
    let run = report::parse(&message(claude));
    Some(PodFacts {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        attempt,
        branch: variable(pod, GIT_INIT, WORK_BRANCH).and_then(|b| b.parse().ok()),
        asked: pod.annotations().get(ASKED).cloned(),
        created: pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        phase: phase(pod, status, sync, claude),
        scheduled: pod
            .spec
            .as_ref()
            .and_then(|s| s.node_name.as_deref())
            .is_some_and(|n| !n.is_empty()),
        deletion: pod.metadata.deletion_timestamp.as_ref().map(|t| t.0),
        grace_seconds: pod.metadata.deletion_grace_period_seconds.unwrap_or(0).max(0),
        finalizer: pod.finalizers().iter().any(|f| f == finalizer::OUTCOME),
        drain: drain(pod).cloned(),
        agent_started: agent_ended || claude.is_some_and(is_running),
        agent_ended,
        strangers: strangers(status),
        saved: saved(pod, sync),
        deadline_seconds: variable(pod, GIT_SYNC, DEADLINE).and_then(|d| d.parse().ok()),
        seen: Seen::default(),
        started: status.start_time.as_ref().map(|t| t.0),
        ended: ended(status),
        init: init_report,
        sync: report::parse(&message(sync)),
        oom: claude.and_then(terminated).is_some_and(|t| t.reason.as_deref() == Some("OOMKilled")),
        disruption: disruption(status),
        waiting: waiting(status),
        failure: failure(status),
        trace: trace(pod, init, claude),
        run,
    })
}

/// What only the spans of the life need.
fn trace(pod: &Pod, init: Option<&ContainerStatus>, claude: Option<&ContainerStatus>) -> PodTrace {
    let started = |c: &ContainerStatus| {
        let state = c.state.as_ref()?;
        let running = state.running.as_ref().and_then(|r| r.started_at.clone());
        running.or_else(|| state.terminated.as_ref()?.started_at.clone())
    };
    let end = claude.and_then(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.clone());
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
fn phase(
    pod: &Pod,
    status: &PodStatus,
    sync: Option<&ContainerStatus>,
    claude: Option<&ContainerStatus>,
) -> PodPhase {
    let deleted = pod.metadata.deletion_timestamp.is_some();
    let ended_here = disruption(status).is_none() && !deleted;
    let ours_ended = deleted && claude.is_some_and(has_ended) && sync.is_some_and(has_ended);
    match status.phase.as_deref() {
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

fn is_running(container: &ContainerStatus) -> bool {
    container.state.as_ref().is_some_and(|s| s.running.is_some())
}

fn has_ended(container: &ContainerStatus) -> bool {
    container.state.as_ref().is_some_and(|s| s.terminated.is_some())
}

/// Whether the agent's container has ended after it was started. When a pod ends, the kubelet calls
/// those of its containers ended that it cannot find; before `git-init` is done none was started.
fn agent_ended(claude: &ContainerStatus, init: Option<&InitReport>) -> bool {
    let Some(end) = claude.state.as_ref().and_then(|s| s.terminated.as_ref()) else { return false };
    let never = end.started_at.is_none() && end.reason.as_deref() == Some(NOT_LOCATED);
    !never || init.is_some_and(|i| i.result == InitResult::Ready)
}

/// Whether containers of others, which a webhook injected, keep the pod from ending.
fn strangers(status: &PodStatus) -> bool {
    let others = status.container_statuses.iter().flatten().filter(|c| c.name != CLAUDE);
    others.filter_map(|c| c.state.as_ref()).any(|s| s.running.is_some())
}

/// What the sidecar's readiness states. A pod of an earlier version has no probe, and states nothing.
fn saved(pod: &Pod, sync: Option<&ContainerStatus>) -> Option<bool> {
    let mut specs = pod.spec.as_ref()?.init_containers.iter().flatten();
    specs.find(|c| c.name == GIT_SYNC)?.readiness_probe.as_ref()?;
    let sync = sync?;
    if is_running(sync) {
        return Some(sync.ready);
    }
    // it ended by itself and is started again
    sync.last_state.as_ref().and_then(|s| s.terminated.as_ref()).map(|_| false)
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

/// How a container ended. The sidecar is started again when it ends by itself: then its last end
/// counts.
fn terminated(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let now = container.state.as_ref().and_then(|s| s.terminated.as_ref());
    now.or_else(|| container.last_state.as_ref().and_then(|s| s.terminated.as_ref()))
}

/// The value of a variable of an init container, whose dollars our own builder doubled.
fn variable(pod: &Pod, container: &str, name: &str) -> Option<String> {
    let mut all = pod.spec.as_ref()?.init_containers.iter().flatten();
    let var = all.find(|c| c.name == container)?.env.iter().flatten().find(|e| e.name == name)?;
    Some(var.value.as_ref()?.replace("$$", "$"))
}

fn ended(status: &PodStatus) -> Option<Timestamp> {
    containers(status)
        .filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
        .map(|t| t.0)
        .max()
}

/// Why the platform ended the pod: an eviction, a shutdown, a preemption, a refusal of the node.
fn disruption(status: &PodStatus) -> Option<String> {
    let condition = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "DisruptionTarget" && c.status == "True");
    let reason = status.reason.clone().filter(|r| !r.is_empty());
    reason.or_else(|| condition.and_then(|c| c.reason.clone())).map(|text| sanitize(&text))
}

/// What keeps the pod from starting, as a reason and a message that do not flap.
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
            sanitize(condition.message.as_deref().unwrap_or("no node can run the pod")),
        ));
    }
    containers(status).find_map(|c| {
        let waits = c.state.as_ref()?.waiting.as_ref()?;
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
fn failure(status: &PodStatus) -> Option<String> {
    let by_container = containers(status).find_map(|c| {
        let end = c.state.as_ref()?.terminated.as_ref().filter(|t| t.exit_code != 0)?;
        let reason = end.reason.as_deref().unwrap_or("Error");
        let message =
            end.message.as_deref().filter(|m| !m.trim_start().starts_with('{')).unwrap_or_default();
        Some(sanitize(
            format!("container {} ended with code {} ({reason}) {message}", c.name, end.exit_code)
                .trim_end(),
        ))
    });
    by_container.or_else(|| status.message.as_deref().map(sanitize))
}
