//! The cluster that everything else plays on behaves like one: logs, exec, names.

use anyhow::{Result, ensure};
use e2e::ground::Ground;

const NAMESPACE: &str = "e2e-cluster";

/// kubectl reaches into a pod, and a pod finds Services by name.
pub async fn answers(ground: &Ground) -> Result<()> {
    let image = ground.settings("cluster", std::time::Duration::ZERO).gate_image;
    let kubectl = &ground.kubectl;
    kubectl.output(&["create", "namespace", NAMESPACE]).await?;
    // A pod is refused until its namespace has this.
    kubectl
        .output(&[
            "wait",
            "-n",
            NAMESPACE,
            "--for=create",
            "--timeout=60s",
            "serviceaccount/default",
        ])
        .await?;
    let run =
        ["run", "probe", "-n", NAMESPACE, "--restart=Never", "--command", "--image", &image, "--"];
    kubectl
        .output(&[&run[..], &["sh", "-c", "echo begun; exec tail -f /dev/null"]].concat())
        .await?;
    kubectl
        .output(&["wait", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=120s", "pod/probe"])
        .await?;
    let said = kubectl.output(&["logs", "-n", NAMESPACE, "probe"]).await?;
    ensure!(said == "begun\n", "kubectl logs says {said:?}");
    let whole = "kubernetes.default.svc.cluster.local";
    let found =
        kubectl.output(&["exec", "-n", NAMESPACE, "probe", "--", "getent", "hosts", whole]).await?;
    let service = kubectl
        .output(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"])
        .await?;
    ensure!(
        found.starts_with(&service),
        "{whole} is {found:?} in a pod, and the Service has {service}"
    );
    kubectl.output(&["delete", "namespace", NAMESPACE, "--wait=false"]).await?;
    Ok(())
}
