//! What the API server fills in.

use serde_json::{Value, json};

use crate::ground::{
    Ground, bead_store, convoy, merge_request, polecat, refinery, rig, with, witness,
};

/// The object's spec is exactly what was written and these fields.
async fn fills(ground: &Ground, object: &Value, wanted: &[(&str, Value)]) {
    let expected = wanted
        .iter()
        .fold(object.clone(), |o, (place, value)| with(o, &format!("spec/{place}"), value.clone()));
    assert_eq!(ground.defaulted(object).await["spec"], expected["spec"]);
}

#[tokio::test]
async fn every_kind_gets_its_defaults_and_nothing_else() {
    let ground = Ground::new().await;
    fills(
        &ground,
        &rig(),
        &[("settings", json!({ "maxPolecats": 8, "namepoolTheme": "mad-max" }))],
    )
    .await;
    let polecat_defaults = [
        ("desiredState", json!("Idle")),
        ("executionMode", json!("kubernetes")),
        ("agent", json!("claude-code")),
        ("expectChanges", json!(true)),
        ("maxRetries", json!(3)),
        ("maxAttempts", json!(8)),
        ("kubernetes/gitBranch", json!("main")),
        ("kubernetes/activeDeadlineSeconds", json!(3600)),
        ("kubernetes/sshStrictHostKeyChecking", json!("yes")),
    ];
    fills(&ground, &polecat(), &polecat_defaults).await;
    fills(&ground, &convoy(), &[("parallelism", json!(0)), ("failurePolicy", json!("Continue"))])
        .await;
    let times = [
        ("healthCheckInterval", json!("30s")),
        ("stuckThreshold", json!("15m")),
        ("escalationTarget", json!("mayor")),
    ];
    fills(&ground, &witness(), &times).await;
    let refinery_defaults = [
        ("targetBranch", json!("main")),
        ("parallelism", json!(1)),
        ("deleteMergedBranches", json!(true)),
    ];
    fills(&ground, &refinery(), &refinery_defaults).await;
    let store_defaults = [
        ("syncInterval", json!("5m")),
        ("backend", json!("GitJsonl")),
        ("git", json!({ "path": ".beads" })),
        ("writePolicy", json!("Write")),
    ];
    fills(&ground, &bead_store(), &store_defaults).await;
    fills(
        &ground,
        &merge_request(),
        &[("attempt", json!(1)), ("priority", json!(2)), ("retry", json!(0))],
    )
    .await;
}

#[tokio::test]
async fn parts_get_defaults_when_they_are_there() {
    let ground = Ground::new().await;
    let settings =
        ground.defaulted(&with(rig(), "spec/settings", json!({ "maxPolecats": 3 }))).await;
    assert_eq!(
        settings["spec"]["settings"],
        json!({ "maxPolecats": 3, "namepoolTheme": "mad-max" })
    );
    let agent =
        ground.defaulted(&with(polecat(), "spec/agentConfig", json!({ "model": "m" }))).await;
    assert_eq!(agent["spec"]["agentConfig"], json!({ "provider": "litellm", "model": "m" }));
}

#[tokio::test]
async fn a_template_says_only_what_was_said() {
    let ground = Ground::new().await;
    let said = with(
        with(rig(), "spec/refinery", json!({ "gateTemplate": {} })),
        "spec/witness",
        json!({}),
    );
    let kept = ground.defaulted(&said).await;
    assert_eq!(
        (&kept["spec"]["refinery"], &kept["spec"]["witness"]),
        (&json!({ "gateTemplate": {} }), &json!({}))
    );
}

#[tokio::test]
async fn a_null_counts_as_absent() {
    let ground = Ground::new().await;
    let nulls = json!({ "spec": { "expectChanges": null, "maxAttempts": null, "budget": null, "kubernetes": { "gitBranch": null } } });
    let made = ground.apply(&polecat()).await;
    let changed = ground.change(&made, &nulls).await.unwrap();
    assert_eq!(changed["spec"], made["spec"]);
}

#[tokio::test]
async fn a_status_begins_with_the_first_phase() {
    let ground = Ground::new().await;
    for (object, phase) in
        [(polecat(), json!("Idle")), (convoy(), json!("Pending")), (refinery(), Value::Null)]
    {
        let made = ground.apply(&object).await;
        assert_eq!(made.get("status"), None);
        let status = ground.apply_status(&object, &json!({ "conditions": [] })).await;
        assert_eq!(status["status"]["phase"], phase);
    }
}
