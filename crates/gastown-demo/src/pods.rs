//! Waiting for a pod.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;

/// How often the pod is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Waits until a pod is ready.
pub async fn await_ready(pods: &Api<Pod>, name: &str, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let pod = pods.get(name).await?;
        let conditions =
            pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        if conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("pod {name} is not ready: {}", reason(&pod));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Why a pod is not ready, as the kubelet reports it.
fn reason(pod: &Pod) -> String {
    let Some(status) = &pod.status else { return "it has no status".to_owned() };
    let containers = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|c| c.state.as_ref()?.waiting.as_ref());
    let waiting = containers.map(|w| {
        format!(
            "{}: {}",
            w.reason.as_deref().unwrap_or("?"),
            w.message.as_deref().unwrap_or_default()
        )
    });
    let conditions = status
        .conditions
        .iter()
        .flatten()
        .filter(|c| c.status != "True")
        .filter_map(|c| c.message.clone());
    waiting.chain(conditions).collect::<Vec<_>>().join("; ")
}
