//! What a refinery says when it waits, or lets everything through.

use anyhow::{Context as _, Result, ensure};
use gastown_api::{MergeRequest, ObjectName, RefinerySpec, Rejection, conditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::ground::{NAMESPACE, PATIENCE, Town, shared, until};

async fn says(town: &Town, refinery: &str, kind: &str, reason: &str) -> Result<Condition> {
    let want = |r: Option<&gastown_api::Refinery>| {
        let c = conditions::find(&r?.status.as_ref()?.conditions, kind)?.clone();
        (c.reason == reason).then_some(c)
    };
    until(PATIENCE, &town.refineries(), refinery, reason, want).await
}

#[tokio::test]
async fn without_a_gate_everything_lands_and_the_refinery_says_so() -> Result<()> {
    let (plane, _) = shared().await?;
    let town = Town::on(plane).await?;
    town.refinery(None).await?;
    let source = town.branch("feature/u", "a", "1\n");
    town.ask("mr-u", "feature/u", &source, None).await?;
    let landed = town.phase("mr-u", "Landed").await?.status.unwrap_or_default();
    ensure!(
        landed.landed_commit.as_ref() == Some(&source) && landed.tested_commit.is_none(),
        "{landed:?}"
    );
    ensure!(says(&town, "refinery", "Gated", "NoGates").await?.status == "False");
    Ok(())
}

#[tokio::test]
async fn a_second_refinery_of_the_branch_is_a_duplicate_and_does_nothing() -> Result<()> {
    let town = Town::new().await?;
    says(&town, "refinery", "Ready", "Idle").await?;
    town.refinery_with("refinery-too", RefinerySpec::of_rig(&town.rig)).await?;
    let c = says(&town, "refinery-too", "Ready", "Duplicate").await?;
    ensure!(c.status == "False" && c.message.contains("/refinery serves branch main"), "{c:?}");
    // It has no gate: had it worked, the request would land without one.
    let source = town.branch("feature/d", "a", "1\n");
    town.ask("mr-d", "feature/d", &source, None).await?;
    let pod = town.gate(&[]).await?;
    town.gate_ends(&pod, 0, "").await?;
    town.phase("mr-d", "Landed").await?;
    Ok(())
}

#[tokio::test]
async fn secrets_that_are_not_there_or_not_ours_to_read_are_named() -> Result<()> {
    let (plane, _) = shared().await?;
    let mut town = Town::on(plane).await?;
    let spec = RefinerySpec {
        git_secret_ref: Some(ObjectName::new("git-creds")),
        ..RefinerySpec::of_rig(&town.rig)
    };
    town.refinery_with("refinery", spec.clone()).await?;
    let c = says(&town, "refinery", "Ready", "SecretForbidden").await?;
    ensure!(
        c.message.contains("refinery.secretNamespaces") && c.message.contains("git-creds"),
        "{c:?}"
    );
    town.refineries().delete("refinery", &kube::api::DeleteParams::default()).await?;
    NAMESPACE.clone_into(&mut town.namespace);
    town.refinery_with(&format!("{}-refinery", town.rig), spec).await?;
    let c = says(&town, &format!("{}-refinery", town.rig), "Ready", "SecretNotFound").await?;
    ensure!(c.message.contains("secret git-creds is not in namespace gastown-system"), "{c:?}");
    Ok(())
}

#[tokio::test]
async fn a_held_request_waits_and_an_unwanted_one_ends() -> Result<()> {
    let town = Town::new().await?;
    let source = town.branch("feature/h", "a", "1\n");
    let (api, params) = (town.requests(), PatchParams::default());
    let mut held = town.ask("mr-template", "feature/other", &"a".repeat(40), None).await?.spec;
    held.rejected = Some(Rejection { by: "ann".into(), reason: "not now".into() });
    api.patch("mr-template", &params, &Patch::Merge(&json!({"spec": {"rejected": held.rejected}})))
        .await?;
    let end = town.phase("mr-template", "Rejected").await?.status.context("a status")?;
    let ready = conditions::find(&end.conditions, "Ready").context("Ready")?;
    ensure!(ready.message == "ann: not now", "{ready:?}");
    (held.source_branch, held.commit, held.hold, held.rejected) =
        ("feature/h".into(), source, true, None);
    api.create(&kube::api::PostParams::default(), &MergeRequest::new("mr-h", held)).await?;
    until(PATIENCE, &api, "mr-h", "Held", |m| {
        (m?.status.as_ref()?.reason.as_deref() == Some("Held")).then_some(())
    })
    .await?;
    api.patch("mr-h", &params, &Patch::Merge(&json!({"spec": {"hold": false}}))).await?;
    let pod = town.gate(&[]).await?;
    town.gate_ends(&pod, 0, "").await?;
    town.phase("mr-h", "Landed").await?;
    Ok(())
}

#[tokio::test]
async fn a_commit_that_is_not_on_its_branch_waits_and_holds_up_nobody() -> Result<()> {
    let town = Town::new().await?;
    town.ask("mr-m", "feature/missing", &"b".repeat(40), None).await?;
    let source = town.branch("feature/o", "a", "1\n");
    until(PATIENCE, &town.requests(), "mr-m", "its reason", |m| {
        (m?.status.as_ref()?.reason.as_deref() == Some("SourceCommitMissing")).then_some(())
    })
    .await?;
    town.ask("mr-o", "feature/o", &source, None).await?;
    let pod = town.gate(&[]).await?;
    town.gate_ends(&pod, 0, "").await?;
    town.phase("mr-o", "Landed").await?;
    Ok(())
}
