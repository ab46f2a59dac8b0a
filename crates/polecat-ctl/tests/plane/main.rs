//! polecat-ctl on a real control plane.

// Helpers may panic as tests do: a panic names the place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bead_view;
mod beads;
mod claims;
mod contention;
mod definitions;
mod escalations;
mod fixture;
mod keeping;
mod kills;
mod life;
mod network;
mod outcomes;
mod refinery;
mod replica;
mod terms;
mod trace;
mod wire;

use std::collections::BTreeSet;
use std::time::Duration;

use gastown_api::names::{annotation, condition, finalizer};
use gastown_api::{Polecat, conditions};
use gastown_core::report::AgentExit;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::json;

use fixture::Fixture;
use outcomes::{commit, done, ended, golden, init_failed};

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
    let fixture = Fixture::start(3).await;
    for i in 0..20 {
        fixture.sling(&format!("cat-{i:02}"), |spec| spec.expect_changes = false).await;
    }
    let mut finished = BTreeSet::new();
    let mut most = 0;
    while finished.len() < 20 {
        let pod = fixture.kubelet.wait_pod(&fixture.namespace, |p| !is_terminal(p)).await.unwrap();
        let live = fixture.all_pods().await.iter().filter(|p| !is_terminal(p)).count();
        most = most.max(live);
        assert!(live <= 3, "{live} live pods");
        fixture.kubelet.running(&pod).await.unwrap();
        fixture.kubelet.finish(&pod, &ended(AgentExit::Completed, None)).await.unwrap();
        assert!(finished.insert(pod.uid().unwrap()), "no pod is seen twice");
    }
    for i in 0..20 {
        fixture.wait_phase(&format!("cat-{i:02}"), "Done").await;
    }
    assert!(most > 1, "the rig's slots were used");
    assert_eq!(fixture.all_pods().await.len(), 20);
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_polecat_shows_what_it_waits_for_and_continues_when_it_exists() {
    let mut fixture = Fixture::new().await;
    fixture.start_controller();
    fixture.sling("toast", |_| {}).await;
    let waiting = fixture.wait_reason("toast", condition::ADMITTED, "RigNotFound").await;
    assert_eq!(format!("{:?}", waiting.status.unwrap().phase.unwrap()), "Idle");
    assert!(fixture.all_pods().await.is_empty());

    fixture.make_rig(1).await;
    let pod = fixture.pod("polecat-toast", &[]).await;
    assert_eq!(pod.finalizers(), [finalizer::OUTCOME]);
    let working = fixture.wait_phase("toast", "Working").await;
    assert_eq!(reason(&working, condition::READY).0, "PodPending");

    fixture.sling("second", |_| {}).await;
    let queued = fixture.wait_reason("second", condition::ADMITTED, "AtCapacity").await;
    assert_eq!(
        reason(&queued, condition::ADMITTED).1,
        format!("1 of 1 polecats of rig {}, position 1", fixture.rig)
    );
    fixture.close().await;
}

