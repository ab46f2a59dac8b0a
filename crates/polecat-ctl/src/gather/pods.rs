//! What a pod's metadata and status show.

use gastown_api::Polecat;
use gastown_api::names::finalizer;
use gastown_core::polecat::{PodFacts, PodPhase, attempt_of, sanitize};
use gastown_core::report;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use kube::ResourceExt as _;

use crate::pod::{ASKED, CLAUDE, GIT_INIT, GIT_SYNC, WORK_BRANCH, drain};

/// The facts about a pod; none where its name is not one of the Polecat's.
pub(super) fn pod_facts(pod: &Pod, polecat: &Polecat) -> Option<PodFacts> {
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
        branch: init_variable(pod, WORK_BRANCH).and_then(|b| b.parse().ok()),
        asked: pod.annotations().get(ASKED).cloned(),
        created: pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        phase: phase(pod, status, sync),
        scheduled: pod
            .spec
            .as_ref()
            .and_then(|s| s.node_name.as_deref())
            .is_some_and(|n| !n.is_empty()),
        deletion: pod.metadata.deletion_timestamp.as_ref().map(|t| t.0),
        finalizer: pod.finalizers().iter().any(|f| f == finalizer::OUTCOME),
        drain: drain(pod).cloned(),
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

/// `status.phase`, except that a pod is not over while its sidecar runs: the sidecar's record, which
/// alone decides what the remote holds, is still to come. Where the platform ended the pod, no
/// record may ever come.
fn phase(pod: &Pod, status: &PodStatus, sync: Option<&ContainerStatus>) -> PodPhase {
    let pushing = sync.and_then(|c| c.state.as_ref()).is_some_and(|s| s.running.is_some());
    let ended_here = disruption(status).is_none() && pod.metadata.deletion_timestamp.is_none();
    match status.phase.as_deref() {
        Some("Succeeded" | "Failed") if pushing && ended_here => PodPhase::Running,
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

/// How a container ended. The sidecar is started again when it ends by itself: then its last end
/// counts.
fn terminated(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let now = container.state.as_ref().and_then(|s| s.terminated.as_ref());
    now.or_else(|| container.last_state.as_ref().and_then(|s| s.terminated.as_ref()))
}

/// The value of a variable of `git-init`, whose dollars our own builder doubled.
fn init_variable(pod: &Pod, name: &str) -> Option<String> {
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
