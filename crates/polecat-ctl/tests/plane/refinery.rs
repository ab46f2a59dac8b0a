//! A fake refinery-ctl.

use gastown_api::{MergeRequest, MergeRequestSpec, PolecatReference};
use gastown_proto::v1::merge_queue_server::MergeQueue;
use gastown_proto::v1::{self, SubmitRequest, SubmitResponse};
use kube::Client;
use kube::api::{Api, PostParams};
use tonic::{Request, Response, Status};

/// Its Submit writes to the API server, then acknowledges. The same again changes nothing: the name
/// is made from the content, as refinery-ctl's is.
pub struct FakeRefinery {
    pub admin: Client,
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
        let name = format!("{}-{}-{}", asked.polecat, &asked.commit[32..], asked.attempt);
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
        let made = api.create(&PostParams::default(), &MergeRequest::new(&name, spec)).await;
        let created = match made {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.is_already_exists() => false,
            Err(e) => return Err(Status::unavailable(e.to_string())),
        };
        Ok(Response::new(SubmitResponse { namespace: asked.namespace, name, created }))
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
