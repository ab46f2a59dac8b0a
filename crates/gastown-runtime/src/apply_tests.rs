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
fn what_is_empty_is_the_same_as_what_is_absent() {
    let wanted = json!({"spec": {"ingress": [], "podSelector": {}}});
    assert!(contains(&json!({"spec": {}}), &wanted));
    assert!(!contains(&json!({"spec": {"ingress": [{}]}}), &wanted));
}

#[test]
fn an_apply_owns_no_nulls() {
    let mut body = json!({"spec": {"a": null, "b": [{"c": null, "d": 1}]}});
    prune(&mut body);
    assert_eq!(body, json!({"spec": {"b": [{"d": 1}]}}));
}

#[test]
fn counts_and_messages_are_details_and_reasons_are_not() {
    let details = Details { fields: &["polecatCount"], conditions: &["Processing"], reasons: &[] };
    let status = |count: u32, reason: &str, message: &str, processing: &str| {
        let ready = json!({"type": "Ready", "reason": reason, "message": message});
        let other = json!({"type": "Processing", "status": processing});
        let status = json!({"polecatCount": count, "conditions": [ready, other], "phase": "Ready"});
        details.rest(status.as_object().unwrap().clone())
    };
    let before = status(1, "Ready", "one", "True");
    assert_eq!(before, status(2, "Ready", "two", "False"));
    assert_ne!(before, status(1, "Blocked", "one", "True"));
    assert_ne!(before, details.rest(Map::new()), "an erased status is written at once");
    let all = OWNER.everything().rest(
        json!({"phase": "Ready", "conditions": [{"type": "Ready"}]}).as_object().unwrap().clone(),
    );
    assert_eq!(
        all,
        OWNER.everything().rest(Map::new()),
        "where all of it may wait, the first one may"
    );
}

#[test]
fn a_reason_is_a_detail_only_where_that_is_wanted_and_while_its_condition_is_true() {
    let details = Details { fields: &[], conditions: &[], reasons: &["Healthy"] };
    let status = |kind: &str, status: &str, reason: &str| {
        let condition = json!({"type": kind, "status": status, "reason": reason});
        details.rest(json!({"conditions": [condition]}).as_object().unwrap().clone())
    };
    assert_eq!(status("Healthy", "True", "Healthy"), status("Healthy", "True", "Quiet"));
    assert_ne!(status("Healthy", "True", "Healthy"), status("Healthy", "False", "Wedged"));
    assert_ne!(status("Healthy", "False", "Wedged"), status("Healthy", "False", "RestartWanted"));
    assert_ne!(status("Saved", "True", "Saved"), status("Saved", "True", "Saving"));
}
