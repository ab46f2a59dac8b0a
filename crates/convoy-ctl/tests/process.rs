//! Beads over gRPC: a real server with TLS, which is lost and comes back.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use convoy_ctl::{BeadSource as _, RemoteBeads};
use futures::StreamExt as _;
use gastown_cluster::install;
use gastown_proto::v1;
use gastown_proto::v1::beads_server::{Beads, BeadsServer};
use gastown_runtime::tls::{self, Tls};
use gastown_runtime::{RuntimeArgs, grpc};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

const TIMEOUT: Duration = Duration::from_mins(1);

/// A store of one bead; it refuses calls without a token.
struct One;

type Answer<T> = std::result::Result<Response<T>, Status>;

fn check_token<T>(request: &Request<T>) -> std::result::Result<(), Status> {
    let bearer = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    if bearer == Some("Bearer secret") { Ok(()) } else { Err(Status::unauthenticated("no token")) }
}

#[tonic::async_trait]
impl Beads for One {
    type WatchStream =
        futures::stream::BoxStream<'static, std::result::Result<v1::StoreRevision, Status>>;

    async fn get(&self, request: Request<v1::GetBeadsRequest>) -> Answer<v1::BeadList> {
        check_token(&request)?;
        let request = request.into_inner();
        if request.rig != "web" {
            return Err(Status::failed_precondition("NoStore: no such rig"));
        }
        let beads = request
            .ids
            .iter()
            .filter(|id| *id == "gt-1")
            .map(|id| v1::Bead { id: id.clone(), ..v1::Bead::default() });
        Ok(Response::new(v1::BeadList { beads: beads.collect(), revision: None }))
    }

    async fn watch(&self, request: Request<v1::WatchBeadsRequest>) -> Answer<Self::WatchStream> {
        check_token(&request)?;
        let first =
            v1::StoreRevision { rig: "web".into(), number: 7, ..v1::StoreRevision::default() };
        Ok(Response::new(
            futures::stream::iter([Ok(first)]).chain(futures::stream::pending()).boxed(),
        ))
    }

    async fn comment(&self, _: Request<v1::CommentRequest>) -> Answer<v1::BeadChange> {
        Err(Status::unimplemented("no test calls it"))
    }
}

/// A server on an executor of its own: when that ends, its connections are cut as those of a killed
/// process are.
async fn serve(address: SocketAddr, folder: &Path) -> Result<(SocketAddr, Runtime)> {
    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let folder = folder.to_owned();
    let started = executor.spawn(async move {
        let stop = CancellationToken::new();
        let listener = grpc::listen(address).await?;
        let bound = listener.local_addr()?;
        let tls = Tls::load(&folder, stop.clone())?;
        let connections = ReceiverStream::new(tls::accept(listener, &tls, &[b"h2"], stop));
        tokio::spawn(
            Server::builder().add_service(BeadsServer::new(One)).serve_with_incoming(connections),
        );
        anyhow::Ok(bound)
    });
    Ok((started.await??, executor))
}

#[tokio::test]
async fn beads_are_read_with_our_token_and_a_lost_server_is_used_again() -> Result<()> {
    // Fails only where somebody installed one before: then that one serves.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir()?;
    install::certificates(dir.path())?;
    let token = dir.path().join("token");
    std::fs::write(&token, "secret\n")?;
    let (address, first) = serve("127.0.0.1:0".parse()?, dir.path()).await?;
    let args = RuntimeArgs {
        tls_dir: dir.path().to_owned(),
        token_file: token,
        ..RuntimeArgs::from_env()?
    };
    let remote = RemoteBeads::new(&format!("https://localhost:{}", address.port()), &args);

    let beads = remote.get("web".into(), vec!["gt-1".into(), "gt-2".into()]).await?;
    ensure!(beads.iter().map(|bead| bead.id.as_str()).collect::<Vec<_>>() == ["gt-1"]);
    let refused = remote.get("other".into(), vec!["gt-1".into()]).await;
    ensure!(
        refused.as_ref().is_err_and(|status| status.code() == Code::FailedPrecondition),
        "{refused:?}"
    );
    let mut revisions = remote.watch().await?;
    let revision = revisions.next().await.context("no revision")??;
    ensure!((revision.rig.as_str(), revision.number) == ("web", 7), "{revision:?}");

    first.shutdown_background();
    let ended = tokio::time::timeout(TIMEOUT, revisions.next())
        .await
        .context("the loss was not noticed")?;
    ensure!(!matches!(ended, Some(Ok(_))), "{ended:?}");
    let lost = remote.get("web".into(), vec!["gt-1".into()]).await;
    ensure!(lost.is_err(), "{lost:?}");
    let (_, again) = serve(address, dir.path()).await?;
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while remote.get("web".into(), vec!["gt-1".into()]).await.is_err() {
        ensure!(tokio::time::Instant::now() < deadline, "the server was not used again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    again.shutdown_background();
    Ok(())
}
