//! Tokens, the gRPC server and its client.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gastown_proto::v1::witness_client::WitnessClient;
use gastown_proto::v1::witness_server::{Witness, WitnessServer};
use gastown_proto::v1::{
    Command, Heartbeat, RaiseRequest, RaiseResponse, SettleRequest, SettleResponse,
};
use gastown_runtime::auth::{self, TokenReviewer};
use gastown_runtime::grpc::{self, Holder, Remote};
use gastown_runtime::metrics::Metrics;
use gastown_runtime::shards::Shards;
use gastown_runtime::tls::Tls;
use gastown_runtime::{AUDIENCE, Runtime, RuntimeArgs};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::fixture::{fixture, within};

/// A token of a service account, requested as the kubelet does.
async fn token(client: &Client, namespace: &str, account: &str, audience: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    if accounts.get_opt(account).await?.is_none() {
        let metadata = ObjectMeta { name: Some(account.to_owned()), ..ObjectMeta::default() };
        accounts
            .create(
                &PostParams::default(),
                &ServiceAccount { metadata, ..ServiceAccount::default() },
            )
            .await?;
    }
    let spec =
        TokenRequestSpec { audiences: vec![audience.to_owned()], ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.context("no token")?.token)
}

#[tokio::test]
async fn only_a_token_for_our_audience_is_accepted() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let reviewer = TokenReviewer::new(client.clone(), AUDIENCE);
    let good = token(&client, &namespace, "polecat-ctl", AUDIENCE).await?;
    for _ in 0..2 {
        let identity = reviewer.review(&good).await?;
        ensure!(
            (identity.namespace.as_str(), identity.service_account.as_str())
                == (namespace.as_str(), "polecat-ctl")
        );
    }
    let other = token(&client, &namespace, "polecat-ctl", "https://kubernetes.default.svc").await?;
    for bad in [other.as_str(), "no-token", ""] {
        let refused = reviewer.review(bad).await;
        ensure!(matches!(refused, Err(auth::Error::Unauthenticated(_))), "{refused:?}");
    }
    Ok(())
}

/// Answers a Raise with the caller's name.
struct Echo;

#[tonic::async_trait]
impl Witness for Echo {
    type AttachStream = ReceiverStream<Result<Command, Status>>;

    async fn attach(
        &self,
        _: Request<Streaming<Heartbeat>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("not used in this test"))
    }

    async fn raise(
        &self,
        request: Request<RaiseRequest>,
    ) -> Result<Response<RaiseResponse>, Status> {
        let caller = grpc::caller(&request)?;
        Ok(Response::new(RaiseResponse {
            namespace: caller.namespace.clone(),
            name: caller.service_account.clone(),
            created: true,
        }))
    }

    async fn settle(&self, _: Request<SettleRequest>) -> Result<Response<SettleResponse>, Status> {
        Err(Status::unimplemented("not used in this test"))
    }
}

/// A folder with a certificate for localhost that vouches for itself, and the certificate.
fn certificates() -> Result<(tempfile::TempDir, String)> {
    let folder = tempfile::tempdir()?;
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(folder.path().join("ca.crt"), pair.cert.pem())?;
    std::fs::write(folder.path().join("tls.crt"), pair.cert.pem())?;
    std::fs::write(folder.path().join("tls.key"), pair.signing_key.serialize_pem())?;
    Ok((folder, pair.cert.pem()))
}

type Server = tokio::task::JoinHandle<Result<(), grpc::Error>>;

/// Serves [`Echo`] for polecat-ctl.
fn serve(
    client: &Client,
    folder: &Path,
    listener: TcpListener,
    shards: Shards,
) -> Result<(Runtime, Server)> {
    let args = RuntimeArgs::from_env()?;
    let runtime = Runtime::new("witness-ctl", client.clone(), args, Metrics::default(), shards);
    let tls = Tls::load(folder, runtime.stop.clone())?;
    let routes = tonic::service::Routes::new(WitnessServer::new(Echo));
    let policy: grpc::Policy = Arc::new(|path, caller| {
        let may = path == "/gastown.v1.Witness/Raise" && caller.service_account == "polecat-ctl";
        may.then_some(()).ok_or_else(|| format!("{} may not call it", caller.service_account))
    });
    let serving = runtime.clone();
    let server = tokio::spawn(async move {
        let descriptors = gastown_proto::v1::DESCRIPTORS;
        grpc::serve(listener, &tls, routes, descriptors, policy, &serving).await
    });
    Ok((runtime, server))
}

