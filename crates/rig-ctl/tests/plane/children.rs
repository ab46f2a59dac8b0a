//! Which children a Rig gets, uses and deletes.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use gastown_api::names::{condition, label};
use gastown_api::{
    BeadStore, BeadStoreTemplate, Refinery, RefinerySpec, RefineryTemplate, Rig, RigPhase, RigSpec,
    conditions,
};
use gastown_cluster::install::SYSTEM as NAMESPACE;
use gastown_cluster::install::until;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::{
    TIMEOUT, create_rig, fixture, ready, refineries, report_witness, rigs, set_ready, spec,
};

#[tokio::test]
async fn a_rig_gets_its_children_and_is_ready_when_its_refinery_is() -> Result<()> {
    let (client, namespace) = fixture().await?;
    let name = format!("plain-{namespace}");
    let rig = create_rig(&client, &name, spec()).await?;
    let own = format!("{name}-refinery");
    let api = refineries(&client, NAMESPACE);
    let refinery =
        until(TIMEOUT, &api, &own, "the Refinery", |refinery| Some(refinery?.clone())).await?;
    let labels = BTreeMap::from([
        (label::RIG_OWNER.into(), name.clone()),
        (label::MANAGED_BY.into(), label::MANAGED_BY_RIG.into()),
    ]);
    ensure!(refinery.metadata.labels == Some(labels), "{:?}", refinery.metadata.labels);
    ensure!(
        refinery
            .owner_references()
            .iter()
            .any(|owner| Some(&owner.uid) == rig.metadata.uid.as_ref())
    );
    ensure!(refinery.spec == RefinerySpec::of_rig(&name));
    let unreported =
        |rig: Option<&Rig>| ready(rig).filter(|ready| ready.message.contains("has not reported"));
    let waits = until(TIMEOUT, &rigs(&client), &name, "what it waits for", unreported).await?;
    ensure!(waits.status == "False" && waits.reason == "RefineryNotReady", "{waits:?}");
    set_ready(&api, &own, false, "SecretNotFound", "secret git-creds has no key ssh-privatekey")
        .await?;
    let broken = |rig: Option<&Rig>| {
        ready(rig).filter(|ready| ready.message.contains("SecretNotFound: secret git-creds"))
    };
    until(TIMEOUT, &rigs(&client), &name, "the Refinery's problem", broken).await?;
    set_ready(&api, &own, true, "Idle", "").await?;
    let unwatched =
        |rig: Option<&Rig>| ready(rig).filter(|ready| ready.reason == "WitnessNotReady");
    until(TIMEOUT, &rigs(&client), &name, "the Witness to be waited for", unwatched).await?;
    report_witness(&client, &name).await?;
    until(TIMEOUT, &rigs(&client), &name, "readiness", |rig| {
        ready(rig).filter(|ready| ready.status == "True")
    })
    .await?;
    let status = rigs(&client).get(&name).await?.status.context("no status")?;
    ensure!(
        status.phase == Some(RigPhase::Ready) && status.refinery_created && status.witness_created
    );
    ensure!(status.child_namespace.as_deref() == Some(NAMESPACE));
    Ok(())
}

