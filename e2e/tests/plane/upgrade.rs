//! `helm upgrade` from the chart of each baseline to today's, and `helm rollback`, as docs/upgrade.md has
//! it. What becomes of pods then needs nodes: `e2e/tests/versions`.

use anyhow::{Context as _, Result, ensure};
use gastown_cluster::baselines::Baseline;

use crate::shell::Shell;

const RIG: &str = r#"
apiVersion: gastown.gastown.io/v1alpha1
kind: Rig
metadata: {name: web}
spec: {gitURL: "https://example.com/a/b", beadsPrefix: gt}
"#;

/// The schema's number of the Polecats' definition, and the uid of the Rig.
const SEEN: &str = "kubectl get crd polecats.gastown.gastown.io -o jsonpath='{.metadata.annotations.gastown\\.io/schema}'; \
                    kubectl get rig web -o jsonpath=' {.metadata.uid}'";

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_of_each_baseline_is_upgraded_and_rolled_back_and_keeps_crds_and_objects()
-> Result<()> {
    for baseline in Baseline::all()? {
        let upgraded = upgrade(&baseline).await;
        upgraded.with_context(|| format!("from {}", baseline.version))?;
    }
    Ok(())
}

async fn upgrade(baseline: &Baseline) -> Result<()> {
    let shell = Shell::new().await?;
    let helm = |command: &str| format!("helm {command} -n gastown-system");
    let (crds, chart) = (baseline.crds(), baseline.chart());
    shell.run(&format!("kubectl apply --server-side -f '{}'", crds.display())).await?;
    shell
        .run(&format!(
            "kubectl wait --for=condition=Established --timeout=60s -f '{}'",
            crds.display()
        ))
        .await?;
    let install = format!("install gastown '{}' --create-namespace", chart.display());
    shell.run(&helm(&install)).await?;
    shell.run_on("kubectl apply -f -", RIG).await?;
    let before = shell.run(SEEN).await?;

    let upgrade = helm("upgrade gastown charts/gastown-operator");
    if let Err(refused) = shell.run(&upgrade).await {
        // The CRDs were applied by hand: the refusal has the commands that hand them over.
        let why = refused.to_string();
        let commands: Vec<&str> =
            why.lines().map(str::trim).filter(|line| line.starts_with("kubectl ")).collect();
        ensure!(commands.len() == 2, "it states how to go on: {why}");
        shell.run(&commands.join("\n")).await?;
        shell.run(&upgrade).await?;
    }
    let after = shell.run(SEEN).await?;
    let today = gastown_api::schema_number::SCHEMA.to_string();
    let (schema, uid) = after.split_once(' ').context("a number and a uid")?;
    ensure!(schema == today, "the upgrade left the CRDs at {schema:?}");
    ensure!(before.ends_with(uid), "the Rig is another one: {before:?}, {after:?}");

    shell.run(&helm("rollback gastown 1")).await?;
    ensure!(shell.run(SEEN).await? == after, "the rollback touched CRDs or objects");
    let found = shell.run("kubectl get deployments -n gastown-system -o name").await?;
    ensure!(found.lines().count() == 6, "{found}");
    shell.run(&upgrade).await?;
    ensure!(shell.run(SEEN).await? == after, "the second upgrade touched objects");
    Ok(())
}
