//! The cluster of the other scenarios works: logs, exec, names; and the operator on it.

use anyhow::{Result, ensure};
use e2e::environment::Environment;
use gastown_cluster::install::SYSTEM;
use gastown_cluster::toolchain;
use tokio::process::Command;

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
    passes_its_check(env).await
}

/// `helm test` passes, and leaves nothing.
async fn passes_its_check(env: &Environment) -> Result<()> {
    let mut helm = Command::new(toolchain::helm().await?);
    helm.args(["test", "gastown", "--namespace", SYSTEM, "--kubeconfig"]);
    let out = helm.arg(env.cluster.kubeconfig()).output().await?;
    if !out.status.success() {
        let logs = env.kubectl.output(&["logs", "-n", SYSTEM, "gastown-install-check"]).await;
        let printed = String::from_utf8_lossy(&out.stderr);
        anyhow::bail!("helm test: {printed}\n{}", logs.unwrap_or_else(|error| error.to_string()));
    }
    let left = env.kubectl.output(&["get", "rigs,clusterroles", "-o", "name"]).await?;
    ensure!(!left.contains("install-check"), "{left}");
    Ok(())
}
