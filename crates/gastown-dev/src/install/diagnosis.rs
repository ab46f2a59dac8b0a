//! Why a controller is not ready, as the cluster and the controller itself report it.

use std::fmt::Write;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Api, ListParams, LogParams};
use kube::{Client, ResourceExt};

/// A description of a Deployment that is not available: its conditions, its pods, the ends of their
/// logs. What cannot be read is replaced by the error.
pub async fn of(client: &Client, deployment: &Deployment) -> String {
    let mut text = format!("Deployment {}\n", deployment.name_any());
    for line in conditions(deployment) {
        let _ = writeln!(text, "  {line}");
    }
    let namespace = deployment.namespace().unwrap_or_default();
    let selector =
        deployment.spec.as_ref().and_then(|s| s.selector.match_labels.clone()).unwrap_or_default();
    let selector = selector.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    match api.list(&ListParams::default().labels(&selector)).await {
        Ok(pods) if pods.items.is_empty() => text.push_str("  it has no pod\n"),
        Ok(pods) => {
            for pod in &pods.items {
                for line in about_pod(pod) {
                    let _ = writeln!(text, "  {line}");
                }
                text.push_str(&log(&api, pod).await);
            }
        }
        Err(error) => {
            let _ = writeln!(text, "  its pods cannot be listed: {error}");
        }
    }
    text
}

fn conditions(deployment: &Deployment) -> Vec<String> {
    let conditions =
        deployment.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    // ReplicaFailure is bad when it is True, the others when they are not.
    let bad = conditions.filter(|c| (c.status == "True") == (c.type_ == "ReplicaFailure"));
    bad.map(|c| {
        format!(
            "{}={} {}: {}",
            c.type_,
            c.status,
            text(c.reason.as_ref()),
            text(c.message.as_ref())
        )
    })
    .collect()
}

fn about_pod(pod: &Pod) -> Vec<String> {
    let status = pod.status.clone().unwrap_or_default();
    let mut lines = vec![format!("pod {} {}", pod.name_any(), text(status.phase.as_ref()))];
    for c in
        status.conditions.iter().flatten().filter(|c| c.status != "True" && c.message.is_some())
    {
        lines.push(format!(
            "  {} {}: {}",
            c.type_,
            text(c.reason.as_ref()),
            text(c.message.as_ref())
        ));
    }
    lines.extend(status.container_statuses.iter().flatten().filter_map(about_container));
    lines
}

fn about_container(container: &ContainerStatus) -> Option<String> {
    let (state, last) = (
        container.state.clone().unwrap_or_default(),
        container.last_state.clone().unwrap_or_default(),
    );
    let ended = state
        .terminated
        .or(last.terminated)
        .map(|t| format!("ended with {} {}", t.exit_code, text(t.message.as_ref())));
    let waits = state
        .waiting
        .map(|w| format!("waits: {} {}", text(w.reason.as_ref()), text(w.message.as_ref())));
    let is_missing =
        waits.as_ref().is_some_and(|w| w.contains("ImagePull") || w.contains("ErrImage"));
    let hint = is_missing.then(|| {
        "(on a cluster of `cargo xtask cluster up`: `cargo xtask images --load`)".to_owned()
    });
    let states: Vec<String> = [waits, ended, hint].into_iter().flatten().collect();
    if states.is_empty() && container.ready {
        return None;
    }
    let state =
        if states.is_empty() { "runs and is not ready".to_owned() } else { states.join("; ") };
    Some(format!("  container {}, {} restarts: {state}", container.name, container.restart_count))
}

/// The end of the log of a pod whose container has run, else nothing.
async fn log(api: &Api<Pod>, pod: &Pod) -> String {
    let containers = || pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let runs = |c: &ContainerStatus| {
        c.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
    };
    let previous = !containers().any(runs) && containers().any(|c| c.restart_count > 0);
    if !previous && !containers().any(runs) {
        return String::new();
    }
    match api
        .logs(
            &pod.name_any(),
            &LogParams { tail_lines: Some(15), previous, ..LogParams::default() },
        )
        .await
    {
        Ok(log) => log.lines().flat_map(|line| ["    | ", line, "\n"]).collect(),
        Err(kube::Error::Api(status)) => format!("    no log: {}\n", status.message),
        Err(error) => format!("    no log: {error}\n"),
    }
}

fn text(value: Option<&String>) -> &str {
    value.map_or("", String::as_str).trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_missing_image_comes_with_the_command_that_loads_it() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "rig-ctl-x"},
            "status": {"phase": "Pending", "containerStatuses": [{
                "name": "rig-ctl", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                "state": {"waiting": {"reason": "ErrImagePull", "message": "no such host"}},
            }]},
        }))
        .unwrap();
        let text = about_pod(&pod).join("\n");
        assert!(
            text.contains("pod rig-ctl-x Pending")
                && text.contains("no such host")
                && text.contains("images --load"),
            "{text}"
        );
    }

    #[test]
    fn a_crash_shows_its_exit_code() {
        let container: ContainerStatus = serde_json::from_value(json!({
            "name": "c", "ready": false, "restartCount": 3, "image": "", "imageID": "",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 2, "message": "no CRD"}},
        }))
        .unwrap();
        let text = about_container(&container).unwrap();
        assert!(
            text.contains("CrashLoopBackOff")
                && text.contains("ended with 2 no CRD")
                && text.contains("3 restarts"),
            "{text}"
        );
    }

    #[test]
    fn only_bad_conditions_are_reported() {
        let deployment: Deployment = serde_json::from_value(json!({"metadata": {}, "status": {"conditions": [
            {"type": "Progressing", "status": "True"},
            {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "message": "too few"},
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "forbidden: violates PodSecurity"},
        ]}}))
        .unwrap();
        let text = conditions(&deployment);
        assert_eq!(text.len(), 2, "{text:?}");
        assert!(text[1].contains("PodSecurity"));
    }
}
