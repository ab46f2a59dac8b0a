//! polecat-ctl on a real control plane.

// A test that fails says where: helpers may panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod alarms;
mod beads;
mod claims;
mod fight;
mod stage;

use std::collections::BTreeSet;
use std::time::Duration;

use gastown_api::names::{annotation, condition, finalizer};
use gastown_api::{Polecat, conditions};
use gastown_core::report::{AgentExit, InitResult};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::json;

use stage::{Stage, commit, done, ended, init_failed};

fn reason(polecat: &Polecat, kind: &str) -> (String, String) {
    let status = polecat.status.as_ref().unwrap();
    conditions::find(&status.conditions, kind)
        .map(|c| (c.reason.clone(), c.message.clone()))
        .unwrap()
}

fn is_terminal(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_polecats_on_a_rig_of_three_never_have_more_than_three_pods() {
    let stage = Stage::open(3).await;
    for i in 0..20 {
        stage.sling(&format!("cat-{i:02}"), |spec| spec.expect_changes = false).await;
    }
    let mut finished = BTreeSet::new();
    let mut most = 0;
    while finished.len() < 20 {
        let pod = stage.kubelet.wait_pod(&stage.namespace, |p| !is_terminal(p)).await.unwrap();
        let live = stage.all_pods().await.iter().filter(|p| !is_terminal(p)).count();
        most = most.max(live);
        assert!(live <= 3, "{live} live pods");
        stage.kubelet.running(&pod).await.unwrap();
        stage.kubelet.finish(&pod, &ended(AgentExit::Completed, None)).await.unwrap();
        assert!(finished.insert(pod.uid().unwrap()), "no pod is seen twice");
    }
    for i in 0..20 {
        stage.wait_phase(&format!("cat-{i:02}"), "Done").await;
    }
    assert!(most > 1, "the rig's slots were used");
    assert_eq!(stage.all_pods().await.len(), 20);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_says_for_what_and_goes_on_when_it_comes() {
    let mut stage = Stage::set().await;
    stage.start_controller().await;
    stage.sling("toast", |_| {}).await;
    let waiting = stage.wait_reason("toast", condition::ADMITTED, "RigNotFound").await;
    assert_eq!(format!("{:?}", waiting.status.unwrap().phase.unwrap()), "Idle");
    assert!(stage.all_pods().await.is_empty());

    stage.make_rig(1).await;
    let pod = stage.pod("polecat-toast", &[]).await;
    assert_eq!(pod.finalizers(), [finalizer::OUTCOME]);
    let working = stage.wait_phase("toast", "Working").await;
    assert_eq!(reason(&working, condition::READY).0, "PodPending");

    stage.sling("second", |_| {}).await;
    let queued = stage.wait_reason("second", condition::ADMITTED, "AtCapacity").await;
    assert_eq!(
        reason(&queued, condition::ADMITTED).1,
        format!("1 of 1 polecats of rig {}, position 1", stage.rig)
    );
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_from_pod_to_landed_costs_few_writes_and_survives_the_loss_of_every_status() {
    let mut stage = Stage::open(3).await;
    stage.sling("toast", |spec| spec.bead_id = Some("web-1".into())).await;
    let pod = stage.pod("polecat-toast", &[]).await;
    let volumes = &pod.spec.as_ref().unwrap().volumes;
    assert!(
        volumes.iter().flatten().any(|v| v.name == "token" && v.projected.is_some()),
        "the witness could not know its sidecar"
    );
    stage.kubelet.running(&pod).await.unwrap();
    stage.wait_reason("toast", condition::READY, "PodRunning").await;
    stage.kubelet.finish(&pod, &done(1)).await.unwrap();
    let finished = stage.wait_reason("toast", condition::SUBMITTED, "Submitted").await;
    let status = finished.status.as_ref().unwrap();
    assert_eq!(format!("{:?}", status.phase.unwrap()), "Done");
    assert_eq!(status.branch.as_deref(), Some("feature/web-1"));
    assert_eq!(status.commit.as_deref(), Some(commit(1).as_str()));
    assert_eq!((status.attempts, status.agent_model.as_deref()), (Some(1), Some("claude-test")));
    assert_eq!(finished.labels()["gastown.io/bead"], "web-1");
    let request = stage.request(&commit(1)).await;
    assert_eq!(status.merge_request.as_deref(), Some(request.name_any().as_str()));
    assert!(
        stage.pods().get("polecat-toast").await.unwrap().finalizers().is_empty(),
        "the pod is let go once it is accounted for"
    );
    stage
        .request_status(
            &request.name_any(),
            json!({ "phase": "Landed", "landedAt": "2026-01-01T00:00:00Z" }),
        )
        .await;
    wait_landed(&stage, "toast").await;

    let writes = stage.writes(&["polecats", "polecats/status", "pods"]);
    println!("writes to the Polecat and its pod in a life: {writes}");
    assert!((5..=8).contains(&writes), "{writes} writes: {}", stage.metrics.encode().unwrap());

    stage.sling("nux", |_| {}).await;
    let working = stage.pod("polecat-nux", &[]).await;
    stage.kubelet.running(&working).await.unwrap();
    stage.wait_reason("nux", condition::READY, "PodRunning").await;
    let before: BTreeSet<_> =
        stage.all_pods().await.iter().filter_map(kube::ResourceExt::uid).collect();

    stage.stop_controller().await;
    stage.erase_status("toast").await;
    stage.erase_status("nux").await;
    stage.start_controller().await;
    stage.wait_phase("toast", "Done").await;
    stage.wait_phase("nux", "Working").await;

    // the pod of finished work may go; the work stays finished
    stage.pods().delete("polecat-toast", &DeleteParams::default()).await.unwrap();
    stage.requests().delete(&request.name_any(), &DeleteParams::default()).await.unwrap();
    stage.erase_status("toast").await;
    stage.wait_phase("toast", "Done").await;
    stage.kubelet.finish(&working, &ended(AgentExit::Completed, None)).await.unwrap();
    stage.wait_reason("nux", condition::DEGRADED, "NoChanges").await;
    let after: BTreeSet<_> =
        stage.all_pods().await.iter().filter_map(kube::ResourceExt::uid).collect();
    assert!(after.is_subset(&before), "no pod started again");
    assert!(
        stage.requests().list(&kube::api::ListParams::default()).await.unwrap().items.is_empty(),
        "nothing is submitted twice"
    );
    stage.close().await;
}

async fn wait_landed(stage: &Stage, name: &str) {
    let api = stage.polecats();
    let landed = |p: Option<&Polecat>| {
        p.is_some_and(|p| {
            p.annotations().get(annotation::LEDGER).is_some_and(|l| l.contains("landed"))
        })
    };
    let waiting = kube::runtime::wait::await_condition(api, name, landed);
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("the landing is noted")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_and_deleted_polecats_drain_before_their_pods_go() {
    let stage = Stage::open(3).await;
    for name in ["one", "two"] {
        stage.sling(name, |_| {}).await;
        let pod = stage.pod(&format!("polecat-{name}"), &[]).await;
        stage.kubelet.running(&pod).await.unwrap();
        stage.wait_reason(name, condition::READY, "PodRunning").await;
    }
    stage.patch("one", json!({ "spec": { "desiredState": "Terminated" } })).await;
    stage.polecats().delete("two", &DeleteParams::default()).await.unwrap();
    for (name, why) in [("one", "Terminated"), ("two", "Deleted")] {
        let asked = |p: &Pod| {
            p.name_any() == format!("polecat-{name}")
                && p.annotations().get(annotation::DRAIN).is_some_and(|d| d == why)
        };
        let pod = stage.kubelet.wait_pod(&stage.namespace, asked).await.unwrap();
        assert!(pod.metadata.deletion_timestamp.is_none(), "asked, not killed");
        stage.kubelet.finish(&pod, &ended(AgentExit::Drained, Some(7))).await.unwrap();
        stage.kubelet.wait_gone(&pod).await.unwrap();
    }
    let one = stage.wait_phase("one", "Terminated").await;
    assert_eq!(one.status.unwrap().commit, Some(commit(7)), "what was saved is known");
    let gone =
        kube::runtime::wait::await_condition(stage.polecats(), "two", |p: Option<&Polecat>| {
            p.is_none()
        });
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the finalizer goes").unwrap();

    stage.patch("one", json!({ "spec": { "desiredState": "Working" } })).await;
    let again = stage.pod("polecat-one", &[]).await;
    let resume = again.spec.unwrap().init_containers.unwrap()[0].env.clone().unwrap();
    assert!(
        resume.iter().any(|e| e.name == "GASTOWN_RESUME" && e.value.as_deref() == Some("true")),
        "the branch is ours"
    );
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_shown_and_costs_nothing() {
    let stage = Stage::open(3).await;
    stage.sling("toast", |_| {}).await;
    let first = stage.pod("polecat-toast", &[]).await;
    let text = "secret git-creds has no key ssh-privatekey";
    stage.kubelet.finish(&first, &init_failed(InitResult::SecretNotFound, text)).await.unwrap();
    let waiting = stage.wait_reason("toast", condition::READY, "SecretNotFound").await;
    assert_eq!(reason(&waiting, condition::READY).1, text);
    assert_eq!(format!("{:?}", waiting.status.unwrap().phase.unwrap()), "Idle");

    let second = stage.pod("polecat-toast", &[&first]).await;
    stage.kubelet.finish(&second, &done(1)).await.unwrap();
    let finished = stage.wait_phase("toast", "Done").await;
    assert_eq!(finished.status.unwrap().attempts, Some(1));
    let ledger = stage.ledger("toast").await;
    assert_eq!(ledger["respawns"], json!({}));
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_back_starts_the_next_attempt_with_the_evidence() {
    let stage = Stage::open(3).await;
    let polecat = stage.sling("toast", |_| {}).await;
    let first = stage.pod("polecat-toast", &[]).await;
    stage.kubelet.finish(&first, &done(1)).await.unwrap();
    let request = stage.request(&commit(1)).await;
    let attempts = json!([{ "number": 1, "result": "Red", "reason": "GateFailed", "evidence": "E  assert 1 == 2\n```" }]);
    stage
        .request_status(
            &request.name_any(),
            json!({ "phase": "Rework", "reason": "GateFailed", "attempts": attempts }),
        )
        .await;

    let second = stage.pod(&format!("polecat-toast-{}-2", &polecat.uid().unwrap()[..5]), &[]).await;
    let prompt = stage.prompt(&second).await;
    assert!(
        prompt.contains("E  assert 1 == 2")
            && prompt.contains("GateFailed")
            && prompt.contains("````text"),
        "{prompt}"
    );
    let working = stage.wait_phase("toast", "Working").await;
    assert_eq!(working.status.unwrap().attempts, Some(2));
    stage.kubelet.finish(&second, &done(2)).await.unwrap();
    let successor = stage.request(&commit(2)).await;
    assert_eq!(successor.spec.previous, Some(request.name_any()));
    assert_eq!(successor.spec.attempt, 2);

    // a rework that commits nothing new needs a person
    stage
        .request_status(&successor.name_any(), json!({ "phase": "Rework", "reason": "Conflict" }))
        .await;
    let third = stage.pod(&format!("polecat-toast-{}-3", &polecat.uid().unwrap()[..5]), &[]).await;
    stage.kubelet.finish(&third, &done(2)).await.unwrap();
    stage.wait_reason("toast", condition::DEGRADED, "NoChanges").await;
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_that_finds_no_server_is_made_when_there_is_one() {
    let mut stage = Stage::set().await;
    stage.make_rig(3).await;
    stage.start_controller().await;
    stage.sling("toast", |_| {}).await;
    let pod = stage.pod("polecat-toast", &[]).await;
    stage.kubelet.finish(&pod, &done(1)).await.unwrap();
    let waiting = stage.wait_reason("toast", condition::SUBMITTED, "RefineryUnreachable").await;
    assert_eq!(format!("{:?}", waiting.status.unwrap().phase.unwrap()), "Done");
    stage.start_server().await;
    stage.wait_reason("toast", condition::SUBMITTED, "Submitted").await;
    assert_eq!(
        stage.requests().list(&kube::api::ListParams::default()).await.unwrap().items.len(),
        1
    );

    stage
        .sling("stray", |spec| {
            spec.kubernetes.as_mut().unwrap().work_branch = Some("feature/unserved".into())
        })
        .await;
    let pod = stage.pod("polecat-stray", &[]).await;
    stage.kubelet.finish(&pod, &done(2)).await.unwrap();
    let refused = stage.wait_reason("stray", condition::SUBMITTED, "NoRefinery").await;
    assert_eq!(reason(&refused, condition::SUBMITTED).1, "no Refinery serves main");
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_agent_is_started_again_on_its_branch_and_the_pod_of_a_lost_polecat_is_let_go() {
    let mut stage = Stage::open(3).await;
    stage.sling("toast", |_| {}).await;
    let first = stage.pod("polecat-toast", &[]).await;
    stage.kubelet.running(&first).await.unwrap();
    stage.kubelet.evict(&first).await.unwrap();
    let waiting = stage.wait_reason("toast", condition::READY, "BackOff").await;
    assert!(reason(&waiting, condition::READY).1.contains("Evicted"), "{waiting:?}");
    assert_eq!(stage.ledger("toast").await["respawns"], json!({ "infrastructure": 1 }));

    // somebody takes the Polecat away, finalizer and all
    stage.sling("nux", |_| {}).await;
    let pod = stage.pod("polecat-nux", &[]).await;
    stage.kubelet.running(&pod).await.unwrap();
    stage.stop_controller().await;
    stage.patch("nux", json!({ "metadata": { "finalizers": null } })).await;
    stage.polecats().delete("nux", &DeleteParams::default()).await.unwrap();
    stage.start_controller().await;
    let dying = |p: &Pod| p.name_any() == "polecat-nux" && p.metadata.deletion_timestamp.is_some();
    let pod = stage.kubelet.wait_pod(&stage.namespace, dying).await.unwrap();
    stage.kubelet.terminate(&pod, &ended(AgentExit::Drained, Some(3))).await.unwrap();
    stage.kubelet.wait_gone(&pod).await.unwrap();
    stage.close().await;
}
