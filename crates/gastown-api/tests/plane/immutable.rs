//! Immutable fields, however the change is tried: another value, removing the field, adding it
//! later.

use serde_json::{Value, json};

use crate::fixture::{Fixture, merge_request, polecat, rig, with};

async fn stays(fixture: &Fixture, object: &Value, field: &str, other: Value) {
    for value in [other, Value::Null] {
        let patch = with(json!({}), &format!("spec/{field}"), value);
        let error = fixture.change(object, &patch).await.unwrap_err().to_string();
        assert!(error.contains(&format!("spec.{field}")), "{patch}: {error}");
    }
}

#[tokio::test]
async fn a_polecat_keeps_its_rig_its_mode_and_its_bead() {
    let fixture = Fixture::new().await;
    let made = fixture.apply(&with(polecat(), "spec/beadID", json!("gt-1"))).await;
    stays(&fixture, &made, "rig", json!("other")).await;
    stays(&fixture, &made, "beadID", json!("gt-2")).await;
    let error = fixture
        .change(&made, &json!({ "spec": { "beadID": "gt-2" } }))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("spec.beadID is immutable once set: make a new Polecat"), "{error}");
    // There is one mode only, so that its rule shows only where the mode is taken away; then the
    // default brings it back.
    let kept = fixture.change(&made, &json!({ "spec": { "executionMode": null } })).await.unwrap();
    assert_eq!(kept["spec"]["executionMode"], "kubernetes");
    fixture
        .change(
            &made,
            &json!({ "spec": { "desiredState": "Working", "taskDescription": "another" } }),
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn a_polecat_without_a_bead_may_get_one_once() {
    let fixture = Fixture::new().await;
    let made = fixture.apply(&with(polecat(), "spec/beadID", json!(""))).await;
    fixture.change(&made, &json!({ "spec": { "beadID": null } })).await.unwrap();
    let bead = |id: &str| json!({ "spec": { "beadID": id } });
    fixture.change(&made, &bead("gt-1")).await.unwrap();
    fixture.change(&made, &bead("gt-2")).await.unwrap_err();
}

#[tokio::test]
async fn a_rig_keeps_its_prefix() {
    let fixture = Fixture::new().await;
    let made = fixture.apply(&with(rig(), "metadata/name", json!(fixture.namespace()))).await;
    stays(&fixture, &made, "beadsPrefix", json!("zz")).await;
    fixture.change(&made, &json!({ "spec": { "gitURL": "https://host/moved" } })).await.unwrap();
}

#[tokio::test]
async fn a_merge_request_keeps_what_it_was_created_for() {
    let fixture = Fixture::new().await;
    let whole = with(merge_request(), "spec/polecatRef", json!({ "name": "a", "uid": "u" }));
    let whole = with(with(whole, "spec/previous", json!("before")), "spec/beadID", json!("gt-1"));
    let made = fixture.apply(&with(whole, "spec/attempt", json!(2))).await;
    for (field, other) in [
        ("rigRef", json!("other")),
        ("sourceBranch", json!("other")),
        ("commit", json!("f".repeat(40))),
        ("targetBranch", json!("other")),
        ("polecatRef", json!({ "name": "b" })),
        ("attempt", json!(3)),
        ("previous", json!("other")),
        ("beadID", json!("gt-2")),
    ] {
        stays(&fixture, &made, field, other).await;
    }
    let asked = json!({ "spec": { "priority": 0, "hold": true, "retry": 1, "rejected": { "by": "maya", "reason": "no" } } });
    fixture.change(&made, &asked).await.unwrap();
}

#[tokio::test]
async fn a_merge_request_gets_no_further_immutable_field_later() {
    let fixture = Fixture::new().await;
    let made = fixture.apply(&merge_request()).await;
    let polecat = json!({ "name": "a", "uid": "u" });
    for (field, value) in
        [("polecatRef", polecat), ("previous", json!("x")), ("beadID", json!("gt-1"))]
    {
        let error = fixture
            .change(&made, &with(json!({}), &format!("spec/{field}"), value))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("spec.{field} is immutable")), "{error}");
    }
}
