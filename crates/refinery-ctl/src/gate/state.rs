//! What the state of a gate's Job and pod means for the run. Only the gate's own exit code blames the
//! author.

use gastown_core::train::RunState;
use gastown_types::text;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};
use kube::ResourceExt as _;

use super::{CONTAINER, FETCH};

/// The message of a run whose pod is on its way.
pub(crate) const STARTING: &str = "its pod is starting";
/// The message of a run that waits for its pod.
const NO_POD: &str = "it has no pod yet; see its events";
/// Seconds after which a Job without a pod gets [`NO_POD`] as its message.
const NO_POD_SECONDS: i64 = 15;
/// Seconds after which a container that cannot start breaks the run.
const START_SECONDS: i64 = 60;
/// Seconds after which a pod that is not made or not scheduled breaks the run: somebody has to change
/// the gate, a quota or the cluster, and the queue must not wait for that without a word.
const PENDING_SECONDS: i64 = 600;

/// The state of a Job: read from its pod, which is the first to know, or else from the Job itself.
/// A Job of ours makes one pod: of several none is believed.
pub(crate) fn state(job: &Job, pods: &[impl AsRef<Pod>], now: Timestamp) -> RunState {
    match pods {
        [] => without_pod(job, now),
        [pod] => of_pod(pod.as_ref(), now),
        several => RunState::Broken(format!(
            "{} pods name the Job as their controller, and it makes one",
            several.len()
        )),
    }
}

fn without_pod(job: &Job, now: Timestamp) -> RunState {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    for c in conditions.filter(|c| c.status == "True") {
        let age = c.last_transition_time.as_ref().map_or(0, |t| now.as_second() - t.0.as_second());
        match c.type_.as_str() {
            "Complete" => return RunState::Passed,
            // The pod's watch may be behind the Job's.
            "Failed" if age < 5 => {
                return RunState::Running("the outcome of its pod is not known yet".into());
            }
            "Failed" => {
                let why = c.reason.clone().unwrap_or_default();
                return RunState::Broken(format!("the Job failed ({why}) and its pod is gone"));
            }
            _ => {}
        }
    }
    // A Job gets its pod within a moment; only one that does not is worth another message, and with
    // it another write of the status.
    let age = job.creation_timestamp().map_or(0, |t| now.as_second() - t.0.as_second());
    if age >= PENDING_SECONDS {
        let why = format!("it got no pod within {PENDING_SECONDS} s; see its events");
        return RunState::Broken(why);
    }
    RunState::Running(if age < NO_POD_SECONDS { STARTING } else { NO_POD }.to_owned())
}

fn of_pod(pod: &Pod, now: Timestamp) -> RunState {
    let Some(status) = &pod.status else { return RunState::Running(STARTING.to_owned()) };
    let container = |name: &str| {
        let all = status
            .init_container_statuses
            .iter()
            .flatten()
            .chain(status.container_statuses.iter().flatten());
        all.into_iter().find(|c| c.name == name)
    };
    let (fetch, gate) = (container(FETCH), container(CONTAINER));
    match status.phase.as_deref() {
        Some("Succeeded") => RunState::Passed,
        Some("Failed") => failed(pod, fetch, gate),
        _ => {
            let stuck = [fetch, gate].into_iter().flatten().find_map(|c| cannot_start(pod, c, now));
            stuck.unwrap_or_else(|| pending(pod, gate, now))
        }
    }
}

