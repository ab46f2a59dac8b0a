//! Facts from objects as the API server shows them.

use gastown_api::{KubernetesSpec, PolecatSpec};
use gastown_core::polecat::{PodFacts, PodPhase};
use gastown_core::report::SyncResult;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::pods::pod_facts;
use super::*;
use crate::pod::owner_uid;

fn polecat() -> Polecat {
    let mut spec = PolecatSpec::of_rig("web");
    spec.task_description = Some("make it so".into());
    spec.kubernetes = Some(KubernetesSpec::of_repository("git@forge.example:org/web.git"));
    let mut polecat = Polecat::new("toast", spec);
    polecat.metadata.uid = Some("0a1b2c3d".into());
    polecat.metadata.namespace = Some("dev".into());
    polecat
}

fn facts_of(pod: &Pod) -> Option<PodFacts> {
    let pod = AgentPod::from(pod.clone());
    pod_facts(&pod, &polecat(), &Sightings::default(), Timestamp::UNIX_EPOCH)
}

// literals are handed over
#[allow(clippy::needless_pass_by_value)]
fn of_pod(status: Value) -> PodFacts {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "polecat-toast-0a1b2-3", "uid": "p", "finalizers": ["gastown.io/outcome"] },
        "spec": { "nodeName": "n", "containers": [], "initContainers": [
            { "name": "git-init", "env": [{ "name": "GASTOWN_WORK_BRANCH", "value": "feature/a$$b" }] },
        ]},
        "status": status,
    }))
    .unwrap();
    facts_of(&pod).unwrap()
}

fn ended(name: &str, code: i32, message: &str) -> Value {
    json!({ "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": { "exitCode": code, "reason": "Error", "message": message, "finishedAt": "2026-01-01T00:00:07Z" } } })
}

