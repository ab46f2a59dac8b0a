//! What the store holds of a bead decides whose turn it is.

use gastown_api::names::condition;
use gastown_core::report::AgentExit;
use gastown_proto::v1::Bead;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::json;

use crate::fixture::Fixture;
use crate::outcomes::{commit, done, ended};

/// A rig with a store that holds open beads of these ids and priorities.
async fn with_beads(max_polecats: i32, beads: &[(&str, u32)]) -> Fixture {
    let mut fixture = Fixture::new().await;
    fixture.make_rig(max_polecats).await;
    fixture.make_bead_store().await;
    for (id, priority) in beads {
        let id = (*id).to_owned();
        let bead = Bead { id, priority: *priority, status: "open".to_owned(), ..Bead::default() };
        fixture.beads.put(bead).await;
    }
    fixture.start_server().await;
    fixture.start_controller();
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bead_s_priority_decides_for_polecats_without_one_of_their_own() {
    let fixture = with_beads(1, &[("web-1", 3), ("web-2", 0), ("web-3", 0)]).await;
    fixture.sling("first", |spec| spec.expect_changes = false).await;
    let mut pod = fixture.pod("polecat-first", &[]).await;
    // The later ones are the more urgent ones, but for the one that has a priority of its own.
    for (name, bead, own) in
        [("own", "web-3", Some(4)), ("later", "web-1", None), ("sooner", "web-2", None)]
    {
        fixture
            .sling(name, |spec| {
                (spec.bead_id, spec.priority) = (Some(bead.to_owned()), own);
                spec.expect_changes = false;
            })
            .await;
        fixture.wait_reason(name, condition::ADMITTED, "AtCapacity").await;
    }
    let mut seen = vec![pod.uid()];
    for next in ["polecat-sooner", "polecat-later", "polecat-own"] {
        fixture.kubelet.finish(&pod, &ended(AgentExit::Completed, None)).await.unwrap();
        let is_new = |pod: &Pod| !seen.contains(&pod.uid());
        pod = fixture.kubelet.wait_pod(&fixture.namespace, is_new).await.unwrap();
        assert_eq!(pod.name_any(), next);
        seen.push(pod.uid());
    }
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_released_once_the_store_has_closed_the_bead_for_what_landed() {
    // Without a priority of its own the bead has been read before, and not long ago.
    let fixture = with_beads(8, &[("web-1", 2)]).await;
    let sling = |name: &'static str| {
        fixture.sling(name, |spec| {
            (spec.bead_id, spec.priority) = (Some("web-1".to_owned()), None);
        })
    };
    sling("first").await;
    let pod = fixture.pod("polecat-first", &[]).await;
    fixture.kubelet.finish(&pod, &done(1)).await.unwrap();
    fixture.wait_reason("first", condition::SUBMITTED, "Submitted").await;
    sling("second").await;
    fixture.wait_reason("second", condition::CLAIMED, "AlreadyClaimed").await;

    // The store closes the bead for the landing, and a person opens it again.
    let request = fixture.request(&commit(1)).await;
    let bead = Bead {
        id: "web-1".to_owned(),
        priority: 2,
        status: "open".to_owned(),
        closed_for: vec![request.uid().unwrap()],
        ..Bead::default()
    };
    fixture.beads.put(bead).await;
    let landed = json!({ "phase": "Landed", "landedAt": "2026-01-01T00:00:00Z" });
    fixture.request_status(&request.name_any(), landed).await;
    fixture.pod("polecat-second", &[]).await;
    fixture.close().await;
}
