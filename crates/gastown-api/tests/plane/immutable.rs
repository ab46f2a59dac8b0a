//! Fields that stay as they were made, however the change is tried: another value, taking it away,
//! bringing it later.

use serde_json::{Value, json};

use crate::ground::{Ground, merge_request, polecat, rig, with};

async fn stays(ground: &Ground, object: &Value, field: &str, other: Value) {
    for value in [other, Value::Null] {
        let patch = with(json!({}), &format!("spec/{field}"), value);
        let error = ground.change(object, &patch).await.unwrap_err().to_string();
        assert!(error.contains(&format!("spec.{field}")), "{patch}: {error}");
    }
}

#[tokio::test]
async fn a_polecat_keeps_its_rig_its_mode_and_its_bead() {
    let ground = Ground::new().await;
    let made = ground.apply(&with(polecat(), "spec/beadID", json!("gt-1"))).await;
    stays(&ground, &made, "rig", json!("other")).await;
    stays(&ground, &made, "beadID", json!("gt-2")).await;
    let error = ground
        .change(&made, &json!({ "spec": { "beadID": "gt-2" } }))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("spec.beadID is immutable once set: make a new Polecat"), "{error}");
    // There is one mode only, so that its rule shows only where the mode is taken away; then the
    // default brings it back.
    let kept = ground.change(&made, &json!({ "spec": { "executionMode": null } })).await.unwrap();
    assert_eq!(kept["spec"]["executionMode"], "kubernetes");
    ground
        .change(
            &made,
            &json!({ "spec": { "desiredState": "Working", "taskDescription": "another" } }),
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn a_polecat_without_a_bead_may_get_one_once() {
    let ground = Ground::new().await;
    let made = ground.apply(&with(polecat(), "spec/beadID", json!(""))).await;
    ground.change(&made, &json!({ "spec": { "beadID": null } })).await.unwrap();
    let bead = |id: &str| json!({ "spec": { "beadID": id } });
    ground.change(&made, &bead("gt-1")).await.unwrap();
    ground.change(&made, &bead("gt-2")).await.unwrap_err();
}

#[tokio::test]
async fn a_rig_keeps_its_prefix() {
    let ground = Ground::new().await;
    let made = ground.apply(&with(rig(), "metadata/name", json!(ground.namespace()))).await;
    stays(&ground, &made, "beadsPrefix", json!("zz")).await;
    ground.change(&made, &json!({ "spec": { "gitURL": "https://host/moved" } })).await.unwrap();
}

#[tokio::test]
async fn a_merge_request_is_one_story() {
    let ground = Ground::new().await;
    let whole = with(merge_request(), "spec/polecatRef", json!({ "name": "a", "uid": "u" }));
    let whole = with(with(whole, "spec/previous", json!("before")), "spec/beadID", json!("gt-1"));
    let made = ground.apply(&with(whole, "spec/attempt", json!(2))).await;
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
        stays(&ground, &made, field, other).await;
    }
    let asked = json!({ "spec": { "priority": 0, "hold": true, "retry": 1, "rejected": { "by": "maya", "reason": "no" } } });
    ground.change(&made, &asked).await.unwrap();
}

#[tokio::test]
async fn what_a_merge_request_was_made_without_does_not_come_later() {
    let ground = Ground::new().await;
    let made = ground.apply(&merge_request()).await;
    let polecat = json!({ "name": "a", "uid": "u" });
    for (field, value) in
        [("polecatRef", polecat), ("previous", json!("x")), ("beadID", json!("gt-1"))]
    {
        let error = ground
            .change(&made, &with(json!({}), &format!("spec/{field}"), value))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("spec.{field} is immutable")), "{error}");
    }
}
