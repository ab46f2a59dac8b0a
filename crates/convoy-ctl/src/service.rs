//! gRPC. convoy-ctl serves no service of its own; the one that it calls is `Beads` of
//! beadstore-ctl. Tests put beads in memory in its place.

use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use gastown_core::convoy::{BeadFact, Dependency};
use gastown_proto::v1;
use gastown_proto::v1::beads_client::BeadsClient;
use gastown_runtime::RuntimeArgs;
use gastown_runtime::grpc::{self, AuthChannel, Remote};
use tonic::{Code, Status};

/// How long one attempt of a call may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many times a call is tried before the store counts as unavailable.
const MAX_TRIES: u32 = 2;
/// How many bytes an answer may have.
const MAX_ANSWER: usize = 64 << 20;
/// How many characters a task may have in a Polecat's spec.
const MAX_TASK: usize = 131_072;

/// Revisions of stores, as they come.
pub type Revisions = BoxStream<'static, Result<v1::StoreRevision, Status>>;

/// Where beads are read.
pub trait BeadSource: Send + Sync + 'static {
    /// Reads beads by id; the answer leaves out those that the store does not hold.
    fn get(&self, rig: String, ids: Vec<String>) -> BoxFuture<'_, Result<Vec<v1::Bead>, Status>>;

    /// The present revisions of all rigs' stores at once, then each new one.
    fn watch(&self) -> BoxFuture<'_, Result<Revisions, Status>>;
}

/// Beads as beadstore-ctl serves them.
pub struct RemoteBeads {
    remote: Remote,
}

impl RemoteBeads {
    /// A client of `endpoint`, `https://host:port`. It connects when it is first used.
    pub fn new(endpoint: &str, args: &RuntimeArgs) -> Self {
        Self { remote: Remote::new(endpoint, &args.tls_dir, &args.token_file, DEADLINE) }
    }

    fn client(&self, rig: &str) -> Result<BeadsClient<AuthChannel>, Status> {
        let channel =
            self.remote.channel(rig).map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(BeadsClient::new(channel).max_decoding_message_size(MAX_ANSWER))
    }

    /// The revisions of one replica, and where the others are.
    async fn watch_at(&self, to: Option<IpAddr>) -> Result<(Revisions, Vec<IpAddr>), Status> {
        let channel = self.remote.channel_at(to);
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        let answer = BeadsClient::new(channel).watch(v1::WatchBeadsRequest {}).await?;
        let others = grpc::others(answer.metadata());
        Ok((answer.into_inner().boxed(), others))
    }
}

impl BeadSource for RemoteBeads {
    fn get(&self, rig: String, ids: Vec<String>) -> BoxFuture<'_, Result<Vec<v1::Bead>, Status>> {
        Box::pin(async move {
            let call = || async {
                let request = v1::GetBeadsRequest { rig: rig.clone(), ids: ids.clone() };
                self.client(&rig)?.get(request).await
            };
            Ok(grpc::retry(MAX_TRIES, call).await?.into_inner().beads)
        })
    }

    fn watch(&self) -> BoxFuture<'_, Result<Revisions, Status>> {
        Box::pin(async move {
            let (first, others) = self.watch_at(None).await?;
            let rest = others.into_iter().map(|other| self.watch_at(Some(other)));
            let rest = futures::future::try_join_all(rest).await?;
            Ok(while_all_last(std::iter::once(first).chain(rest.into_iter().map(|(all, _)| all))))
        })
    }
}

/// What the streams have, until one of them ends: each replica has the revisions of its own rigs.
fn while_all_last(streams: impl Iterator<Item = Revisions>) -> Revisions {
    let ended = || futures::stream::once(async { None });
    let streams = streams.map(|stream| stream.map(Some).chain(ended()).boxed());
    let all = futures::stream::select_all(streams);
    all.take_while(|item| futures::future::ready(item.is_some()))
        .filter_map(futures::future::ready)
        .boxed()
}

/// Why a read failed, as a condition's message: the same text for the same failure.
pub(crate) fn describe(status: &Status) -> String {
    match status.code() {
        Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated => {
            status.message().to_owned()
        }
        Code::DeadlineExceeded | Code::Cancelled => {
            "beadstore-ctl did not answer in time".to_owned()
        }
        Code::Unavailable => "beadstore-ctl cannot be reached".to_owned(),
        code => format!("beadstore-ctl answered {code:?}: {}", status.message()),
    }
}

/// The task that the Polecat of a bead gets.
pub(crate) fn task(bead: &v1::Bead) -> String {
    let text = if bead.description.trim().is_empty() {
        bead.title.clone()
    } else {
        format!("{}\n\n{}", bead.title, bead.description)
    };
    text.chars().take(MAX_TASK).collect()
}

/// What decides about a bead.
pub(crate) fn fact(bead: v1::Bead) -> BeadFact {
    BeadFact {
        status: bead.status,
        priority: bead.priority,
        created: bead.created_at.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second),
        kind: bead.issue_type,
        assignee: bead.assignee,
        blocked: bead.blocked,
        ready: bead.ready,
        dependencies: bead
            .dependencies
            .into_iter()
            .map(|edge| Dependency { on: edge.depends_on, kind: edge.kind })
            .collect(),
        closed_for: bead.closed_for.into_iter().collect(),
    }
}
