//! What a tenant can write, and what it does not come to.

use anyhow::{Context as _, Result, ensure};
use gastown_api::{GateRun, GateRunPhase, MergeRequest, MergeRequestSpec};
use gastown_cluster::control_plane::ControlPlane;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::fixture::{Fixture, TIMEOUT, until};

/// A pod that a Job of a gate could have made, which has ended well.
async fn forged_pod(fixture: &Fixture, namespace: &str, of: &Pod) -> Result<()> {
    let owner = &of.owner_references()[0];
    let owner = json!({"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid, "controller": true});
    // The finalizer keeps it from the garbage collector.
    let metadata = json!({
        "name": format!("{}-forged", owner["name"].as_str().unwrap_or_default()),
        "labels": of.labels(), "ownerReferences": [owner], "finalizers": ["example.com/keep"],
    });
    let spec = json!({"containers": [{"name": "gate", "image": "example.com/any"}]});
    let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec}))?;
    let pods = Api::<Pod>::namespaced(fixture.client.clone(), namespace);
    let name = pods.create(&PostParams::default(), &pod).await?.name_any();
    let ended = json!({"status": {"phase": "Succeeded"}});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(ended)).await?;
    Ok(())
}

#[tokio::test]
async fn a_pod_of_another_namespace_passes_no_gate() -> Result<()> {
    let fixture = Fixture::new().await?;
    let tenant = ControlPlane::shared().await?.namespace().await?;
    let tip = fixture.remote_head("main");
    let source = fixture.branch("feature/u", "untested", "1\n");
    fixture.submit("mr-u", "feature/u", &source, None).await?;
    let pod = fixture.gate(&[]).await?;
    forged_pod(&fixture, &tenant, &pod).await?;
    // The gate is `false`: each of its own runs fails, and the target alone passes.
    fixture.fail_gate(&pod, "no", 0).await?;
    let back = fixture.phase("mr-u", "Rework").await?;
    ensure!(fixture.remote_head("main") == tip, "something untested landed: {back:?}");
    let runs = Api::<GateRun>::namespaced(fixture.client.clone(), &fixture.namespace);
    let ends: Vec<_> = runs
        .list(&ListParams::default())
        .await?
        .items
        .iter()
        .map(|run| (format!("{:?}", run.spec.purpose), run.end()))
        .collect();
    for end in [
        ("Test", GateRunPhase::Failed),
        ("Retry", GateRunPhase::Failed),
        ("Control", GateRunPhase::Passed),
    ] {
        ensure!(ends.contains(&(end.0.to_owned(), Some(end.1))), "{ends:?}");
    }
    Ok(())
}

#[tokio::test]
async fn of_two_pods_of_one_job_none_is_believed() -> Result<()> {
    let fixture = Fixture::new().await?;
    let tip = fixture.remote_head("main");
    let source = fixture.branch("feature/v", "untested", "1\n");
    fixture.submit("mr-v", "feature/v", &source, None).await?;
    let pod = fixture.gate(&[]).await?;
    forged_pod(&fixture, &fixture.namespace, &pod).await?;
    let broken = until(TIMEOUT, &fixture.requests(), "mr-v", "the broken run", |m| {
        let attempts = m?.status.as_ref()?.attempts.clone();
        attempts.into_iter().find(|a| a.result.as_deref() == Some("Broken"))
    })
    .await?;
    let why = broken.evidence.context("evidence")?;
    ensure!(why.contains("2 pods name the Job"), "{why}");
    ensure!(fixture.remote_head("main") == tip, "something untested landed");
    Ok(())
}

fn request(fixture: &Fixture, spec: &Value, metadata: &Value) -> Result<MergeRequest> {
    let mut whole = json!({"rigRef": fixture.rig, "targetBranch": "main"});
    for (key, value) in spec.as_object().context("a spec")? {
        whole[key] = value.clone();
    }
    let spec: MergeRequestSpec = serde_json::from_value(whole)?;
    let mut request = MergeRequest::new("", spec);
    request.metadata = serde_json::from_value(metadata.clone())?;
    Ok(request)
}

#[tokio::test]
async fn an_annotation_proves_no_landing_and_no_test() -> Result<()> {
    let fixture = Fixture::new().await?;
    let tip = fixture.remote_head("main").context("main")?;
    let source = fixture.branch("feature/w", "untested", "1\n");
    let end = json!({"phase": "Landed", "reason": "Merged", "at": "2026-01-01T00:00:00Z", "landed": tip, "tested": source});
    let verdict = json!({"candidate": source, "gate": "any", "result": "Pass"});
    let record = json!({"v": 1, "end": end, "verdicts": [verdict], "since": 0, "cleaned": true});
    let annotations = json!({"gastown.io/request-record": record.to_string(), "gastown.io/verdicts": record.to_string()});
    let forged = request(
        &fixture,
        &json!({"sourceBranch": "feature/w", "commit": source}),
        &json!({"name": "mr-w", "annotations": annotations}),
    )?;
    fixture.requests().create(&PostParams::default(), &forged).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.phase("mr-w", "Testing").await?;
    fixture.gate_ends(&pod, 0, "").await?;
    fixture.phase("mr-w", "Landed").await?;
    Ok(())
}

#[tokio::test]
async fn a_strangers_request_replaces_nobodys() -> Result<()> {
    let fixture = Fixture::new().await?;
    let tenant = ControlPlane::shared().await?.namespace().await?;
    let polecat = fixture.polecat("toast").await?;
    let source = fixture.branch("feature/x", "a", "1\n");
    let blocker = fixture.branch("feature/y", "b", "1\n");
    fixture.submit("mr-first", "feature/y", &blocker, None).await?;
    let first = fixture.gate(&[]).await?;
    fixture.submit("mr-x", "feature/x", &source, Some(&polecat)).await?;
    let forged = request(
        &fixture,
        &json!({
            "sourceBranch": "feature/x", "commit": "e".repeat(40), "attempt": 9, "previous": "mr-x",
            "polecatRef": {"name": "toast", "uid": polecat.uid()},
        }),
        &json!({"name": "mr-z"}),
    )?;
    let theirs = Api::<MergeRequest>::namespaced(fixture.client.clone(), &tenant);
    theirs.create(&PostParams::default(), &forged).await?;
    until(TIMEOUT, &theirs, "mr-z", "its place in the queue", |m| m?.status.as_ref()?.phase)
        .await?;
    fixture.gate_ends(&first, 0, "").await?;
    fixture.phase("mr-first", "Landed").await?;
    let second = fixture.gate(&[first.name_any()]).await?;
    fixture.gate_ends(&second, 0, "").await?;
    fixture.phase("mr-x", "Landed").await?;
    Ok(())
}