fn waits(name: &str, reason: &str, message: &str) -> Value {
    json!({ "name": name, "image": "img:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "waiting": { "reason": reason, "message": message } } })
}

#[test]
fn records_are_read_from_where_the_kubelet_puts_them() {
    let sync = r#"{"v":1,"result":"NoChanges"}"#;
    let run = r#"{"v":1,"exit":"Completed","message":"x"}"#;
    let pod = of_pod(json!({ "phase": "Succeeded",
        "initContainerStatuses": [ended("git-init", 0, r#"{"v":1,"result":"Ready"}"#), ended("git-sync", 0, sync)],
        "containerStatuses": [ended("claude", 0, run)] }));
    assert_eq!(
        (pod.attempt, pod.branch.unwrap().as_str().to_owned()),
        (3, "feature/a$b".to_owned())
    );
    assert_eq!(pod.sync.unwrap().result, SyncResult::NoChanges);
    assert!(pod.run.is_some() && pod.init.is_some() && pod.agent_started && pod.finalizer);
    assert_eq!(pod.ended.unwrap().to_string(), "2026-01-01T00:00:07Z");
}

#[test]
fn the_record_of_a_restarted_sidecar_is_that_of_its_last_end() {
    let mut sync = waits("git-sync", "CrashLoopBackOff", "");
    sync["lastState"] = ended("git-sync", 1, r#"{"v":1,"result":"Internal"}"#)["state"].clone();
    let pod = of_pod(json!({ "phase": "Failed", "initContainerStatuses": [sync] }));
    assert_eq!(pod.sync.unwrap().result, SyncResult::Internal);
}

#[test]
fn the_platforms_own_reason_is_kept() {
    let target = json!([{ "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler" }]);
    assert_eq!(
        of_pod(json!({ "phase": "Failed", "conditions": target })).disruption.as_deref(),
        Some("PreemptionByScheduler")
    );
    assert_eq!(
        of_pod(json!({ "phase": "Failed", "reason": "Evicted", "conditions": target }))
            .disruption
            .as_deref(),
        Some("Evicted")
    );
}

#[test]
fn what_keeps_a_pod_from_starting_is_shown_without_flapping() {
    let of = |status: Value| {
        of_pod(json!({ "phase": "Pending", "containerStatuses": [status] })).waiting
    };
    let first = of(waits("claude", "ErrImagePull", "rpc error: not found"));
    assert_eq!(first, of(waits("claude", "ImagePullBackOff", "Back-off pulling image")));
    assert_eq!(first.unwrap().0, "ImagePullBackOff");
    let secret = of(waits("claude", "CreateContainerConfigError", "secret \"key\" not found"));
    assert_eq!(secret, Some(("SecretNotFound".into(), "secret \"key\" not found".into())));
    assert_eq!(of(waits("claude", "PodInitializing", "")), None);
    let full = json!({ "phase": "Pending", "conditions": [
        { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available" }] });
    assert_eq!(of_pod(full).waiting.unwrap().0, "Unschedulable");
}

#[test]
fn a_bad_end_without_a_record_is_shown_with_the_runtimes_message() {
    let pod = of_pod(
        json!({ "phase": "Failed", "containerStatuses": [ended("claude", 127, "no such file\u{7}")] }),
    );
    assert_eq!(
        pod.failure.as_deref(),
        Some("container claude ended with code 127 (Error) no such file\u{fffd}")
    );
    assert!(pod.run.is_none());
}

#[test]
fn pods_of_other_names_or_owners_are_ignored() {
    let pod: Pod = serde_json::from_value(
        json!({ "metadata": { "name": "polecat-toast-ffff-2", "uid": "p" } }),
    )
    .unwrap();
    assert!(facts_of(&pod).is_none());
    assert_eq!(owner_uid(&AgentPod::from(pod)), None);
}

#[test]
fn a_uid_is_not_a_secret_so_a_strangers_request_is_not_ours() {
    let request = |namespace: &str, rig: &str, uid: &str| -> MergeRequest {
        serde_json::from_value(json!({
            "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "MergeRequest", "metadata": { "name": "r", "namespace": namespace },
            "spec": { "rigRef": rig, "sourceBranch": "b", "commit": "a".repeat(40), "targetBranch": "main", "attempt": 1, "priority": 2,
                "polecatRef": { "name": "toast", "uid": uid } },
        }))
        .unwrap()
    };
    let all = [
        request("dev", "web", "0a1b2c3d"),
        request("evil", "web", "0a1b2c3d"),
        request("dev", "other", "0a1b2c3d"),
        request("dev", "web", "x"),
    ];
    let requests = all.into_iter().map(Arc::new).collect();
    let s = facts(&polecat(), Objects { requests, ..Objects::default() });
    assert_eq!(s.requests.len(), 1);
}

#[test]
fn a_pod_is_not_over_before_its_sidecar_is() {
    let sync = json!({ "name": "git-sync", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": { "running": {} } });
    let status = json!({ "phase": "Succeeded", "initContainerStatuses": [sync] });
    assert_eq!(of_pod(status.clone()).phase, PodPhase::Running);
    let mut evicted = status;
    (evicted["phase"], evicted["reason"]) = (json!("Failed"), json!("Evicted"));
    assert_eq!(of_pod(evicted).phase, PodPhase::Failed);
}

#[test]
fn a_restart_is_wanted_where_the_condition_names_a_pod() {
    let unhealthy = |status: &str, reason: &str, message: &str| {
        let mut polecat = polecat();
        let condition = json!({ "type": "Healthy", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z" });
        polecat.status = serde_json::from_value(json!({ "conditions": [condition] })).unwrap();
        facts(&polecat, Objects::default()).unhealthy
    };
    assert_eq!(
        unhealthy("False", "RestartWanted", "pod 0a1b-2: nothing for 15m: pod x: y").as_deref(),
        Some("0a1b-2")
    );
    assert_eq!(unhealthy("True", "RestartWanted", "pod 0a1b-2: "), None);
    assert_eq!(unhealthy("False", "Wedged", "pod 0a1b-2: nothing for 15m"), None);
    for message in ["", "pod ", "pod : x", "pod 0a1b-2", "the pod 0a1b-2: x"] {
        assert_eq!(unhealthy("False", "RestartWanted", message), None, "{message}");
    }
}

#[test]
fn work_that_is_still_to_land_keeps_the_bead_from_others() {
    let mut polecat = polecat();
    polecat.spec.bead_id = Some("web-1".into());
    let claim = |phase: &str, author: &str| {
        let request: MergeRequest = serde_json::from_value(json!({
            "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "MergeRequest", "metadata": { "name": "r", "namespace": "ops" },
            "spec": { "rigRef": "web", "sourceBranch": "b", "commit": "a".repeat(40), "targetBranch": "main", "attempt": 1, "priority": 2,
                "polecatRef": { "name": "other", "uid": author } },
            "status": { "phase": phase },
        }))
        .unwrap();
        let bead_requests = vec![Arc::new(request)];
        facts(&polecat, Objects { bead_requests, ..Objects::default() }).claim
    };
    assert_eq!(claim("Testing", "gone"), ClaimFacts::ToLand { request: "ops/r".into() });
    assert_eq!(claim("Landed", "gone"), ClaimFacts::Free);
    assert_eq!(claim("Testing", "0a1b2c3d"), ClaimFacts::Free);
}

/// A deleted pod in which a container of others still runs.
fn with_stranger(claude: &Value, sync: &Value, deleted: bool) -> PodFacts {
    let stranger = json!({ "name": "istio-proxy", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
        "state": { "running": {} } });
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "polecat-toast", "uid": "p" },
        "spec": { "nodeName": "n", "containers": [], "initContainers": [
            { "name": "git-sync", "readinessProbe": {}, "env": [{ "name": "GASTOWN_DEADLINE_SECONDS", "value": "60" }] },
        ]},
        "status": { "phase": "Running", "initContainerStatuses": [sync], "containerStatuses": [claude, stranger] },
    }))
    .unwrap();
    if deleted {
        pod.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        pod.metadata.deletion_grace_period_seconds = Some(600);
    }
    facts_of(&pod).unwrap()
}

#[test]
fn the_ends_of_our_containers_count_whatever_a_container_of_others_does() {
    let run = ended("claude", 0, r#"{"v":2,"exit":"Completed"}"#);
    let sync = |ready: bool| {
        json!({ "name": "git-sync", "image": "i", "imageID": "", "ready": ready, "restartCount": 0,
            "state": { "running": {} } })
    };
    for ready in [false, true] {
        let pod = with_stranger(&run, &sync(ready), false);
        assert_eq!((pod.phase, pod.saved), (PodPhase::Running, Some(ready)));
        assert!(pod.agent_ended && pod.strangers);
        assert_eq!(pod.deadline_seconds, Some(60));
    }
    let ended_sync = ended("git-sync", 0, r#"{"v":2,"result":"NoChanges"}"#);
    let over = with_stranger(&run, &ended_sync, true);
    assert_eq!((over.phase, over.grace_seconds), (PodPhase::Succeeded, 600));
    assert_eq!(over.deletion, Some(Timestamp::UNIX_EPOCH), "first seen by this process");
    let again = with_stranger(&run, &ended_sync, false);
    assert_eq!(again.phase, PodPhase::Running, "the sidecar is started again");
}

#[test]
fn a_container_that_the_kubelet_cannot_find_never_started_before_git_init_was_done() {
    let mut lost = ended("claude", 137, "The container could not be located");
    lost["state"]["terminated"]["reason"] = json!("ContainerStatusUnknown");
    let of = |init: Value| {
        of_pod(json!({ "phase": "Failed", "initContainerStatuses": [init], "containerStatuses": [lost] }))
            .agent_started
    };
    assert!(!of(waits("git-init", "PodInitializing", "")));
    assert!(of(ended("git-init", 0, r#"{"v":2,"result":"Ready"}"#)));
}

#[test]
fn a_pod_without_the_probe_states_nothing_about_what_is_saved() {
    let sync = json!({ "name": "git-sync", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": { "running": {} } });
    let pod = of_pod(json!({ "phase": "Running", "initContainerStatuses": [sync] }));
    assert_eq!(pod.saved, None);
}
