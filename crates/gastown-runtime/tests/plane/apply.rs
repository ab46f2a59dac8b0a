//! Statuses, children, annotations and finalizers.

use anyhow::{Context as _, Result, ensure};
use gastown_api::conditions::{self, Draft};
use gastown_api::names::condition;
use gastown_api::{Rig, RigPhase, RigSpec, RigStatus};
use gastown_cluster::control_plane::ControlPlane;
use gastown_runtime::apply::{self, StatusOwner};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::fixture::{config_map, fixture};

const OWNER: StatusOwner = StatusOwner {
    manager: "gastown-rig-ctl",
    fields: &["phase", "polecatCount"],
    conditions: &[condition::READY],
};

async fn rig(plane: &ControlPlane, client: &Client, name: &str) -> Result<Rig> {
    plane.install_crds().await?;
    let spec = RigSpec {
        git_url: "https://example.com/a/b".into(),
        beads_prefix: "web".into(),
        ..RigSpec::default()
    };
    Ok(Api::all(client.clone()).create(&PostParams::default(), &Rig::new(name, spec)).await?)
}

fn ready_status(rig: &Rig) -> RigStatus {
    let mut all = rig.status.clone().unwrap_or_default().conditions;
    let ready = Draft::new(condition::READY, true, "Ready", "all children are ready");
    conditions::merge(&mut all, [ready], rig.metadata.generation, Timestamp::now());
    RigStatus {
        phase: Some(RigPhase::Ready),
        polecat_count: 0,
        conditions: all,
        ..RigStatus::default()
    }
}

#[tokio::test]
async fn a_status_without_a_change_is_not_sent() -> Result<()> {
    let (plane, client, namespace) = fixture().await?;
    let rigs: Api<Rig> = Api::all(client.clone());
    let fresh = rig(plane, &client, &format!("twice-{namespace}")).await?;
    ensure!(OWNER.apply(&rigs, &fresh, &ready_status(&fresh)).await?, "the first apply writes");
    let written = rigs.get(&fresh.name_any()).await?;
    ensure!(
        !OWNER.apply(&rigs, &written, &ready_status(&written)).await?,
        "the second has nothing to write"
    );
    // Even when it is sent from an outdated cache, an equal status changes nothing.
    ensure!(OWNER.apply(&rigs, &fresh, &ready_status(&written)).await?);
    ensure!(rigs.get(&fresh.name_any()).await?.resource_version() == written.resource_version());
    Ok(())
}

#[tokio::test]
async fn a_status_owner_leaves_the_conditions_of_others_alone() -> Result<()> {
    let (plane, client, namespace) = fixture().await?;
    let rigs: Api<Rig> = Api::all(client.clone());
    let fresh = rig(plane, &client, &format!("shared-{namespace}")).await?;
    let other = StatusOwner { manager: "another", fields: &[], conditions: &["Merged"] };
    let mut theirs = RigStatus::default();
    let merged = Draft::new("Merged", true, "MergeComplete", "");
    conditions::merge(&mut theirs.conditions, [merged], None, Timestamp::now());
    other.apply(&rigs, &fresh, &theirs).await?;
    OWNER.apply(&rigs, &fresh, &ready_status(&fresh)).await?;
    let status = rigs.get(&fresh.name_any()).await?.status.context("no status")?;
    ensure!(
        conditions::is_true(&status.conditions, "Merged")
            && conditions::is_true(&status.conditions, condition::READY)
    );
    Ok(())
}

#[tokio::test]
async fn a_status_is_never_applied_to_another_object_of_the_same_name() -> Result<()> {
    let (plane, client, namespace) = fixture().await?;
    let rigs: Api<Rig> = Api::all(client.clone());
    let name = format!("namesake-{namespace}");
    let gone = rig(plane, &client, &name).await?;
    rigs.delete(&name, &DeleteParams::default()).await?;
    let namesake = rig(plane, &client, &name).await?;
    ensure!(!OWNER.apply(&rigs, &gone, &ready_status(&gone)).await?);
    ensure!(rigs.get(&name).await?.resource_version() == namesake.resource_version());
    Ok(())
}

#[tokio::test]
async fn a_child_is_written_once_and_again_when_its_manifest_or_the_child_changes() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let wanted = config_map("child", &[("a", "1"), ("b", "2")]);
    ensure!(apply::child(&maps, "test", None, &wanted).await?);
    let present = maps.get("child").await?;
    ensure!(!apply::child(&maps, "test", Some(&present), &wanted).await?, "nothing to do");

    maps.patch("child", &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "edited"}})))
        .await?;
    ensure!(
        apply::child(&maps, "test", Some(&maps.get("child").await?), &wanted).await?,
        "an edit is reverted"
    );

    let less = config_map("child", &[("a", "1")]);
    ensure!(apply::child(&maps, "test", Some(&maps.get("child").await?), &less).await?);
    ensure!(maps.get("child").await?.data == less.data, "what the manifest dropped is removed");

    maps.delete("child", &DeleteParams::default()).await?;
    let stale = apply::child(&maps, "test", Some(&present), &less).await;
    ensure!(
        stale.is_err() && maps.get_opt("child").await?.is_none(),
        "a deleted child is not created by a partial apply: {stale:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_child_never_overwrites_an_object_that_the_cache_does_not_have_yet() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let parent = maps.create(&PostParams::default(), &config_map("parent", &[])).await?;
    let mut wanted = config_map("child", &[("a", "1")]);
    wanted.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        name: "parent".into(),
        uid: parent.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    let foreign =
        maps.create(&PostParams::default(), &config_map("child", &[("a", "a person's")])).await?;
    let refused = apply::child(&maps, "test", None, &wanted).await;
    ensure!(matches!(refused, Err(apply::Error::Taken { .. })), "{refused:?}");
    ensure!(
        maps.get("child").await?.resource_version() == foreign.resource_version(),
        "it was changed"
    );
    // A child of our own that the cache does not have yet is brought to its manifest, not refused.
    maps.delete("child", &DeleteParams::default()).await?;
    ensure!(apply::child(&maps, "test", None, &wanted).await?);
    ensure!(!apply::child(&maps, "test", None, &wanted).await?, "it exists already");
    Ok(())
}

#[tokio::test]
async fn finalizers_and_annotations_are_guarded_and_written_once() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let first = maps.create(&PostParams::default(), &config_map("guarded", &[])).await?;
    let second =
        apply::add_finalizer(&maps, "test", &first, "gastown.io/test").await?.context("written")?;
    ensure!(apply::add_finalizer(&maps, "test", &second, "gastown.io/test").await?.is_none());
    let third = apply::annotate(&maps, "test", &second, &[("gastown.io/a", Some("1"))])
        .await?
        .context("written")?;
    ensure!(
        apply::annotate(&maps, "test", &third, &[("gastown.io/a", Some("1"))]).await?.is_none()
    );
    let stale = apply::annotate(&maps, "test", &second, &[("gastown.io/a", Some("2"))]).await;
    ensure!(
        matches!(&stale, Err(apply::Error::Api { source, .. }) if matches!(source.as_ref(), kube::Error::Api(status) if status.is_conflict()))
    );
    ensure!(apply::delete(&maps, &third).await?);
    ensure!(
        apply::remove_finalizer(&maps, "test", &maps.get("guarded").await?, "gastown.io/test")
            .await?
    );
    ensure!(
        !apply::remove_finalizer(&maps, "test", &third, "gastown.io/test").await?,
        "a deleted object needs nothing"
    );
    ensure!(!apply::delete(&maps, &third).await?, "a deleted object needs nothing");
    Ok(())
}
