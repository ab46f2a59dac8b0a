//! Nothing starts on stale knowledge: a lost answer, and a replica whose watches are behind when it
//! takes a shard.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gastown_api::names::condition;
use gastown_core::report::AgentExit;
use gastown_runtime::shards::SHARDS;
use http::Method;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};

use crate::fixture::{Fixture, make_rig};
use crate::is_terminal;
use crate::outcomes::{commit, done, ended};
use crate::wire::Wire;

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
    fixture.start_replica(wire.clone(), None);
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

impl Fixture {
    /// Two replicas: the first works, and a watch of the second is held back once it has
    /// its first list.
    async fn start_ahead_and_behind(&mut self, resource: &'static str) -> Arc<Wire> {
        self.start_replica(Arc::default(), Some("ahead"));
        self.take_over("ahead").await;
        let wire = Arc::new(Wire::holding(resource));
        self.start_replica(wire.clone(), Some("behind"));
        wire.holds().await;
        wire
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_pods_are_behind_admits_nobody_over_the_cap() {
    let mut fixture = Fixture::new().await;
    fixture.make_rig(1).await;
    fixture.start_server().await;
    let wire = fixture.start_ahead_and_behind("pods").await;
    fixture.sling("one", |spec| spec.expect_changes = false).await;
    let pod = fixture.pod("polecat-one", &[]).await;
    fixture.kubelet.running(&pod).await.unwrap();
    fixture.wait_reason("one", condition::READY, "PodRunning").await;
    fixture.sling("two", |_| {}).await;
    fixture.wait_reason("two", condition::ADMITTED, "AtCapacity").await;

    fixture.stop_first().await.cancel();
    fixture.take_over("behind").await;
    // Only one that takes a shard lists the pods again; one that is not behind, or does not care, does it once.
    fixture
        .poll("second look at the pods", || async {
            assert_eq!(live(&fixture).await, 1, "it does not know of the first pod yet");
            (wire.passed(&Method::GET, "/api/v1/pods") > 1).then_some(())
        })
        .await;
    wire.release();
    fixture.kubelet.finish(&pod, &ended(AgentExit::Completed, None)).await.unwrap();
    fixture.wait_phase("one", "Done").await;
    let second = fixture.pod("polecat-two", &[]).await;
    assert_eq!(fixture.all_pods().await.len(), 2, "the first ran once");
    fixture.kubelet.finish(&second, &done(1)).await.unwrap();
    fixture.wait_reason("two", condition::SUBMITTED, "Submitted").await;
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_polecats_are_behind_repeats_no_finished_attempt() {
    let mut fixture = Fixture::new().await;
    fixture.start_server().await;
    fixture.sling("toast", |_| {}).await;
    fixture.start_replica(Arc::default(), Some("first"));
    fixture.take_over("first").await;
    fixture.wait_reason("toast", condition::ADMITTED, "RigNotFound").await;
    fixture.stop_first().await.cancel();
    // What the second one lists is a Polecat that only its missing rig keeps from starting.
    let wire = fixture.start_ahead_and_behind("polecats").await;
    fixture.make_rig(1).await;
    let pod = fixture.pod("polecat-toast", &[]).await;
    fixture.kubelet.running(&pod).await.unwrap();
    fixture.kubelet.finish(&pod, &done(1)).await.unwrap();
    fixture.wait_reason("toast", condition::SUBMITTED, "Submitted").await;
    let lease = fixture.stop_first().await;
    let requests = fixture.requests();
    let made = fixture.request(&commit(1)).await;
    requests.delete(&made.name_any(), &DeleteParams::default()).await.unwrap();
    fixture.pods().delete("polecat-toast", &DeleteParams::default()).await.unwrap();
    fixture.kubelet.wait_gone(&pod).await.unwrap();

    lease.cancel();
    fixture.take_over("behind").await;
    // It submits what the ledger shows, which the held watch has not shown it.
    let toast = format!(
        "/apis/gastown.gastown.io/v1alpha1/namespaces/{}/polecats/toast",
        fixture.namespace
    );
    let again = fixture
        .poll("submission by the replica that is behind", || async {
            assert!(fixture.all_pods().await.is_empty(), "the attempt is finished");
            let found = requests.list(&ListParams::default()).await.unwrap().items;
            (wire.passed(&Method::GET, &toast) > 0).then(|| found.into_iter().next()).flatten()
        })
        .await;
    assert_eq!((again.spec.commit, again.spec.attempt), (commit(1), 1));
    wire.release();
    fixture.wait_phase("toast", "Done").await;
    assert!(fixture.all_pods().await.is_empty());
    fixture.close().await;
}

/// How many rigs are divided, each with one Polecat.
const RIGS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn replicas_divide_the_rigs_and_each_is_worked_for_by_one() {
    let mut fixture = Fixture::new().await;
    fixture.start_server().await;
    let names = ["a", "b", "c"];
    let wires = names.map(|_| Arc::new(Wire::counting()));
    for (name, wire) in names.iter().zip(&wires) {
        fixture.start_replica(wire.clone(), Some(name));
        fixture.take_over(name).await;
    }
    fixture.shares(SHARDS / 3 + 1).await;
    for rig in 0..RIGS {
        make_rig(&fixture.admin, &fixture.rig_of(rig), 1).await;
        let rig_name = fixture.rig_of(rig);
        fixture.sling(&format!("p{rig}"), |spec| spec.rig = rig_name).await;
    }
    for rig in 0..RIGS {
        fixture.pod(&format!("polecat-p{rig}"), &[]).await;
    }
    let made = |wire: &Arc<Wire>| wire.creations().into_iter().collect::<Vec<_>>();
    let each: Vec<Vec<String>> = wires.iter().map(made).collect();
    let counts: Vec<usize> = each.iter().map(Vec::len).collect();
    assert_eq!(counts.iter().sum::<usize>(), RIGS, "each pod was asked for once: {each:?}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");

    // The rigs of one that ends are the others': what it has begun goes on there.
    fixture.stop_first().await.cancel();
    fixture.shares(SHARDS / 2).await;
    for rig in 0..RIGS {
        let pod = fixture.pod(&format!("polecat-p{rig}"), &[]).await;
        fixture.kubelet.running(&pod).await.unwrap();
        fixture.kubelet.finish(&pod, &done(1)).await.unwrap();
    }
    for rig in 0..RIGS {
        fixture.wait_reason(&format!("p{rig}"), condition::SUBMITTED, "Submitted").await;
    }
    assert_eq!(fixture.all_pods().await.len(), RIGS, "each ran once");
    fixture.close().await;
}
