//! What the API server fills in.

use serde_json::{Value, json};

use crate::fixture::{
    Fixture, bead_store, convoy, gate_run, merge_request, polecat, refinery, rig, with, witness,
};

/// Checks that the object's spec is exactly what was written, plus these fields.
async fn fills(fixture: &Fixture, object: &Value, wanted: &[(&str, Value)]) {
    let expected = wanted
        .iter()
        .fold(object.clone(), |o, (place, value)| with(o, &format!("spec/{place}"), value.clone()));
    assert_eq!(fixture.defaulted(object).await["spec"], expected["spec"]);
}

#[tokio::test]
async fn every_kind_gets_its_defaults_and_nothing_else() {
    let fixture = Fixture::new().await;
    fills(
        &fixture,
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
    fills(&fixture, &polecat(), &polecat_defaults).await;
    fills(&fixture, &convoy(), &[("parallelism", json!(0)), ("failurePolicy", json!("Continue"))])
        .await;
    let times = [
        ("healthCheckInterval", json!("30s")),
        ("stuckThreshold", json!("15m")),
        ("escalationTarget", json!("mayor")),
    ];
    fills(&fixture, &witness(), &times).await;
    let refinery_defaults = [
        ("targetBranch", json!("main")),
        ("parallelism", json!(1)),
        ("deleteMergedBranches", json!(true)),
    ];
    fills(&fixture, &refinery(), &refinery_defaults).await;
    let store_defaults = [
        ("syncInterval", json!("5m")),
        ("backend", json!("GitJsonl")),
        ("git", json!({ "path": ".beads" })),
        ("writePolicy", json!("Write")),
    ];
    fills(&fixture, &bead_store(), &store_defaults).await;
    fills(
        &fixture,
        &merge_request(),
        &[("attempt", json!(1)), ("priority", json!(2)), ("retry", json!(0))],
    )
    .await;
}

#[tokio::test]
async fn parts_get_defaults_when_they_are_there() {
    let fixture = Fixture::new().await;
    let settings =
        fixture.defaulted(&with(rig(), "spec/settings", json!({ "maxPolecats": 3 }))).await;
    assert_eq!(
        settings["spec"]["settings"],
        json!({ "maxPolecats": 3, "namepoolTheme": "mad-max" })
    );
    let agent =
        fixture.defaulted(&with(polecat(), "spec/agentConfig", json!({ "model": "m" }))).await;
    assert_eq!(agent["spec"]["agentConfig"], json!({ "provider": "litellm", "model": "m" }));
}

#[tokio::test]
async fn a_template_has_only_what_was_written() {
    let fixture = Fixture::new().await;
    let written = with(
        with(rig(), "spec/refinery", json!({ "gateTemplate": {} })),
        "spec/witness",
        json!({}),
    );
    let kept = fixture.defaulted(&written).await;
    assert_eq!(
        (&kept["spec"]["refinery"], &kept["spec"]["witness"]),
        (&json!({ "gateTemplate": {} }), &json!({}))
    );
}

#[tokio::test]
async fn a_null_counts_as_absent() {
    let fixture = Fixture::new().await;
    let nulls = json!({ "spec": { "expectChanges": null, "maxAttempts": null, "budget": null, "kubernetes": { "gitBranch": null } } });
    let made = fixture.apply(&polecat()).await;
    let changed = fixture.change(&made, &nulls).await.unwrap();
    assert_eq!(changed["spec"], made["spec"]);
}

#[tokio::test]
async fn a_status_begins_with_the_first_phase() {
    let fixture = Fixture::new().await;
    for (object, phase) in
        [(polecat(), json!("Idle")), (convoy(), json!("Pending")), (refinery(), Value::Null)]
    {
        let made = fixture.apply(&object).await;
        assert_eq!(made.get("status"), None);
        let status = fixture.apply_status(&object, &json!({ "conditions": [] })).await;
        assert_eq!(status["status"]["phase"], phase);
    }
}

#[tokio::test]
async fn a_gate_run_is_running_until_its_end_is_written() {
    let fixture = Fixture::new().await;
    let run = gate_run();
    fixture.apply(&run).await;
    let name = run["metadata"]["name"].as_str().unwrap();
    let read = async || {
        let object = fixture.api(&run).get(name).await.unwrap();
        serde_json::to_value(object).unwrap()["status"].clone()
    };
    assert_eq!(read().await, json!({ "phase": "Running" }));
    let ended = fixture.apply_status(&run, &json!({ "phase": "Passed", "exitCode": 0 })).await;
    assert_eq!(ended["status"], json!({ "phase": "Passed", "exitCode": 0 }));
    assert_eq!(read().await, ended["status"]);
}
