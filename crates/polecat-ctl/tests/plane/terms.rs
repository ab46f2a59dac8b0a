//! Nothing starts on stale knowledge: a lost answer, and a replica whose watches are behind when it
//! gets the lease.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gastown_api::names::condition;
use gastown_core::report::AgentExit;
use kube::ResourceExt as _;
use kube::api::DeleteParams;

use crate::fixture::Fixture;
use crate::is_terminal;
use crate::outcomes::{done, ended};
use crate::wire::Wire;

/// How long a replica that is behind could do harm.
const WINDOW: Duration = Duration::from_secs(3);

async fn live(fixture: &Fixture) -> usize {
    fixture.all_pods().await.iter().filter(|p| !is_terminal(p)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_creation_got_no_answer_keeps_its_slot() {
    let mut fixture = Fixture::new().await;
    fixture.make_rig(1).await;
    fixture.start_server().await;
    for name in ["one", "two"] {
        fixture.sling(name, |spec| spec.expect_changes = false).await;
    }
    let wire = Arc::new(Wire::default());
    wire.lost_answers.store(2, Ordering::SeqCst);
    fixture.start_replica(wire.clone(), None).await;
    for _ in 0..2 {
        let pod = fixture.kubelet.wait_pod(&fixture.namespace, |p| !is_terminal(p)).await.unwrap();
        fixture.kubelet.running(&pod).await.unwrap();
        let name = pod.name_any().trim_start_matches("polecat-").to_owned();
        fixture.wait_reason(&name, condition::READY, "PodRunning").await;
        assert_eq!(live(&fixture).await, 1, "the rig has one slot");
        fixture.kubelet.finish(&pod, &ended(AgentExit::Completed, None)).await.unwrap();
    }
    for name in ["one", "two"] {
        fixture.wait_phase(name, "Done").await;
    }
    assert_eq!(wire.lost.load(Ordering::SeqCst), 2);
    assert_eq!(fixture.all_pods().await.len(), 2, "each ran once");
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_pods_are_behind_admits_nobody_over_the_cap() {
    let mut fixture = Fixture::new().await;
    fixture.make_rig(1).await;
    fixture.start_server().await;
    fixture.hold_lease(true).await;
    let wire = Arc::new(Wire::holding("pods"));
    fixture.start_replica(wire.clone(), Some("behind")).await;
    fixture.start_controller().await;
    fixture.sling("one", |spec| spec.expect_changes = false).await;
    let pod = fixture.pod("polecat-one", &[]).await;
    fixture.kubelet.running(&pod).await.unwrap();
    fixture.wait_reason("one", condition::READY, "PodRunning").await;
    fixture.sling("two", |_| {}).await;
    fixture.wait_reason("two", condition::ADMITTED, "AtCapacity").await;
    fixture.stop_last().await;

    fixture.hold_lease(false).await;
    tokio::time::sleep(WINDOW).await;
    assert_eq!(live(&fixture).await, 1, "it does not know of the first pod yet");
    wire.release();
    fixture.kubelet.finish(&pod, &ended(AgentExit::Completed, None)).await.unwrap();
    fixture.wait_phase("one", "Done").await;
    fixture.pod("polecat-two", &[]).await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_polecats_are_behind_repeats_no_finished_attempt() {
    let mut fixture = Fixture::new().await;
    fixture.start_server().await;
    fixture.hold_lease(true).await;
    fixture.sling("toast", |_| {}).await;
    let wire = Arc::new(Wire::holding("polecats"));
    fixture.start_replica(wire.clone(), Some("behind")).await;
    fixture.start_controller().await;
    fixture.wait_reason("toast", condition::ADMITTED, "RigNotFound").await;
    fixture.make_rig(1).await;
    let pod = fixture.pod("polecat-toast", &[]).await;
    fixture.kubelet.running(&pod).await.unwrap();
    fixture.kubelet.finish(&pod, &done(1)).await.unwrap();
    fixture.wait_reason("toast", condition::SUBMITTED, "Submitted").await;
    fixture.stop_last().await;
    let requests = fixture.requests();
    for request in requests.list(&kube::api::ListParams::default()).await.unwrap() {
        requests.delete(&request.name_any(), &DeleteParams::default()).await.unwrap();
    }
    fixture.pods().delete("polecat-toast", &DeleteParams::default()).await.unwrap();
    fixture.kubelet.wait_gone(&pod).await.unwrap();

    fixture.hold_lease(false).await;
    tokio::time::sleep(WINDOW).await;
    assert!(fixture.all_pods().await.is_empty(), "the attempt is finished");
    wire.release();
    fixture.wait_phase("toast", "Done").await;
    assert!(fixture.all_pods().await.is_empty());
    fixture.close().await;
}