#[tokio::test]
async fn requests_go_to_the_replica_that_serves_wherever_it_moves() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let (folder, _) = certificates()?;
    let here = "127.0.0.1".parse()?;
    let there = "127.0.0.2".parse()?;
    let listener = grpc::listen(SocketAddr::new(here, 0)).await?;
    let port = listener.local_addr()?.port();
    let standby = Shards::elsewhere(there);
    let (first, first_server) = serve(&client, folder.path(), listener, standby)?;
    let at_the_other = || grpc::listen(SocketAddr::new(there, port));
    let leads = Shards::all();
    let (second, second_server) = serve(&client, folder.path(), at_the_other().await?, leads)?;

    let token_file = folder.path().join("token");
    std::fs::write(&token_file, token(&client, &namespace, "polecat-ctl", AUDIENCE).await?)?;
    let uri = format!("https://localhost:{port}");
    let holder = Holder::default();
    let remote =
        Remote::new(&uri, folder.path(), &token_file, Duration::from_secs(10)).with_holder(&holder);
    let raise = async || -> Result<Result<(), Status>> {
        let mut client = WitnessClient::new(remote.channel("web")?);
        Ok(client.raise(RaiseRequest::default()).await.map(drop))
    };
    let refused = raise().await?.unwrap_err();
    ensure!(
        refused.code() == Code::Unavailable && refused.message().contains("is another"),
        "{refused:?}"
    );
    ensure!(holder.address("web") == Some(there));
    raise().await??;
    // Its successor has another address.
    second.shutdown();
    within("the server's end", second_server).await???;
    ensure!(raise().await?.is_err() && holder.address("web").is_none(), "it is asked no more");
    let standby = Shards::elsewhere(here);
    let (third, third_server) = serve(&client, folder.path(), at_the_other().await?, standby)?;
    first.shutdown();
    within("the server's end", first_server).await???;
    let leads = Shards::all();
    let listener = grpc::listen(SocketAddr::new(here, port)).await?;
    let (fourth, fourth_server) = serve(&client, folder.path(), listener, leads)?;
    raise().await??;
    ensure!(
        holder.address("web").is_none(),
        "any replica may be asked while the one that is serves"
    );
    for (runtime, server) in [(third, third_server), (fourth, fourth_server)] {
        runtime.shutdown();
        within("the server's end", server).await???;
    }
    Ok(())
}

#[tokio::test]
async fn a_call_needs_the_token_of_an_allowed_caller() -> Result<()> {
    let (_, client, namespace) = fixture().await?;
    let (folder, certificate) = certificates()?;
    let listener = grpc::listen("127.0.0.1:0".parse()?).await?;
    let uri = format!("https://localhost:{}", listener.local_addr()?.port());
    let (runtime, server) = serve(&client, folder.path(), listener, Shards::all())?;

    let token_file = folder.path().join("token");
    let remote = Remote::new(&uri, folder.path(), &token_file, Duration::from_secs(10));
    let raise = async |token: &str| -> Result<Result<RaiseResponse, Status>> {
        std::fs::write(&token_file, token)?;
        let client = WitnessClient::new(remote.channel("web")?);
        Ok(grpc::retry(3, || {
            let mut client = client.clone();
            async move { client.raise(RaiseRequest::default()).await }
        })
        .await
        .map(Response::into_inner))
    };
    let answer = raise(&token(&client, &namespace, "polecat-ctl", AUDIENCE).await?).await??;
    ensure!(
        (answer.namespace.as_str(), answer.name.as_str()) == (namespace.as_str(), "polecat-ctl")
    );
    let stranger = raise(&token(&client, &namespace, "stranger", AUDIENCE).await?).await?;
    ensure!(
        matches!(&stranger, Err(status) if status.code() == Code::PermissionDenied),
        "{stranger:?}"
    );
    let other_audience =
        raise(&token(&client, &namespace, "polecat-ctl", "elsewhere").await?).await?;
    ensure!(
        matches!(&other_audience, Err(status) if status.code() == Code::Unauthenticated),
        "{other_audience:?}"
    );

    let channel = tonic::transport::Endpoint::from_shared(uri)?
        .tls_config(
            tonic::transport::ClientTlsConfig::new()
                .ca_certificate(tonic::transport::Certificate::from_pem(certificate)),
        )?
        .connect_lazy();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let serving = health.check(tonic_health::pb::HealthCheckRequest::default()).await?.into_inner();
    ensure!(
        serving.status() == tonic_health::pb::health_check_response::ServingStatus::Serving,
        "the health service needs no token"
    );

    drop((health, remote));
    runtime.shutdown();
    within("the server's end", server).await???;
    Ok(())
}
