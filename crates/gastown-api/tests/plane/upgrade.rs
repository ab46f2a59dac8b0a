//! Objects that were stored before these rules existed can still be read, changed and deleted.

use std::time::Duration;

use gastown_api::{Polecat, crds};
use gastown_cluster::control_plane::{ControlPlane, Options};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::{Value, json};

use crate::fixture::{Fixture, install, object, polecat, with};

/// The definition without rules: everything is accepted.
fn without_rules(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let anything = JSONSchemaProps {
        type_: Some("object".into()),
        x_kubernetes_preserve_unknown_fields: Some(true),
        ..JSONSchemaProps::default()
    };
    let version = &mut crd.spec.versions[0];
    version.schema.as_mut().unwrap().open_api_v3_schema = Some(anything);
    // They have to be in the schema.
    version.selectable_fields = None;
    crd
}

async fn install_without_rules(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in crds().into_iter().map(without_rules) {
        let name = crd.metadata.name.clone().unwrap();
        api.create(&PostParams::default(), &crd).await.unwrap();
        await_condition(api.clone(), &name, conditions::is_crd_established()).await.unwrap();
    }
}

/// A changed definition stays established; its new rules are in force when they refuse something.
async fn until_rules_hold(fixture: &Fixture) {
    let bad = with(polecat(), "spec/rig", json!(""));
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let refused = async {
        while fixture
            .api(&bad)
            .create(&params, &serde_json::from_value(bad.clone()).unwrap())
            .await
            .is_ok()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refused).await.unwrap();
}

#[tokio::test]
async fn an_old_object_that_breaks_today_s_rules_is_not_stuck() {
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    let fixture = Fixture::on(&plane).await;
    install_without_rules(&fixture.client()).await;
    let name = "p".repeat(63);
    let spec = json!({
        "rig": "web", "beadID": "a b", "desiredState": "Working", "executionMode": "kubernetes", "ttlSecondsAfterFinished": -5,
        "resources": { "requests": { "cpu": 4 }, "limits": { "cpu": 1 } },
        "kubernetes": { "gitRepository": "https://tok@host/r", "gitBranch": "-x", "gitSecretRef": { "name": "" }, "activeDeadlineSeconds": 0 },
        "agentConfig": { "env": [{ "name": "A", "value": "1" }, { "name": "A", "value": "2" }] },
    });
    let mut old = with(object("Polecat", spec), "metadata/name", json!(name));
    old["metadata"]["finalizers"] = json!(["gastown.io/polecat-cleanup"]);
    let old: Value = serde_json::to_value(
        fixture
            .api(&old)
            .create(&PostParams::default(), &serde_json::from_value(old.clone()).unwrap())
            .await
            .unwrap(),
    )
    .unwrap();
    install(fixture.client()).await;
    until_rules_hold(&fixture).await;

    let typed: Api<Polecat> = Api::namespaced(fixture.client(), fixture.namespace());
    assert_eq!(typed.get(&name).await.unwrap().spec.bead_id.as_deref(), Some("a b"));
    fixture.apply_status(&old, &json!({ "phase": "Stuck" })).await;
    fixture.change(&old, &json!({ "spec": { "desiredState": "Terminated" } })).await.unwrap();
    fixture
        .change(&old, &json!({ "metadata": { "annotations": { "gastown.io/retry": "1" } } }))
        .await
        .unwrap();
    let error = fixture
        .change(&old, &json!({ "spec": { "kubernetes": { "gitBranch": "-y" } } }))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("spec.kubernetes.gitBranch"), "what is changed must be right: {error}");

    let uid = typed.get(&name).await.unwrap().metadata.uid.unwrap();
    typed.delete(&name, &DeleteParams::default()).await.unwrap();
    let none: Patch<Value> = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    typed.patch(&name, &PatchParams::default(), &none).await.unwrap();
    let gone = await_condition(typed, &name, conditions::is_deleted(&uid));
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap().unwrap();
}
