//! What the chart renders is what an API server takes, for each set of values in
//! `charts/gastown-operator/ci`; and what it makes of what is in the cluster already.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;

use crate::shell::{Shell, root};

/// How many sets of values there are at least.
const SETS: usize = 5;

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

/// The objects that the chart renders with these flags.
async fn rendered(shell: &Shell, flags: &str) -> Result<Vec<Value>> {
    let script = format!(
        "helm template gastown charts/gastown-operator -n gastown-system --kube-version 1.36 {flags} \
         | kubectl create --dry-run=client --validate=false -o json -f - | tr -d '\\n'"
    );
    let text = shell.run(&script).await?;
    let objects = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let objects: Vec<Value> = objects.collect::<Result<_, _>>()?;
    let items = |o: Value| o["items"].as_array().cloned().unwrap_or_else(|| vec![o]);
    Ok(objects.into_iter().flat_map(items).collect())
}

fn of_kind<K: serde::de::DeserializeOwned>(objects: &[Value], kind: &str) -> Result<Vec<K>> {
    let all = objects.iter().filter(|object| object["kind"] == kind);
    all.map(|object| Ok(serde_json::from_value(object.clone())?)).collect()
}

/// Pairs of a controller that has another one's endpoint in its environment, and that other one.
fn clients(deployments: Vec<Deployment>) -> BTreeSet<(String, String)> {
    let of = |deployment: Deployment| {
        let name = deployment.metadata.name.unwrap_or_default();
        let pod = deployment.spec.and_then(|s| s.template.spec).unwrap_or_default();
        let env = pod.containers.into_iter().flat_map(|c| c.env.unwrap_or_default());
        let servers = env.filter_map(|e| {
            let host = e.value?.strip_prefix("https://")?.split('.').next()?.to_owned();
            // refinery-ctl gives its own git endpoint to gates.
            (e.name != "GASTOWN_GIT_ENDPOINT").then_some(host)
        });
        servers.map(|server| (name.clone(), server)).collect::<Vec<_>>()
    };
    deployments.into_iter().flat_map(of).collect()
}

