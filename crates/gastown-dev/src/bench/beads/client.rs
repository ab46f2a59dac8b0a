//! A client of the Beads service, as a controller of the release has it.

use std::time::Duration;

use anyhow::{Context, Result};
use gastown_cluster::install;
use gastown_cluster::install::SYSTEM;
use gastown_cluster::process::Process;
use gastown_proto::v1::beads_client::BeadsClient;
use kube::Client;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

/// How long one call may take.
const DEADLINE: Duration = Duration::from_mins(1);

/// Adds a token to each call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A client with the token of a service account of the release.
pub async fn caller(
    process: &Process,
    client: &Client,
    account: &str,
) -> Result<BeadsClient<InterceptedService<Channel, Bearer>>> {
    let token = install::token(client, SYSTEM, account, None).await?;
    let bearer =
        Bearer(format!("Bearer {token}").parse().context("the token is not a valid header value")?);
    let ca = std::fs::read(process.ca()).context("reading the CA's certificate")?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    let channel = Endpoint::from_shared(process.endpoint())?
        .timeout(DEADLINE)
        .tls_config(tls)?
        .connect()
        .await?;
    Ok(BeadsClient::new(InterceptedService::new(channel, bearer)))
}
