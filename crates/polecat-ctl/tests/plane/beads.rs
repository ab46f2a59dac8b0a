//! A fake beadstore-ctl: beads and the comments on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::BoxStream;
use gastown_proto::v1::beads_server::Beads;
use gastown_proto::v1::{self, Bead, BeadChange, BeadList};
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

/// What the store holds.
#[derive(Default)]
pub struct Contents {
    pub beads: BTreeMap<String, Bead>,
    pub comments: Vec<v1::CommentRequest>,
    /// The number of comment requests.
    pub requests: u32,
}

#[derive(Clone, Default)]
pub struct FakeStore(pub Arc<Mutex<Contents>>);

impl FakeStore {
    pub async fn put(&self, bead: Bead) {
        self.0.lock().await.beads.insert(bead.id.clone(), bead);
    }
}

#[tonic::async_trait]
impl Beads for FakeStore {
    type WatchStream = BoxStream<'static, Result<v1::StoreRevision, Status>>;

    async fn get(
        &self,
        request: Request<v1::GetBeadsRequest>,
    ) -> Result<Response<BeadList>, Status> {
        let contents = self.0.lock().await;
        let beads = request
            .into_inner()
            .ids
            .iter()
            .filter_map(|id| contents.beads.get(id).cloned())
            .collect();
        Ok(Response::new(BeadList { beads, revision: None }))
    }

    async fn comment(
        &self,
        request: Request<v1::CommentRequest>,
    ) -> Result<Response<BeadChange>, Status> {
        let mut contents = self.0.lock().await;
        let comment = request.into_inner();
        contents.requests += 1;
        if !contents.beads.contains_key(&comment.id) {
            return Err(Status::not_found(comment.id));
        }
        let changed = !contents.comments.contains(&comment);
        if changed {
            contents.comments.push(comment);
        }
        Ok(Response::new(BeadChange { changed, bead: None, revision: None }))
    }

    async fn ready(&self, _: Request<v1::ReadyRequest>) -> Result<Response<BeadList>, Status> {
        Err(Status::unimplemented("polecat-ctl only reads and comments"))
    }

    async fn claim(&self, _: Request<v1::ClaimRequest>) -> Result<Response<BeadChange>, Status> {
        Err(Status::unimplemented("polecat-ctl only reads and comments"))
    }

    async fn release(
        &self,
        _: Request<v1::ReleaseRequest>,
    ) -> Result<Response<BeadChange>, Status> {
        Err(Status::unimplemented("polecat-ctl only reads and comments"))
    }

    async fn close(&self, _: Request<v1::CloseRequest>) -> Result<Response<BeadChange>, Status> {
        Err(Status::unimplemented("polecat-ctl only reads and comments"))
    }

    async fn watch(
        &self,
        _: Request<v1::WatchBeadsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("polecat-ctl only reads and comments"))
    }
}
