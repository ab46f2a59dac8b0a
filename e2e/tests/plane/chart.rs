//! What the chart renders is what an API server takes, for each set of values in
//! `charts/gastown-operator/ci`.

use anyhow::{Context as _, Result, ensure};

use crate::shell::{Shell, root};

/// How many sets of values there are at least.
const SETS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn every_rendered_manifest_is_taken_by_the_api_server() -> Result<()> {
    let shell = Shell::new().await?;
    shell.run("kubectl create namespace gastown-system; kubectl create namespace team-a").await?;
    let mut sets: Vec<String> = std::fs::read_dir(root().join("charts/gastown-operator/ci"))?
        .map(|entry| Ok(entry?.path().display().to_string()))
        .collect::<Result<_>>()?;
    sets.sort();
    ensure!(sets.len() >= SETS, "want {SETS} sets of values in charts/gastown-operator/ci");
    for set in &sets {
        let script = format!(
            "helm template gastown charts/gastown-operator -n gastown-system --kube-version 1.36 -f '{set}' \
             | kubectl apply --server-side --dry-run=server --validate=strict -f -"
        );
        let applied = shell.run(&script).await.with_context(|| format!("values of {set}"))?;
        ensure!(applied.contains("deployment"), "{set} renders no Deployment:\n{applied}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_crds_are_applied_by_kubectl_and_stay_the_same_when_applied_again() -> Result<()> {
    let shell = Shell::new().await?;
    shell.run("kubectl apply --server-side -f deploy/crds").await?;
    shell.run("kubectl wait --for=condition=Established --timeout=60s -f deploy/crds").await?;
    let seen = "kubectl get crds -o jsonpath='{.items[*].metadata.generation}'";
    let before = shell.run(seen).await?;
    shell.run("kubectl apply --server-side -f deploy/crds").await?;
    ensure!(shell.run(seen).await? == before, "the second apply changed a CRD");
    Ok(())
}
