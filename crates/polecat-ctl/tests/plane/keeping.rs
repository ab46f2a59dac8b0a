//! No work is lost with a pod, and what a pod waits for is reported.

use gastown_api::names::{annotation, condition};
use gastown_api::{DesiredState, Polecat, Refinery, RefinerySpec};
use gastown_core::report::AgentExit;
use gastown_fakes::kubelet::Exit;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::fixture::Fixture;
use crate::outcomes::{ended, ended_with, golden};
use crate::reason;

/// A controller that waits for nothing that does not obey.
async fn impatient(max_polecats: i32) -> Fixture {
    let mut fixture = Fixture::new().await;
    fixture.margin_seconds = 1;
    fixture.make_rig(max_polecats).await;
    fixture.start_server().await;
    fixture.start_controller();
    fixture
}

async fn at_work(fixture: &Fixture, name: &str) -> Pod {
    let pod = fixture.pod(&format!("polecat-{name}"), &[]).await;
    fixture.kubelet.running(&pod).await.unwrap();
    fixture.wait_reason(name, condition::READY, "PodRunning").await;
    pod
}

async fn wait_pod(fixture: &Fixture, pod: &Pod, wanted: impl Fn(&Pod) -> bool) -> Pod {
    let uid = pod.uid();
    fixture.kubelet.wait_pod(&fixture.namespace, |p| p.uid() == uid && wanted(p)).await.unwrap()
}

/// Nothing is wanted of the Polecat any more, and its pod knows.
async fn drained(fixture: &Fixture, pod: &Pod) {
    fixture.patch("toast", json!({ "spec": { "desiredState": "Idle" } })).await;
    wait_pod(fixture, pod, |p| p.annotations().contains_key(annotation::DRAIN)).await;
}

