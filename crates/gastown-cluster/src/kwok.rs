//! Nodes that are objects alone: kwok writes what their kubelets would write.
//!
//! A pod is Running as soon as it is bound, and runs until it is drained or somebody ends it by
//! writing its status; a deleted pod is gone at once, unless a finalizer holds it.

use std::path::Path;

use anyhow::{Context, Result};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::json;

/// The program's name.
pub const NAME: &str = "kwok";

/// How nodes and pods go on.
const CONFIG: &str = include_str!("kwok/config.yaml");

/// The flags of a kwok that acts for all nodes; its configuration is written to `dir`. It has no limit
/// of requests a second of its own.
pub fn flags(kubeconfig: &Path, dir: &Path) -> Result<Vec<String>> {
    let config = dir.join("kwok.yaml");
    std::fs::write(&config, CONFIG).with_context(|| format!("writing {}", config.display()))?;
    Ok(vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--config={}", config.display()),
        "--manage-all-nodes=true".into(),
        "--node-ip=198.18.0.1".into(),
    ])
}

/// Creates this many nodes and waits until each is ready and takes pods.
pub async fn nodes(client: &Client, count: u16) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    for n in 0..count {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": format!("fake-{n}"), "labels": {"type": "kwok"}},
        }))?;
        api.create(&PostParams::default(), &node).await.context("creating a node")?;
    }
    let mut left: std::collections::BTreeSet<String> =
        (0..count).map(|n| format!("fake-{n}")).collect();
    let mut seen = std::pin::pin!(
        watcher(api, watcher::Config::default()).default_backoff().applied_objects()
    );
    while !left.is_empty() {
        let node = seen.try_next().await?.context("the watch of nodes ended")?;
        if takes_pods(&node) {
            left.remove(&node.name_any());
        }
    }
    Ok(())
}

fn takes_pods(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    is_ready && node.spec.iter().all(|spec| spec.taints.iter().flatten().next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: &str, taints: &serde_json::Value) -> Node {
        let condition = json!({"type": "Ready", "status": ready});
        serde_json::from_value(
            json!({"spec": {"taints": taints}, "status": {"conditions": [condition]}}),
        )
        .unwrap()
    }

    #[test]
    fn a_node_takes_pods_once_it_is_ready_and_not_tainted() {
        let taint = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
        assert!(takes_pods(&node("True", &json!([]))));
        assert!(!takes_pods(&node("True", &taint)));
        assert!(!takes_pods(&node("Unknown", &json!([]))));
        assert!(!takes_pods(&Node::default()));
    }
}
