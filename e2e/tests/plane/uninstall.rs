//! `cargo xtask uninstall` on a cluster whose controllers are gone already.

use anyhow::{Result, ensure};

use crate::shell::Shell;

const OBJECTS: &str = r#"
apiVersion: gastown.gastown.io/v1alpha1
kind: Rig
metadata: {name: web, finalizers: [gastown.io/rig-cleanup]}
spec: {gitURL: "https://example.com/a/b", beadsPrefix: gt}
---
apiVersion: gastown.gastown.io/v1alpha1
kind: Polecat
metadata: {name: toast, namespace: team-a, finalizers: [gastown.io/polecat-cleanup]}
spec: {rig: web, desiredState: Idle}
---
apiVersion: gastown.gastown.io/v1alpha1
kind: Convoy
metadata: {name: wave, namespace: team-a}
spec: {description: all, trackedBeads: [gt-1]}
---
apiVersion: v1
kind: Pod
metadata:
  name: polecat-toast
  namespace: team-a
  labels: {gastown.io/polecat: toast}
  finalizers: [gastown.io/outcome]
spec: {containers: [{name: claude, image: example.com/agent}]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_uninstall_waits_for_what_is_not_saved_and_leaves_nothing_when_it_is_forced()
-> Result<()> {
    let shell = Shell::new().await?;
    shell.run("kubectl apply --server-side -f deploy/crds").await?;
    shell.run("kubectl wait --for=condition=Established --timeout=60s -f deploy/crds").await?;
    shell.run("kubectl create namespace team-a").await?;
    shell.run_on("kubectl apply -f -", OBJECTS).await?;
    let xtask = std::env::var("GASTOWN_XTASK").unwrap_or_else(|_| "cargo xtask".to_owned());
    // The home has the programs that were built before.
    let home = std::env::var("HOME")?;
    let uninstall = format!("HOME='{home}' {xtask} uninstall --timeout 1");

    let refused = shell.run(&uninstall).await.unwrap_err().to_string();
    ensure!(refused.contains("Polecat team-a/toast"), "it names what is left: {refused}");
    ensure!(refused.contains("--force"), "and what a person can do: {refused}");
    let left = shell.run("kubectl get rig,polecat,convoy -A -o name").await?;
    ensure!(left.contains("polecat") && left.contains("rig"), "nothing is forced: {left}");
    ensure!(!left.contains("convoy"), "a convoy would create others: {left}");

    shell.run("kubectl patch polecat toast -n team-a --type merge -p '{\"metadata\":{\"finalizers\":null}}'").await?;
    shell
        .run("kubectl patch rig web --type merge -p '{\"metadata\":{\"finalizers\":null}}'")
        .await?;
    let refused = shell.run(&uninstall).await.unwrap_err().to_string();
    ensure!(refused.contains("Pod team-a/polecat-toast"), "a pod is left as well: {refused}");
    shell.run_on("kubectl apply -f -", OBJECTS).await?;
    shell.run(&format!("{uninstall} --force")).await?;
    let pods = shell.run("kubectl get pods -n team-a -o name").await?;
    ensure!(pods.trim().is_empty(), "{pods}");
    // The API server deletes the objects of a definition first, which takes its time under load.
    shell.run("kubectl wait --for=delete --timeout=180s -f deploy/crds").await?;
    let crds = shell.run("kubectl get crds -o name").await?;
    ensure!(!crds.contains("gastown"), "{crds}");
    shell.run(&uninstall).await?;
    Ok(())
}
