//! A fake refinery-ctl.

use std::sync::atomic::{AtomicU32, Ordering};

use gastown_api::{MergeRequest, MergeRequestSpec, PolecatReference};
use gastown_proto::v1::merge_queue_server::MergeQueue;
use gastown_proto::v1::{self, SubmitRequest, SubmitResponse};
use kube::Client;
use kube::api::{Api, PostParams};
use tonic::{Request, Response, Status};

/// Its Submit writes to the API server, then acknowledges.
pub struct FakeRefinery {
    pub admin: Client,
    pub made: AtomicU32,
}

#[tonic::async_trait]
impl MergeQueue for FakeRefinery {
    async fn submit(
        &self,
        request: Request<SubmitRequest>,
    ) -> Result<Response<SubmitResponse>, Status> {
        let asked = request.into_inner();
        if asked.source_branch.contains("unserved") {
            return Err(Status::failed_precondition("NoRefinery: no Refinery serves main"));
        }
        let n = self.made.fetch_add(1, Ordering::SeqCst);
        let name = format!("{}-{}-{n}", asked.polecat, &asked.commit[..8]);
        let spec = MergeRequestSpec {
            rig_ref: asked.rig,
            source_branch: asked.source_branch,
            commit: asked.commit,
            target_branch: asked.target_branch,
            polecat_ref: Some(PolecatReference { name: asked.polecat, uid: asked.polecat_uid }),
            attempt: i32::try_from(asked.attempt).unwrap(),
            previous: Some(asked.previous).filter(|p| !p.is_empty()),
            bead_id: Some(asked.bead).filter(|b| !b.is_empty()),
            priority: i32::try_from(asked.priority).unwrap(),
            hold: false,
            retry: 0,
            rejected: None,
        };
        let api: Api<MergeRequest> = Api::namespaced(self.admin.clone(), &asked.namespace);
        api.create(&PostParams::default(), &MergeRequest::new(&name, spec))
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(SubmitResponse { namespace: asked.namespace, name, created: true }))
    }

    async fn get(
        &self,
        _: Request<v1::GetRequest>,
    ) -> Result<Response<v1::MergeRequestView>, Status> {
        Err(Status::unimplemented("polecat-ctl only submits"))
    }

    async fn list(
        &self,
        _: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        Err(Status::unimplemented("polecat-ctl only submits"))
    }
}