/// What ended a failed pod: infrastructure comes before the gate's own exit code.
fn failed(pod: &Pod, fetch: Option<&ContainerStatus>, gate: Option<&ContainerStatus>) -> RunState {
    let status = pod.status.as_ref();
    let reason = status.and_then(|s| s.reason.as_deref()).unwrap_or_default();
    let message = status.and_then(|s| s.message.as_deref()).unwrap_or_default();
    let disrupted = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    if let Some(c) =
        disrupted.into_iter().find(|c| c.type_ == "DisruptionTarget" && c.status == "True")
    {
        let why = c.message.clone().or_else(|| c.reason.clone()).unwrap_or_default();
        return RunState::Broken(format!("its pod was disrupted: {why}"));
    }
    let ended =
        |c: Option<&ContainerStatus>| c.and_then(|c| c.state.clone()).and_then(|s| s.terminated);
    let gate = ended(gate);
    if reason == "DeadlineExceeded" {
        // A gate that started has used up its time; one that did not was kept from running.
        let started = gate.as_ref().is_some_and(|g| {
            g.started_at.is_some() && g.reason.as_deref() != Some("ContainerStatusUnknown")
        });
        return if started {
            RunState::Failed
        } else {
            RunState::Broken("its pod did not start in time".into())
        };
    }
    if !reason.is_empty() {
        return RunState::Broken(format!("its pod failed: {reason} {message}").trim().to_owned());
    }
    if let Some(fetch) = ended(fetch).filter(|f| f.exit_code != 0) {
        let why = fetch.message.or(fetch.reason).unwrap_or_default();
        return RunState::Broken(format!("fetching the candidate failed: {}", why.trim()));
    }
    match gate {
        None => RunState::Broken("its pod failed before the gate started".into()),
        Some(g) => match (g.reason.as_deref(), g.exit_code) {
            (Some("OOMKilled"), _) => {
                RunState::Broken("the gate used more memory than its limit (OOMKilled)".into())
            }
            (Some(r @ ("ContainerCannotRun" | "StartError" | "ContainerStatusUnknown")), _) => {
                RunState::Broken(
                    format!(
                        "the gate's container did not run: {r} {}",
                        g.message.unwrap_or_default()
                    )
                    .trim()
                    .to_owned(),
                )
            }
            (_, 0) => {
                RunState::Broken("its pod failed although the gate exited with code 0".into())
            }
            _ => RunState::Failed,
        },
    }
}

/// The run as broken, if its image or configuration keeps this container from starting.
fn cannot_start(pod: &Pod, container: &ContainerStatus, now: Timestamp) -> Option<RunState> {
    let Some(ContainerState { waiting: Some(waiting), .. }) = &container.state else { return None };
    let reason = waiting.reason.as_deref()?;
    let bad = [
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
    ];
    let age = pod.creation_timestamp().map_or(0, |t| now.as_second() - t.0.as_second());
    if !bad.contains(&reason) || age < START_SECONDS {
        return None;
    }
    let message = waiting.message.clone().unwrap_or_default();
    Some(RunState::Broken(
        format!("container {} does not start: {reason} {message}", container.name)
            .trim()
            .to_owned(),
    ))
}

/// What a pod waits for; empty when its gate runs or has ended.
fn pending(pod: &Pod, gate: Option<&ContainerStatus>, now: Timestamp) -> RunState {
    if gate
        .and_then(|g| g.state.as_ref())
        .is_some_and(|s| s.running.is_some() || s.terminated.is_some())
    {
        return RunState::Running(String::new());
    }
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let unscheduled =
        conditions.into_iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    let Some(c) = unscheduled else { return RunState::Running(STARTING.to_owned()) };
    let why = c.message.clone().unwrap_or_default();
    let age = pod.creation_timestamp().map_or(0, |t| now.as_second() - t.0.as_second());
    if age >= PENDING_SECONDS {
        return RunState::Broken(format!(
            "its pod was not scheduled within {PENDING_SECONDS} s: {why}"
        ));
    }
    RunState::Running(format!("its pod is not scheduled: {why}"))
}

/// How the gate's container ended, if it has.
pub(crate) fn terminated(pod: &Pod) -> Option<ContainerStateTerminated> {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    statuses.filter(|c| c.name == CONTAINER).find_map(|c| c.state.clone()?.terminated)
}

/// The end of a text, of at most so many bytes.
pub(crate) fn last_bytes(text: &str, max: usize) -> &str {
    let from = (text.len().saturating_sub(max)..=text.len()).find(|at| text.is_char_boundary(*at));
    &text[from.unwrap_or(text.len())..]
}

/// The end of a gate's log for its author: cleaned, and at most `max` characters.
pub(crate) fn evidence(log: &str, max: usize) -> String {
    text::block_end(log.trim(), max).trim().to_owned()
}
