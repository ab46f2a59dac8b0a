//! What the store holds of a bead decides whose turn it is, and when the claim is released.

use gastown_api::MergeRequest;
use gastown_api::names::condition;
use gastown_core::polecat::claim_name;
use gastown_core::report::AgentExit;
use gastown_proto::v1::Bead;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
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

impl Fixture {
    /// Has a Polecat's work on a bead submitted, as the commit of this number.
    async fn submit(&self, name: &str, bead: &str, number: u32) -> MergeRequest {
        self.sling(name, |spec| spec.bead_id = Some(bead.to_owned())).await;
        let pod = self.pod(&format!("polecat-{name}"), &[]).await;
        self.kubelet.finish(&pod, &done(number)).await.unwrap();
        self.wait_reason(name, condition::SUBMITTED, "Submitted").await;
        self.request(&commit(number)).await
    }

    async fn close_bead(&self, id: &str, for_request: String) {
        let bead = Bead {
            id: id.to_owned(),
            status: "closed".to_owned(),
            closed_for: vec![for_request],
            ..Bead::default()
        };
        self.beads.put(bead).await;
    }

    async fn claim_on(&self, bead: &str) -> Option<Lease> {
        let leases: Api<Lease> = Api::namespaced(self.admin.clone(), &self.namespace);
        leases.get_opt(&claim_name(&self.rig, bead)).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_released_when_the_store_closed_the_bead_for_what_landed() {
    let fixture = with_beads(8, &[("web-1", 2), ("web-2", 2)]).await;
    let first = fixture.submit("first", "web-1", 1).await;
    let second = fixture.submit("second", "web-2", 2).await;
    fixture.close_bead("web-1", first.uid().unwrap()).await;
    // This one was closed for earlier work: what lands now is still to be written into the store.
    fixture.close_bead("web-2", "an-earlier-request".to_owned()).await;
    assert!(fixture.claim_on("web-1").await.is_some(), "nothing has landed yet");
    for request in [&second, &first] {
        let landed = json!({ "phase": "Landed", "landedAt": "2026-01-01T00:00:00Z" });
        fixture.request_status(&request.name_any(), landed).await;
    }
    fixture
        .poll("release", || async { fixture.claim_on("web-1").await.is_none().then_some(()) })
        .await;
    for name in ["first", "second"] {
        crate::wait_landed(&fixture, name).await;
    }
    assert!(fixture.claim_on("web-2").await.is_some(), "its bead would be begun again");
    fixture.close().await;
}
