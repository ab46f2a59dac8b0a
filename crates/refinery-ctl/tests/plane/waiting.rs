//! What statuses show when a Refinery waits, or has no gate.

use anyhow::{Context as _, Result, ensure};
use gastown_api::{MergeRequest, ObjectName, RefinerySpec, Rejection, conditions};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::fixture::{Fixture, NAMESPACE, TIMEOUT, shared, until};

async fn condition(
    fixture: &Fixture,
    refinery: &str,
    kind: &str,
    reason: &str,
) -> Result<Condition> {
    let want = |r: Option<&gastown_api::Refinery>| {
        let c = conditions::find(&r?.status.as_ref()?.conditions, kind)?.clone();
        (c.reason == reason).then_some(c)
    };
    until(TIMEOUT, &fixture.refineries(), refinery, reason, want).await
}

#[tokio::test]
async fn without_a_gate_everything_lands_and_gated_is_false() -> Result<()> {
    let (plane, _) = shared().await?;
    let fixture = Fixture::on(plane).await?;
    fixture.refinery(None).await?;
    let source = fixture.branch("feature/u", "a", "1\n");
    fixture.submit("mr-u", "feature/u", &source, None).await?;
    let landed = fixture.phase("mr-u", "Landed").await?.status.unwrap_or_default();
    ensure!(
        landed.landed_commit.as_ref() == Some(&source) && landed.tested_commit.is_none(),
        "{landed:?}"
    );
    ensure!(condition(&fixture, "refinery", "Gated", "NoGates").await?.status == "False");
    Ok(())
}

#[tokio::test]
async fn a_second_refinery_of_the_branch_is_a_duplicate_and_does_nothing() -> Result<()> {
    let fixture = Fixture::new().await?;
    condition(&fixture, "refinery", "Ready", "Idle").await?;
    fixture.refinery_with("refinery-too", RefinerySpec::of_rig(&fixture.rig)).await?;
    let c = condition(&fixture, "refinery-too", "Ready", "Duplicate").await?;
    ensure!(
        c.status == "False" && c.message.contains("/refinery is active for branch main"),
        "{c:?}"
    );
    // It has no gate: if it worked, the request would land without one.
    let source = fixture.branch("feature/d", "a", "1\n");
    fixture.submit("mr-d", "feature/d", &source, None).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.gate_ends(&pod, 0, "").await?;
    fixture.phase("mr-d", "Landed").await?;
    Ok(())
}

#[tokio::test]
async fn secrets_that_are_missing_or_may_not_be_read_are_named_until_they_are_there() -> Result<()>
{
    let (plane, _) = shared().await?;
    let mut fixture = Fixture::on(plane).await?;
    let secret = format!("git-creds-{}", fixture.rig);
    let spec = RefinerySpec {
        git_secret_ref: Some(ObjectName::new(secret.clone())),
        ..RefinerySpec::of_rig(&fixture.rig)
    };
    fixture.refinery_with("refinery", spec.clone()).await?;
    let c = condition(&fixture, "refinery", "Ready", "SecretForbidden").await?;
    ensure!(
        c.message.contains("refinery.secretNamespaces") && c.message.contains(&secret),
        "{c:?}"
    );
    fixture.refineries().delete("refinery", &kube::api::DeleteParams::default()).await?;
    NAMESPACE.clone_into(&mut fixture.namespace);
    let name = format!("{}-refinery", fixture.rig);
    fixture.refinery_with(&name, spec).await?;
    let c = condition(&fixture, &name, "Ready", "SecretNotFound").await?;
    let missing = format!("secret {secret} is not in namespace gastown-system");
    ensure!(c.message.contains(&missing), "{c:?}");
    // No request waits for it: it is looked for all the same.
    let made =
        json!({"metadata": {"name": secret}, "stringData": {"username": "u", "password": "p"}});
    let secrets = Api::<Secret>::namespaced(fixture.client.clone(), NAMESPACE);
    secrets.create(&PostParams::default(), &serde_json::from_value(made)?).await?;
    until(TIMEOUT, &fixture.refineries(), &name, "Ready", |r| {
        conditions::is_true(&r?.status.as_ref()?.conditions, "Ready").then_some(())
    })
    .await
}

#[tokio::test]
async fn a_held_request_waits_and_a_rejected_one_ends() -> Result<()> {
    let fixture = Fixture::new().await?;
    let source = fixture.branch("feature/h", "a", "1\n");
    let (api, params) = (fixture.requests(), PatchParams::default());
    let mut held =
        fixture.submit("mr-template", "feature/other", &"a".repeat(40), None).await?.spec;
    held.rejected = Some(Rejection { by: "ann".into(), reason: "not now".into() });
    api.patch("mr-template", &params, &Patch::Merge(&json!({"spec": {"rejected": held.rejected}})))
        .await?;
    let end = fixture.phase("mr-template", "Rejected").await?.status.context("a status")?;
    let ready = conditions::find(&end.conditions, "Ready").context("Ready")?;
    ensure!(ready.message == "ann: not now", "{ready:?}");
    (held.source_branch, held.commit, held.hold, held.rejected) =
        ("feature/h".into(), source, true, None);
    api.create(&kube::api::PostParams::default(), &MergeRequest::new("mr-h", held)).await?;
    until(TIMEOUT, &api, "mr-h", "Held", |m| {
        (m?.status.as_ref()?.reason.as_deref() == Some("Held")).then_some(())
    })
    .await?;
    api.patch("mr-h", &params, &Patch::Merge(&json!({"spec": {"hold": false}}))).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.gate_ends(&pod, 0, "").await?;
    fixture.phase("mr-h", "Landed").await?;
    Ok(())
}

#[tokio::test]
async fn a_commit_that_is_not_on_its_branch_waits_and_holds_up_nobody() -> Result<()> {
    let fixture = Fixture::new().await?;
    fixture.submit("mr-m", "feature/missing", &"b".repeat(40), None).await?;
    let source = fixture.branch("feature/o", "a", "1\n");
    until(TIMEOUT, &fixture.requests(), "mr-m", "its reason", |m| {
        (m?.status.as_ref()?.reason.as_deref() == Some("SourceCommitMissing")).then_some(())
    })
    .await?;
    fixture.submit("mr-o", "feature/o", &source, None).await?;
    let pod = fixture.gate(&[]).await?;
    fixture.gate_ends(&pod, 0, "").await?;
    fixture.phase("mr-o", "Landed").await?;
    Ok(())
}