/// As witness-ctl, which owns the condition.
async fn saving(fixture: &Fixture, name: &str, sentence: &str) {
    let condition = json!({ "type": "Saved", "status": "False", "reason": "Saving", "message": sentence,
        "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let body = json!({ "apiVersion": "gastown.gastown.io/v1alpha1", "kind": "Polecat",
        "metadata": { "name": name }, "status": { "conditions": [condition] } });
    let params = PatchParams::apply("gastown-witness-ctl").force();
    fixture.polecats().patch_status(name, &params, &Patch::Apply(&body)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_pod_stays_until_its_work_is_saved_and_states_why() {
    let fixture = impatient(3).await;
    fixture.sling("toast", |_| {}).await;
    let pod = at_work(&fixture, "toast").await;
    fixture.kubelet.readiness(&pod, "git-sync", false).await.unwrap();
    let sentence = "the remote refuses the credentials (401); 2 commits are in the pod only";
    saving(&fixture, "toast", sentence).await;
    fixture.patch("toast", json!({ "spec": { "desiredState": "Terminated" } })).await;
    let reported = fixture
        .wait("toast", "reported why", |s| {
            s.conditions.iter().any(|c| c.reason == "Draining" && c.message.contains(sentence))
        })
        .await;
    assert!(
        reason(&reported, condition::READY).1.starts_with("the pod stays until its work is saved")
    );
    // the margin passes: a later change of the condition shows that it was looked at again
    saving(&fixture, "toast", "still 401").await;
    fixture
        .wait("toast", "reported again", |s| {
            s.conditions.iter().any(|c| c.message.contains("(Terminated): still 401"))
        })
        .await;
    let kept = fixture.pods().get("polecat-toast").await.unwrap();
    assert!(kept.metadata.deletion_timestamp.is_none(), "its work is nowhere else");

    fixture.kubelet.readiness(&pod, "git-sync", true).await.unwrap();
    let dying = wait_pod(&fixture, &pod, |p| p.metadata.deletion_timestamp.is_some()).await;
    assert_eq!(dying.metadata.deletion_grace_period_seconds, Some(60));
    fixture.kubelet.terminate(&pod, &ended(AgentExit::Drained, Some(4))).await.unwrap();
    fixture.kubelet.wait_gone(&pod).await.unwrap();
    let done = fixture.wait_phase("toast", "Terminated").await;
    assert_eq!(reason(&done, condition::READY).1, "terminated; its work is saved");
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ignores_its_deadline_is_drained_from_outside() {
    let fixture = impatient(3).await;
    let short = |spec: &mut gastown_api::PolecatSpec| {
        spec.kubernetes.as_mut().unwrap().active_deadline_seconds = 1;
    };
    fixture.sling("toast", short).await;
    let pod = at_work(&fixture, "toast").await;
    let drained = |p: &Pod| p.annotations().get(annotation::DRAIN).is_some_and(|d| d == "Deadline");
    wait_pod(&fixture, &pod, drained).await;
    fixture.kubelet.finish(&pod, &ended(AgentExit::Drained, Some(1))).await.unwrap();
    let stuck = fixture.wait_reason("toast", condition::DEGRADED, "Deadline").await;
    assert!(reason(&stuck, condition::DEGRADED).1.contains("its work is saved"), "{stuck:?}");
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_work_is_reported_in_conditions_an_event_and_an_escalation() {
    let fixture = Fixture::start(3).await;
    fixture.sling("toast", |_| {}).await;
    let pod = at_work(&fixture, "toast").await;
    drained(&fixture, &pod).await;
    let lost = golden("sync-remote-unreachable");
    let unsaved = lost["unsaved"][0].as_str().unwrap();
    fixture.kubelet.finish(&pod, &ended_with(AgentExit::Drained, &lost)).await.unwrap();
    let reported = fixture.wait_reason("toast", condition::DEGRADED, "WorkLost").await;
    assert!(reason(&reported, condition::DEGRADED).1.contains(unsaved), "{reported:?}");
    let outcome = reported.status.unwrap().outcome.unwrap();
    assert_eq!((outcome.exit.as_str(), outcome.reason.as_str()), ("Drained", "WorkLost"));
    fixture.wait_event("toast", "WorkLost").await;
    let summary = fixture
        .wait_escalation(|open| {
            open.iter().find(|r| r.cause.ends_with("/toast/lost")).map(|r| r.summary.clone())
        })
        .await;
    assert!(summary.contains(unsaved), "{summary}");
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_saved_beside_the_branch_is_in_status_and_in_the_next_prompt() {
    let fixture = Fixture::start(3).await;
    fixture.sling("toast", |_| {}).await;
    let pod = at_work(&fixture, "toast").await;
    let mut record = golden("sync-pushed-with-snapshot");
    record["saved"][0]["commit"] = json!("c".repeat(40));
    record["saved"][0]["skipped"] = json!(2);
    drained(&fixture, &pod).await;
    fixture.kubelet.finish(&pod, &ended_with(AgentExit::Drained, &record)).await.unwrap();
    let idle = fixture.wait("toast", "saved", |s| !s.saved.is_empty()).await;
    let saved = idle.status.unwrap().saved.remove(0);
    assert_eq!(
        (saved.of.as_str(), saved.skipped, saved.commit.len()),
        ("uncommitted files", 2, 40)
    );
    fixture.patch("toast", json!({ "spec": { "desiredState": "Working" } })).await;
    let again = fixture.pod("polecat-toast", &[&pod]).await;
    let prompt = fixture.prompt(&again).await;
    assert!(prompt.contains(&"c".repeat(40)) && prompt.contains("uncommitted files"), "{prompt}");
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_injected_container_holds_neither_the_work_nor_the_slot() {
    let fixture = Fixture::start(1).await;
    fixture.sling("toast", |_| {}).await;
    let pod = at_work(&fixture, "toast").await;
    fixture.sling("second", |_| {}).await;
    fixture.wait_reason("second", condition::ADMITTED, "AtCapacity").await;
    fixture.kubelet.inject(&pod, "istio-proxy").await.unwrap();
    let (run, sync) = crate::outcomes::done_exits(1);
    fixture.kubelet.end_container(&pod, "claude", &run).await.unwrap();
    let dying = wait_pod(&fixture, &pod, |p| p.metadata.deletion_timestamp.is_some()).await;
    assert_eq!(dying.metadata.deletion_grace_period_seconds, Some(60), "its work is saved");
    fixture.kubelet.end_container(&pod, "git-sync", &sync).await.unwrap();
    fixture.wait_phase("toast", "Done").await;
    fixture.pod("polecat-second", &[]).await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_start_gives_its_slot_to_others_and_costs_nothing() {
    let fixture = Fixture::start(1).await;
    fixture
        .sling("typo", |spec| {
            let kubernetes = spec.kubernetes.as_mut().unwrap();
            kubernetes.pod.start_timeout = Some("1s".into());
            kubernetes.pod.image = Some("img:1".into());
        })
        .await;
    let pod = fixture.pod("polecat-typo", &[]).await;
    fixture.kubelet.blocked(&pod, "claude", "ErrImagePull").await.unwrap();
    let dying = wait_pod(&fixture, &pod, |p| p.metadata.deletion_timestamp.is_some()).await;
    fixture.sling("good", |_| {}).await;
    let killed =
        Exit { code: 137, message: String::new(), reason: "ContainerStatusUnknown".into() };
    let outcome = gastown_fakes::kubelet::Outcome::new().with("git-init", killed);
    fixture.kubelet.terminate(&dying, &outcome).await.unwrap();
    let waiting = fixture.wait_reason("typo", condition::ADMITTED, "ImagePullBackOff").await;
    assert_eq!(format!("{:?}", waiting.status.unwrap().phase.unwrap()), "Idle");
    assert_eq!(fixture.ledger("typo").await["respawns"], json!({}));
    fixture.pod("polecat-good", &[]).await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_spec_is_taken_up_at_once() {
    let fixture = Fixture::start(1).await;
    let typo = |spec: &mut gastown_api::PolecatSpec| {
        spec.kubernetes.as_mut().unwrap().pod.image = Some("img:tpyo".into());
    };
    fixture.sling("toast", typo).await;
    let first = fixture.pod("polecat-toast", &[]).await;
    fixture.patch("toast", json!({ "spec": { "kubernetes": { "image": "img:right" } } })).await;
    let second = fixture.pod("polecat-toast", &[&first]).await;
    let image = second.spec.unwrap().containers[0].image.clone();
    assert_eq!(image.as_deref(), Some("img:right"));
    assert_eq!(fixture.ledger("toast").await["respawns"], json!({}));
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_action_leaves_a_condition_with_the_api_servers_sentence() {
    let fixture = Fixture::start(1).await;
    // The controller works before it loses a permission: without it it would not start.
    fixture.sling("other", |spec| spec.desired_state = DesiredState::Idle).await;
    fixture.wait_reason("other", condition::READY, "Idle").await;
    let bindings: Api<RoleBinding> = Api::namespaced(fixture.admin.clone(), &fixture.namespace);
    let name = format!("polecat-ctl-{}", fixture.namespace);
    bindings.delete(&name, &DeleteParams::default()).await.unwrap();
    fixture.sling("toast", |spec| spec.bead_id = Some("web-1".into())).await;
    let reported = fixture.wait_reason("toast", condition::READY, "ActionFailed").await;
    let message = reason(&reported, condition::READY).1;
    assert!(message.contains("claim") && message.contains("forbidden"), "{message}");
    // what does not depend on it is done all the same
    fixture.patch("toast", json!({ "spec": { "desiredState": "Idle" } })).await;
    fixture.wait_reason("toast", condition::READY, "Idle").await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_no_refinery_lands_on_is_found_before_an_agent_starts() {
    let fixture = Fixture::start(1).await;
    let refineries: Api<Refinery> = Api::namespaced(fixture.admin.clone(), &fixture.namespace);
    let lands_on = |name: &str, branch: &str| {
        let plain = RefinerySpec::of_rig(&fixture.rig);
        Refinery::new(name, RefinerySpec { target_branch: branch.into(), ..plain })
    };
    refineries.create(&PostParams::default(), &lands_on("dev", "dev")).await.unwrap();
    let idle = |spec: &mut gastown_api::PolecatSpec| spec.desired_state = DesiredState::Idle;
    fixture.sling("toast", idle).await;
    let wrong = |p: &Polecat| reason(p, condition::READY).0 == "WrongBranch";
    fixture.patch("toast", json!({ "spec": { "desiredState": "Working" } })).await;
    let refused = fixture.wait_reason("toast", condition::READY, "WrongBranch").await;
    assert!(wrong(&refused) && fixture.all_pods().await.is_empty());
    refineries.create(&PostParams::default(), &lands_on("main", "main")).await.unwrap();
    fixture.pod("polecat-toast", &[]).await;
    fixture.close().await;
}