/// The page of metrics after one attempt that is done.
fn is_counted(fixture: &Fixture, trace: &str) {
    let text = fixture.metrics.encode().unwrap();
    let page = gastown_metrics::page::read(&text).unwrap();
    assert_eq!(page.differences("polecat-ctl"), [""; 0], "{text}");
    let value = |series: &str, labels: &[(&str, &str)]| {
        let labels = [&[("rig", fixture.rig.as_str())], labels].concat();
        page.value(series, &labels)
    };
    let attempts = &page.families["gastown_polecat_attempts"].samples;
    let ends: Vec<_> = attempts.iter().map(|s| (s.labels["end"].as_str(), s.value)).collect();
    assert_eq!(ends, [("Done", 1.0)]);
    for wait in ["claim", "slot"] {
        assert_eq!(value(&format!("gastown_polecat_{wait}_wait_seconds_count"), &[]), Some(1.0));
    }
    assert_eq!(value("gastown_polecats", &[("phase", "Done")]), Some(1.0));
    assert_eq!(value("gastown_polecat_slots", &[]), Some(3.0));
    assert_eq!(value("gastown_polecat_slots_used", &[]), Some(0.0));
    assert!(text.contains(&format!("# {{trace_id=\"{trace}\"}}")), "the life leads to its trace");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_from_pod_to_landed_costs_few_writes_and_survives_the_loss_of_every_status() {
    let mut fixture = Fixture::start(3).await;
    fixture.sling("toast", |spec| spec.bead_id = Some("web-1".into())).await;
    let pod = fixture.pod("polecat-toast", &[]).await;
    let volumes = &pod.spec.as_ref().unwrap().volumes;
    assert!(
        volumes.iter().flatten().any(|v| v.name == "token" && v.projected.is_some()),
        "witness-ctl could not know its sidecar"
    );
    fixture.kubelet.running(&pod).await.unwrap();
    fixture.wait_reason("toast", condition::READY, "PodRunning").await;
    fixture.kubelet.finish(&pod, &done(1)).await.unwrap();
    let finished = fixture.wait_reason("toast", condition::SUBMITTED, "Submitted").await;
    let status = finished.status.as_ref().unwrap();
    assert_eq!(format!("{:?}", status.phase.unwrap()), "Done");
    assert_eq!(status.branch.as_deref(), Some("feature/web-1"));
    assert_eq!(status.commit.as_deref(), Some(commit(1).as_str()));
    let model = golden("run-claude-completed")["model"].as_str().map(str::to_owned);
    assert_eq!((status.attempts, &status.agent_model), (Some(1), &model));
    assert_eq!(finished.labels()["gastown.io/bead"], "web-1");
    let request = fixture.request(&commit(1)).await;
    assert_eq!(status.merge_request.as_deref(), Some(request.name_any().as_str()));
    assert!(
        fixture.pods().get("polecat-toast").await.unwrap().finalizers().is_empty(),
        "the pod's finalizer is removed once it is accounted for"
    );
    fixture
        .request_status(
            &request.name_any(),
            json!({ "phase": "Landed", "landedAt": "2026-01-01T00:00:00Z" }),
        )
        .await;
    wait_landed(&fixture, "toast").await;

    let writes = fixture.writes(&["polecats", "polecats/status", "pods"]);
    println!("writes to the Polecat and its pod: {writes}");
    assert!((5..=8).contains(&writes), "{writes} writes: {}", fixture.metrics.encode().unwrap());
    is_counted(&fixture, finished.status.as_ref().unwrap().trace_id.as_deref().unwrap());

    fixture.sling("nux", |_| {}).await;
    let working = fixture.pod("polecat-nux", &[]).await;
    fixture.kubelet.running(&working).await.unwrap();
    fixture.wait_reason("nux", condition::READY, "PodRunning").await;
    let before: BTreeSet<_> =
        fixture.all_pods().await.iter().filter_map(kube::ResourceExt::uid).collect();

    fixture.stop_controller().await;
    fixture.erase_status("toast").await;
    fixture.erase_status("nux").await;
    fixture.start_controller();
    fixture.wait_phase("toast", "Done").await;
    fixture.wait_phase("nux", "Working").await;

    // finished work stays finished without its pod
    fixture.pods().delete("polecat-toast", &DeleteParams::default()).await.unwrap();
    fixture.requests().delete(&request.name_any(), &DeleteParams::default()).await.unwrap();
    fixture.erase_status("toast").await;
    fixture.wait_phase("toast", "Done").await;
    fixture.kubelet.finish(&working, &ended(AgentExit::Completed, None)).await.unwrap();
    fixture.wait_reason("nux", condition::DEGRADED, "NoChanges").await;
    let after: BTreeSet<_> =
        fixture.all_pods().await.iter().filter_map(kube::ResourceExt::uid).collect();
    assert!(after.is_subset(&before), "no pod started again");
    assert!(
        fixture.requests().list(&kube::api::ListParams::default()).await.unwrap().items.is_empty(),
        "nothing is submitted twice"
    );
    fixture.close().await;
}

async fn wait_landed(fixture: &Fixture, name: &str) {
    let api = fixture.polecats();
    let landed = |p: Option<&Polecat>| {
        p.is_some_and(|p| {
            p.annotations().get(annotation::LEDGER).is_some_and(|l| l.contains("landed"))
        })
    };
    let waiting = kube::runtime::wait::await_condition(api, name, landed);
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("the landing is in the ledger")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_and_deleted_polecats_drain_before_their_pods_go() {
    let fixture = Fixture::start(3).await;
    for name in ["one", "two"] {
        fixture.sling(name, |_| {}).await;
        let pod = fixture.pod(&format!("polecat-{name}"), &[]).await;
        fixture.kubelet.running(&pod).await.unwrap();
        fixture.wait_reason(name, condition::READY, "PodRunning").await;
    }
    fixture.patch("one", json!({ "spec": { "desiredState": "Terminated" } })).await;
    fixture.polecats().delete("two", &DeleteParams::default()).await.unwrap();
    for (name, why) in [("one", "Terminated"), ("two", "Deleted")] {
        let asked = |p: &Pod| {
            p.name_any() == format!("polecat-{name}")
                && p.annotations().get(annotation::DRAIN).is_some_and(|d| d == why)
        };
        let pod = fixture.kubelet.wait_pod(&fixture.namespace, asked).await.unwrap();
        assert!(pod.metadata.deletion_timestamp.is_none(), "drained, not killed");
        fixture.kubelet.finish(&pod, &ended(AgentExit::Drained, Some(7))).await.unwrap();
        fixture.kubelet.wait_gone(&pod).await.unwrap();
    }
    let one = fixture.wait_phase("one", "Terminated").await;
    assert_eq!(one.status.unwrap().commit, Some(commit(7)), "what was saved is known");
    let gone =
        kube::runtime::wait::await_condition(fixture.polecats(), "two", |p: Option<&Polecat>| {
            p.is_none()
        });
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .expect("the finalizer is removed")
        .unwrap();

    fixture.patch("one", json!({ "spec": { "desiredState": "Working" } })).await;
    let again = fixture.pod("polecat-one", &[]).await;
    let resume = again.spec.unwrap().init_containers.unwrap()[0].env.clone().unwrap();
    assert!(
        resume.iter().any(|e| e.name == "GASTOWN_RESUME" && e.value.as_deref() == Some("true")),
        "the branch is ours"
    );
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_shown_and_costs_nothing() {
    let fixture = Fixture::start(3).await;
    fixture.sling("toast", |_| {}).await;
    let first = fixture.pod("polecat-toast", &[]).await;
    let text = "secret git-creds has no key ssh-privatekey";
    fixture.kubelet.finish(&first, &init_failed("init-secret-not-found")).await.unwrap();
    let waiting = fixture.wait_reason("toast", condition::READY, "SecretNotFound").await;
    assert_eq!(reason(&waiting, condition::READY).1, text);
    assert_eq!(format!("{:?}", waiting.status.unwrap().phase.unwrap()), "Idle");

    let second = fixture.pod("polecat-toast", &[&first]).await;
    fixture.kubelet.finish(&second, &done(1)).await.unwrap();
    let finished = fixture.wait_phase("toast", "Done").await;
    assert_eq!(finished.status.unwrap().attempts, Some(1));
    let ledger = fixture.ledger("toast").await;
    assert_eq!(ledger["respawns"], json!({}));
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_back_starts_the_next_attempt_with_the_evidence() {
    let fixture = Fixture::start(3).await;
    let polecat = fixture.sling("toast", |_| {}).await;
    let first = fixture.pod("polecat-toast", &[]).await;
    fixture.kubelet.finish(&first, &done(1)).await.unwrap();
    let request = fixture.request(&commit(1)).await;
    let attempts = json!([{ "number": 1, "result": "Red", "reason": "GateFailed", "evidence": "E  assert 1 == 2\n```" }]);
    fixture
        .request_status(
            &request.name_any(),
            json!({ "phase": "Rework", "reason": "GateFailed", "attempts": attempts }),
        )
        .await;

    let second =
        fixture.pod(&format!("polecat-toast-{}-2", &polecat.uid().unwrap()[..5]), &[]).await;
    let prompt = fixture.prompt(&second).await;
    assert!(
        prompt.contains("E  assert 1 == 2")
            && prompt.contains("GateFailed")
            && prompt.contains("````text"),
        "{prompt}"
    );
    let working = fixture.wait_phase("toast", "Working").await;
    assert_eq!(working.status.unwrap().attempts, Some(2));
    fixture.kubelet.finish(&second, &done(2)).await.unwrap();
    let successor = fixture.request(&commit(2)).await;
    assert_eq!(successor.spec.previous, Some(request.name_any()));
    assert_eq!(successor.spec.attempt, 2);

    // a rework that commits nothing new needs a person
    fixture
        .request_status(&successor.name_any(), json!({ "phase": "Rework", "reason": "Conflict" }))
        .await;
    let third =
        fixture.pod(&format!("polecat-toast-{}-3", &polecat.uid().unwrap()[..5]), &[]).await;
    fixture.kubelet.finish(&third, &done(2)).await.unwrap();
    fixture.wait_reason("toast", condition::DEGRADED, "NoChanges").await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_that_finds_no_server_is_made_when_there_is_one() {
    let mut fixture = Fixture::new().await;
    fixture.make_rig(3).await;
    fixture.start_controller();
    fixture.sling("toast", |_| {}).await;
    let pod = fixture.pod("polecat-toast", &[]).await;
    fixture.kubelet.finish(&pod, &done(1)).await.unwrap();
    let waiting = fixture.wait_reason("toast", condition::SUBMITTED, "RefineryUnreachable").await;
    assert_eq!(format!("{:?}", waiting.status.unwrap().phase.unwrap()), "Done");
    fixture.start_server().await;
    fixture.wait_reason("toast", condition::SUBMITTED, "Submitted").await;
    assert_eq!(
        fixture.requests().list(&kube::api::ListParams::default()).await.unwrap().items.len(),
        1
    );

    fixture
        .sling("stray", |spec| {
            spec.kubernetes.as_mut().unwrap().work_branch = Some("feature/unserved".into());
        })
        .await;
    let pod = fixture.pod("polecat-stray", &[]).await;
    fixture.kubelet.finish(&pod, &done(2)).await.unwrap();
    let refused = fixture.wait_reason("stray", condition::SUBMITTED, "NoRefinery").await;
    assert_eq!(reason(&refused, condition::SUBMITTED).1, "no Refinery serves main");
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_agent_is_started_again_and_the_pod_of_a_lost_polecat_loses_its_finalizer() {
    let mut fixture = Fixture::start(3).await;
    fixture.sling("toast", |_| {}).await;
    let first = fixture.pod("polecat-toast", &[]).await;
    fixture.kubelet.running(&first).await.unwrap();
    fixture.kubelet.evict(&first).await.unwrap();
    let waiting = fixture.wait_reason("toast", condition::READY, "BackOff").await;
    assert!(reason(&waiting, condition::READY).1.contains("Evicted"), "{waiting:?}");
    assert_eq!(fixture.ledger("toast").await["respawns"], json!({ "infrastructure": 1 }));

    // somebody removes the Polecat's finalizer and deletes it
    fixture.sling("nux", |_| {}).await;
    let pod = fixture.pod("polecat-nux", &[]).await;
    fixture.kubelet.running(&pod).await.unwrap();
    fixture.stop_controller().await;
    fixture.patch("nux", json!({ "metadata": { "finalizers": null } })).await;
    fixture.polecats().delete("nux", &DeleteParams::default()).await.unwrap();
    fixture.start_controller();
    let dying = |p: &Pod| p.name_any() == "polecat-nux" && p.metadata.deletion_timestamp.is_some();
    let pod = fixture.kubelet.wait_pod(&fixture.namespace, dying).await.unwrap();
    fixture.kubelet.terminate(&pod, &ended(AgentExit::Drained, Some(3))).await.unwrap();
    fixture.kubelet.wait_gone(&pod).await.unwrap();
    fixture.close().await;
}