#[tokio::test]
async fn a_changed_template_reaches_the_child_and_a_deleted_child_returns() -> Result<()> {
    let (client, namespace) = fixture().await?;
    let name = format!("template-{namespace}");
    let template =
        RefineryTemplate { test_command: Some("make test".into()), ..RefineryTemplate::default() };
    create_rig(&client, &name, RigSpec { refinery: Some(template), ..spec() }).await?;
    let (own, api) = (format!("{name}-refinery"), refineries(&client, NAMESPACE));
    let command = |wanted: Option<&'static str>| {
        move |refinery: Option<&Refinery>| {
            refinery.filter(|refinery| refinery.spec.test_command.as_deref() == wanted).cloned()
        }
    };
    let first = until(TIMEOUT, &api, &own, "the gate", command(Some("make test"))).await?;
    let patch = json!({"spec": {"refinery": {"testCommand": "make check"}}});
    rigs(&client).patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    until(TIMEOUT, &api, &own, "the new gate", command(Some("make check"))).await?;
    rigs(&client)
        .patch(&name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"refinery": null}})))
        .await?;
    until(TIMEOUT, &api, &own, "no gate", command(None)).await?;
    api.delete(&own, &DeleteParams::default()).await?;
    until(TIMEOUT, &api, &own, "the Refinery's return", |refinery| {
        refinery.filter(|refinery| refinery.uid() != first.uid()).map(|_| ())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_refinery_that_a_user_created_is_used_wherever_it_is() -> Result<()> {
    let (client, namespace) = fixture().await?;
    let name = format!("adopting-{namespace}");
    let theirs = refineries(&client, &namespace);
    theirs
        .create(&PostParams::default(), &Refinery::new("mine", RefinerySpec::of_rig(&name)))
        .await?;
    set_ready(&theirs, "mine", true, "Idle", "").await?;
    create_rig(&client, &name, spec()).await?;
    report_witness(&client, &name).await?;
    let ready = until(TIMEOUT, &rigs(&client), &name, "readiness", |rig| {
        ready(rig).filter(|ready| ready.status == "True")
    })
    .await?;
    let wanted =
        format!("Refinery {namespace}/mine is ready, Witness {NAMESPACE}/{name}-witness is ready");
    ensure!(ready.message == wanted, "{ready:?}");
    ensure!(
        refineries(&client, NAMESPACE).get_opt(&format!("{name}-refinery")).await?.is_none(),
        "none is created beside it"
    );

    rigs(&client).delete(&name, &DeleteParams::default()).await?;
    until(TIMEOUT, &rigs(&client), &name, "the Rig's end", |rig| rig.is_none().then_some(()))
        .await?;
    ensure!(theirs.get_opt("mine").await?.is_some(), "what a user created stays");
    Ok(())
}

#[tokio::test]
async fn ours_is_deleted_when_a_user_creates_one() -> Result<()> {
    let (client, namespace) = fixture().await?;
    let name = format!("withdrawing-{namespace}");
    create_rig(&client, &name, spec()).await?;
    let (own, api) = (format!("{name}-refinery"), refineries(&client, NAMESPACE));
    until(TIMEOUT, &api, &own, "ours", |refinery| refinery.map(|_| ())).await?;
    let theirs = refineries(&client, &namespace);
    theirs
        .create(&PostParams::default(), &Refinery::new("mine", RefinerySpec::of_rig(&name)))
        .await?;
    until(TIMEOUT, &api, &own, "ours deleted", |refinery| refinery.is_none().then_some(())).await?;
    theirs.delete("mine", &DeleteParams::default()).await?;
    until(TIMEOUT, &api, &own, "ours again", |refinery| refinery.map(|_| ())).await?;
    Ok(())
}

#[tokio::test]
async fn a_foreign_object_of_the_childs_name_is_left_alone_and_named() -> Result<()> {
    let (client, namespace) = fixture().await?;
    let name = format!("taken-{namespace}");
    let (own, api) = (format!("{name}-refinery"), refineries(&client, NAMESPACE));
    let other = RefinerySpec { target_branch: "releases".into(), ..RefinerySpec::of_rig(&name) };
    let before = api.create(&PostParams::default(), &Refinery::new(&own, other)).await?;
    create_rig(&client, &name, spec()).await?;
    let refused = until(TIMEOUT, &rigs(&client), &name, "the refusal", |rig| {
        ready(rig).filter(|ready| ready.reason == "ChildCreationFailed")
    })
    .await?;
    ensure!(refused.message.contains(&own), "{refused:?}");
    ensure!(api.get(&own).await?.resource_version() == before.resource_version());
    Ok(())
}

fn stalled(rig: Option<&Rig>) -> Option<Condition> {
    conditions::find(&rig?.status.as_ref()?.conditions, condition::STALLED).cloned()
}

/// What the policy answers.
const REFUSAL: &str = "no Refinery without a cost centre";

/// Has a policy of the cluster refuse the Refinery of this name, until its binding, which is
/// returned, is deleted.
async fn refuse(
    client: &Client,
    rig: &str,
    refinery: &str,
) -> Result<(Api<ValidatingAdmissionPolicyBinding>, String)> {
    let name = format!("no-{refinery}");
    let rule = json!({"apiGroups": ["gastown.gastown.io"], "apiVersions": ["*"], "resources": ["refineries"], "operations": ["CREATE"]});
    let only = json!({"name": "it", "expression": format!("object.metadata.name == '{refinery}'")});
    let policy = json!({
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "matchConditions": [only],
            "validations": [{"expression": "false", "message": REFUSAL, "reason": "Forbidden"}],
        },
    });
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
    let (policies, bindings) = (Api::all(client.clone()), Api::all(client.clone()));
    let post = PostParams::default();
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(policy)?;
    policies.create(&post, &policy).await?;
    bindings.create(&post, &serde_json::from_value(binding)?).await?;
    // The API server takes a moment to know it.
    let (api, dry) = (refineries(client, NAMESPACE), PostParams { dry_run: true, ..post });
    let object = Refinery::new(refinery, RefinerySpec::of_rig(rig));
    let refused = async {
        while !api.create(&dry, &object).await.is_err_and(|e| e.to_string().contains(REFUSAL)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, refused).await.context("the policy refuses nothing")?;
    Ok((bindings, name))
}

#[tokio::test]
async fn what_a_policy_refused_is_shown_until_the_next_success() -> Result<()> {
    let (client, namespace) = fixture().await?;
    let name = format!("{namespace}-refused");
    let child = format!("{name}-refinery");
    let (bindings, binding) = refuse(&client, &name, &child).await?;
    create_rig(&client, &name, spec()).await?;
    let refused = until(TIMEOUT, &rigs(&client), &name, "the refusal", stalled).await?;
    ensure!((refused.status.as_str(), refused.reason.as_str()) == ("True", "ActionFailed"));
    let both = refused.message.contains(&child) && refused.message.contains(REFUSAL);
    ensure!(both && !refused.message.contains("Status {"), "{refused:?}");

    bindings.delete(&binding, &DeleteParams::default()).await?;
    let passed = |rig: Option<&Rig>| ready(rig).filter(|_| stalled(rig).is_none());
    let ready = until(TIMEOUT, &rigs(&client), &name, "the success", passed).await?;
    ensure!(ready.reason != "ChildCreationFailed", "{ready:?}");
    ensure!(refineries(&client, NAMESPACE).get_opt(&child).await?.is_some());
    Ok(())
}

#[tokio::test]
async fn a_child_that_the_server_refuses_is_shown_with_its_message() -> Result<()> {
    let (client, namespace) = fixture().await?;
    // With its suffix the child's name is longer than a name may be.
    let name = format!("long-{namespace}-{}", "x".repeat(250))[..250].to_owned();
    create_rig(&client, &name, spec()).await?;
    let degraded = until(TIMEOUT, &rigs(&client), &name, "the refusal", |rig| {
        ready(rig).filter(|ready| ready.reason == "ChildCreationFailed")
    })
    .await?;
    ensure!(degraded.message.contains("must be no more than 253"), "{degraded:?}");
    ensure!(
        rigs(&client).get(&name).await?.status.and_then(|status| status.phase)
            == Some(RigPhase::Degraded)
    );
    let stalled = until(TIMEOUT, &rigs(&client), &name, "the failing action", stalled).await?;
    ensure!(stalled.status == "True" && stalled.reason == "ActionFailed", "{stalled:?}");
    ensure!(stalled.message.contains("applying Refinery"), "{stalled:?}");
    Ok(())
}

#[tokio::test]
async fn a_bead_store_is_created_and_deleted_as_the_spec_wants() -> Result<()> {
    let (client, namespace) = fixture().await?;
    let name = format!("{namespace}-beads");
    let beads =
        BeadStoreTemplate { sync_interval: Some("1m".into()), ..BeadStoreTemplate::default() };
    create_rig(&client, &name, RigSpec { beads: Some(beads), ..spec() }).await?;
    let stores: Api<BeadStore> = Api::namespaced(client.clone(), NAMESPACE);
    let child = format!("{name}-beads");
    let made =
        until(TIMEOUT, &stores, &child, "the store", |store| store.map(|store| store.spec.clone()))
            .await?;
    ensure!(
        (made.rig_ref.as_str(), made.prefix.as_str(), made.sync_interval.as_str())
            == (name.as_str(), "web", "1m"),
        "{made:?}"
    );
    let unwanted = json!({"spec": {"beads": null}});
    rigs(&client).patch(&name, &PatchParams::default(), &Patch::Merge(&unwanted)).await?;
    until(TIMEOUT, &stores, &child, "its end", |store| store.is_none().then_some(())).await
}
