//! witness-ctl's part, played by the test, and what it is told.

use std::sync::Arc;

use futures::stream::BoxStream;
use gastown_api::names::annotation;
use gastown_core::report::AgentExit;
use gastown_proto::v1;
use gastown_proto::v1::witness_server::Witness;
use serde_json::json;
use tokio::sync::Mutex;
use tonic::{Request, Response, Status, Streaming};

use crate::stage::{Stage, ended};

/// Open alarms by cause, and how often something was asked.
#[derive(Default)]
pub struct Board {
    pub open: Vec<v1::RaiseRequest>,
    pub asked: u32,
}

#[derive(Clone, Default)]
pub struct Alarms(pub Arc<Mutex<Board>>);

#[tonic::async_trait]
impl Witness for Alarms {
    type AttachStream = BoxStream<'static, Result<v1::Command, Status>>;

    async fn attach(
        &self,
        _: Request<Streaming<v1::Heartbeat>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("polecat-ctl tells only"))
    }

    async fn raise(
        &self,
        request: Request<v1::RaiseRequest>,
    ) -> Result<Response<v1::RaiseResponse>, Status> {
        let mut board = self.0.lock().await;
        board.asked += 1;
        if board.asked == 1 {
            return Err(Status::internal("not this time"));
        }
        let raised = request.into_inner();
        let created = board.open.iter().all(|o| o.cause != raised.cause);
        board.open.retain(|o| o.cause != raised.cause);
        board.open.push(raised);
        Ok(Response::new(v1::RaiseResponse { namespace: String::new(), name: "e".into(), created }))
    }

    async fn settle(
        &self,
        request: Request<v1::SettleRequest>,
    ) -> Result<Response<v1::SettleResponse>, Status> {
        let mut board = self.0.lock().await;
        let cause = request.into_inner().cause;
        board.open.retain(|o| o.cause != cause);
        Ok(Response::new(v1::SettleResponse { name: "e".into() }))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_called_until_the_witness_has_it_and_sent_home_when_the_polecat_goes_on() {
    let mut stage = Stage::open(3).await;
    stage.sling("nux", |_| {}).await;
    let pod = stage.pod("polecat-nux", &[]).await;
    stage.kubelet.running(&pod).await.unwrap();
    stage.kubelet.finish(&pod, &ended(AgentExit::Completed, None)).await.unwrap();
    let raised = stage.wait_alarm(|open| open.first().cloned()).await;
    assert_eq!(raised.cause, format!("polecat/{}/nux/stuck", stage.namespace));
    assert!(raised.summary.contains("NoChanges") && raised.severity == "medium", "{raised:?}");
    assert_eq!((raised.related_kind.as_str(), raised.related_name.as_str()), ("Polecat", "nux"));
    stage.wait_phase("nux", "Stuck").await;
    // another process takes it back, too
    stage.stop_controller().await;
    stage.start_controller().await;
    stage.patch("nux", json!({ "metadata": { "annotations": { annotation::RETRY: "1" } } })).await;
    stage.wait_alarm(|open| open.is_empty().then_some(())).await;
    stage.close().await;
}
