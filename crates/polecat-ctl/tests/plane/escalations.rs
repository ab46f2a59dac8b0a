//! A fake witness-ctl, and what is escalated to it.

use std::sync::Arc;

use futures::stream::BoxStream;
use gastown_api::names::annotation;
use gastown_core::report::AgentExit;
use gastown_proto::v1;
use gastown_proto::v1::witness_server::Witness;
use serde_json::json;
use tokio::sync::Mutex;
use tonic::{Request, Response, Status, Streaming};

use crate::fixture::Fixture;
use crate::outcomes::ended;

/// Open Escalations, and the number of raise requests.
#[derive(Default)]
pub struct Escalations {
    pub open: Vec<v1::RaiseRequest>,
    pub requests: u32,
}

#[derive(Clone, Default)]
pub struct FakeWitness(pub Arc<Mutex<Escalations>>);

#[tonic::async_trait]
impl Witness for FakeWitness {
    type AttachStream = BoxStream<'static, Result<v1::Command, Status>>;

    async fn attach(
        &self,
        _: Request<Streaming<v1::Heartbeat>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("polecat-ctl only raises and settles"))
    }

    async fn raise(
        &self,
        request: Request<v1::RaiseRequest>,
    ) -> Result<Response<v1::RaiseResponse>, Status> {
        let mut escalations = self.0.lock().await;
        escalations.requests += 1;
        if escalations.requests == 1 {
            return Err(Status::internal("the first request fails"));
        }
        let raised = request.into_inner();
        let created = escalations.open.iter().all(|o| o.cause != raised.cause);
        escalations.open.retain(|o| o.cause != raised.cause);
        escalations.open.push(raised);
        Ok(Response::new(v1::RaiseResponse { namespace: String::new(), name: "e".into(), created }))
    }

    async fn settle(
        &self,
        request: Request<v1::SettleRequest>,
    ) -> Result<Response<v1::SettleResponse>, Status> {
        let mut escalations = self.0.lock().await;
        let cause = request.into_inner().cause;
        escalations.open.retain(|o| o.cause != cause);
        Ok(Response::new(v1::SettleResponse { name: "e".into() }))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_polecat_is_escalated_until_accepted_and_settled_when_it_continues() {
    let mut fixture = Fixture::start(3).await;
    fixture.sling("nux", |_| {}).await;
    let pod = fixture.pod("polecat-nux", &[]).await;
    fixture.kubelet.running(&pod).await.unwrap();
    fixture.kubelet.finish(&pod, &ended(AgentExit::Completed, None)).await.unwrap();
    let raised = fixture.wait_escalation(|open| open.first().cloned()).await;
    assert_eq!(raised.cause, format!("polecat/{}/nux/stuck", fixture.namespace));
    assert!(raised.summary.contains("NoChanges") && raised.severity == "medium", "{raised:?}");
    assert_eq!((raised.related_kind.as_str(), raised.related_name.as_str()), ("Polecat", "nux"));
    fixture.wait_phase("nux", "Stuck").await;
    // another process settles it, too
    fixture.stop_controller().await;
    fixture.start_controller();
    fixture
        .patch("nux", json!({ "metadata": { "annotations": { annotation::RETRY: "1" } } }))
        .await;
    fixture.wait_escalation(|open| open.is_empty().then_some(())).await;
    fixture.close().await;
}
