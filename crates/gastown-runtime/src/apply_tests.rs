use super::*;

const OWNER: StatusOwner = StatusOwner {
    manager: "gastown-rig-ctl",
    fields: &["phase", "polecatCount"],
    conditions: &["Ready"],
};

#[test]
fn only_the_owned_part_of_a_status_counts() {
    let ours = json!({
        "phase": "Ready", "polecatCount": 0, "foreign": 7,
        "conditions": [{"type": "Merged", "status": "True"}, {"type": "Ready", "status": "True"}],
    });
    let part = OWNER.part(&ours);
    assert_eq!(
        Value::Object(part),
        json!({"phase": "Ready", "polecatCount": 0, "conditions": [{"type": "Ready", "status": "True"}]})
    );
}

#[test]
fn an_absent_field_and_a_null_are_the_same() {
    assert_eq!(OWNER.part(&json!({"phase": null})), OWNER.part(&json!({})));
}

#[test]
fn defaults_of_the_server_do_not_count_as_a_difference() {
    let wanted = json!({"spec": {"containers": [{"name": "a", "env": {}}]}});
    let present = json!({"spec": {"containers": [{"name": "a", "terminationMessagePolicy": "File"}], "dnsPolicy": "ClusterFirst"}});
    assert!(contains(&present, &wanted));
    assert!(!contains(&json!({"spec": {"containers": [{"name": "b"}]}}), &wanted));
    assert!(!contains(&json!({"spec": {"containers": []}}), &wanted));
}

#[test]
fn an_apply_owns_no_nulls() {
    let mut body = json!({"spec": {"a": null, "b": [{"c": null, "d": 1}]}});
    prune(&mut body);
    assert_eq!(body, json!({"spec": {"b": [{"d": 1}]}}));
}
