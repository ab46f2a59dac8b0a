//! The cluster of the other scenarios works: logs, exec, names.

use anyhow::{Result, ensure};
use e2e::environment::Environment;

const NAMESPACE: &str = "e2e-cluster";

/// kubectl reaches into a pod, and a pod finds Services by name.
pub async fn answers(env: &Environment) -> Result<()> {
    let image = env.settings("cluster", std::time::Duration::ZERO).gate_image;
    let kubectl = &env.kubectl;
    kubectl.output(&["create", "namespace", NAMESPACE]).await?;
    // A pod is refused until its namespace has this account.
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
    let log = kubectl.output(&["logs", "-n", NAMESPACE, "probe"]).await?;
    ensure!(log == "begun\n", "kubectl logs printed {log:?}");
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
