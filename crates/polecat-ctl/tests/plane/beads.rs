//! beadstore-ctl's part, played by the test: a book of beads and of what was said about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::BoxStream;
use gastown_proto::v1::beads_server::Beads;
use gastown_proto::v1::{self, Bead, BeadChange, BeadList};
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

/// What the store holds.
#[derive(Default)]
pub struct Book {
    pub beads: BTreeMap<String, Bead>,
    pub comments: Vec<v1::CommentRequest>,
    /// How often a comment was asked for.
    pub asked: u32,
}

#[derive(Clone, Default)]
pub struct Store(pub Arc<Mutex<Book>>);

impl Store {
    pub async fn put(&self, bead: Bead) {
        self.0.lock().await.beads.insert(bead.id.clone(), bead);
    }
}

#[tonic::async_trait]
impl Beads for Store {
    type WatchStream = BoxStream<'static, Result<v1::StoreRevision, Status>>;

    async fn get(
        &self,
        request: Request<v1::GetBeadsRequest>,
    ) -> Result<Response<BeadList>, Status> {
        let book = self.0.lock().await;
        let beads =
            request.into_inner().ids.iter().filter_map(|id| book.beads.get(id).cloned()).collect();
        Ok(Response::new(BeadList { beads, revision: None }))
    }

    async fn comment(
        &self,
        request: Request<v1::CommentRequest>,
    ) -> Result<Response<BeadChange>, Status> {
        let mut book = self.0.lock().await;
        let said = request.into_inner();
        book.asked += 1;
        if !book.beads.contains_key(&said.id) {
            return Err(Status::not_found(said.id));
        }
        let changed = !book.comments.contains(&said);
        if changed {
            book.comments.push(said);
        }
        Ok(Response::new(BeadChange { changed, bead: None, revision: None }))
    }

    async fn watch(
        &self,
        _: Request<v1::WatchBeadsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("polecat-ctl reads and comments only"))
    }
}