/// Pairs of a controller that is let in, and the one that it is let into.
fn admitted(policies: Vec<NetworkPolicy>) -> BTreeSet<(String, String)> {
    let of = |policy: NetworkPolicy| {
        let server = policy.metadata.name.unwrap_or_default();
        let rules = policy.spec.and_then(|s| s.ingress).unwrap_or_default();
        let peers = rules.into_iter().flat_map(|rule| rule.from.unwrap_or_default());
        let names = peers
            .filter(|p| p.namespace_selector.is_none())
            .filter_map(|p| p.pod_selector?.match_labels?.remove("app.kubernetes.io/name"));
        names.map(|client| (client, server.clone())).collect::<Vec<_>>()
    };
    policies.into_iter().flat_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_is_reached_by_those_alone_that_have_its_address() -> Result<()> {
    let shell = Shell::new().await?;
    let objects = rendered(&shell, "").await?;
    let policies: Vec<NetworkPolicy> = of_kind(&objects, "NetworkPolicy")?;
    let deployments: Vec<Deployment> = of_kind(&objects, "Deployment")?;
    ensure!(policies.len() == deployments.len(), "each controller has a policy: {policies:#?}");
    for policy in &policies {
        let types = policy.spec.as_ref().and_then(|spec| spec.policy_types.clone());
        ensure!(types == Some(vec!["Ingress".to_owned()]), "{policy:?}");
    }
    let (mut clients, admitted) = (clients(deployments), admitted(policies));
    // A replica that does not work for the rig passes fetches on to the one that does.
    clients.insert(("refinery-ctl".to_owned(), "refinery-ctl".to_owned()));
    ensure!(!clients.is_empty() && clients == admitted, "{clients:?} call, {admitted:?} may");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_network_policy_is_switched_off_by_its_value() -> Result<()> {
    let shell = Shell::new().await?;
    let switched = async |value: &str| -> Result<(usize, Vec<String>)> {
        let objects =
            rendered(&shell, &format!("--set networkPolicies.{value}.enabled=false")).await?;
        let deployments: Vec<Deployment> = of_kind(&objects, "Deployment")?;
        let off = deployments.into_iter().filter_map(|d| {
            let env = d.spec?.template.spec?.containers.into_iter().next()?.env?;
            let is_off = |e: &k8s_openapi::api::core::v1::EnvVar| {
                e.name == "GASTOWN_NETWORK_POLICIES" && e.value.as_deref() == Some("false")
            };
            env.iter().any(is_off).then_some(d.metadata.name?)
        });
        Ok((of_kind::<NetworkPolicy>(&objects, "NetworkPolicy")?.len(), off.collect()))
    };
    ensure!(switched("controllers").await? == (0, vec![]));
    ensure!(switched("agents").await? == (6, vec!["polecat-ctl".to_owned()]));
    ensure!(switched("gates").await? == (6, vec!["refinery-ctl".to_owned()]));
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

/// helm's command for a release of the chart.
fn helm(command: &str, release: &str, namespace: &str, flags: &str) -> String {
    format!("helm {command} {release} charts/gastown-operator -n {namespace} {flags}")
}

/// What a command that must fail printed.
async fn refused(shell: &Shell, script: &str) -> Result<String> {
    match shell.run(script).await {
        Ok(printed) => bail!("{script} was not refused:\n{printed}"),
        Err(error) => Ok(error.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_has_one_installation_and_its_crds_outlive_it() -> Result<()> {
    let shell = Shell::new().await?;
    let columns = "kubectl get crd rigs.gastown.gastown.io -o jsonpath='{.spec.versions[0].additionalPrinterColumns[*].name}'";
    shell.run(&helm("install", "first", "team-a", "--create-namespace")).await?;
    let whole = shell.run(columns).await?;
    for flags in ["--create-namespace", "--create-namespace --set crds.install=false"] {
        let why = refused(&shell, &helm("install", "second", "team-b", flags)).await?;
        let names_it = why.contains("is installed already as release first in namespace team-a");
        ensure!(names_it, "{flags}: {why}");
    }

    // A definition of an older version.
    let path = "/spec/versions/0/additionalPrinterColumns/0";
    let older = format!(r#"[{{"op": "remove", "path": "{path}"}}]"#);
    shell
        .run(&format!("kubectl patch crd rigs.gastown.gastown.io --type json -p '{older}'"))
        .await?;
    ensure!(shell.run(columns).await? != whole);
    shell.run(&helm("upgrade", "first", "team-a", "")).await?;
    ensure!(shell.run(columns).await? == whole, "an upgrade upgrades the definitions");

    shell.run("helm uninstall first -n team-a --wait").await?;
    ensure!(shell.run(columns).await? == whole, "with them all objects would be deleted");
    let why = refused(&shell, &helm("install", "second", "team-b", "--create-namespace")).await?;
    ensure!(why.contains("crds.install=false"), "{why}");
    let commands: Vec<&str> =
        why.lines().map(str::trim).filter(|line| line.starts_with("kubectl ")).collect();
    ensure!(commands.len() == 2, "it states how to go on: {why}");
    shell.run(&commands.join("\n")).await?;
    shell.run(&helm("install", "second", "team-b", "--create-namespace")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifests_for_kustomize_are_taken_by_the_api_server() -> Result<()> {
    let shell = Shell::new().await?;
    shell.run("kubectl apply --server-side -k deploy").await?;
    let found = shell.run("kubectl get deployments -n gastown-system -o name").await?;
    ensure!(found.lines().count() == 6, "{found}");
    let why = refused(&shell, &helm("install", "second", "team-b", "--create-namespace")).await?;
    ensure!(why.contains("is installed already, without Helm"), "{why}");
    Ok(())
}
