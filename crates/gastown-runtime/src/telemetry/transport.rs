//! The ways to a collector: OTLP over gRPC and over HTTP, with or without TLS, through the exporters of
//! `opentelemetry-otlp`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    Compression, ExporterBuildError, LogExporter, SpanExporter, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
};
use opentelemetry_sdk::error::OTelSdkError;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use super::settings::{Endpoint, Protocol};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Why no connection can be made, ever.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    /// A file of certificates or a key has neither.
    #[error("reading {file}")]
    File { file: String, source: rustls_pki_types::pem::Error },
    /// The certificates or the key cannot be used.
    #[error("using certificate and key")]
    Tls(#[source] rustls::Error),
    /// A file of certificates or a key cannot be read.
    #[error("reading {file}")]
    Read { file: String, source: std::io::Error },
    /// The address or the certificates cannot be used for gRPC.
    #[error("preparing a connection for gRPC")]
    Grpc(#[source] tonic::transport::Error),
    /// An exporter refuses a setting.
    #[error("preparing the export")]
    Exporter(#[source] ExporterBuildError),
    /// There is nothing to check the server's certificate with.
    #[error("there are no certificates of authorities: set OTEL_EXPORTER_OTLP_CERTIFICATE")]
    NoRoots,
}

/// Why a batch was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// In one sentence.
    pub why: String,
    /// Whether the same batch may be taken later.
    pub retryable: bool,
}

impl From<OTelSdkError> for Refusal {
    fn from(error: OTelSdkError) -> Self {
        let retryable = !matches!(error, OTelSdkError::AlreadyShutdown);
        Self { why: error.to_string(), retryable }
    }
}

/// What exports spans to an endpoint. Nothing is connected yet. Must be called in the async runtime.
pub(super) fn span_exporter(endpoint: &Endpoint) -> Result<SpanExporter, SetupError> {
    let exporter = match endpoint.protocol {
        Protocol::Grpc => over_grpc(SpanExporter::builder().with_tonic(), endpoint)?.build(),
        Protocol::Http => over_http(SpanExporter::builder().with_http(), endpoint)?.build(),
    };
    exporter.map_err(SetupError::Exporter)
}

/// The same for log lines.
pub(super) fn log_exporter(endpoint: &Endpoint) -> Result<LogExporter, SetupError> {
    let exporter = match endpoint.protocol {
        Protocol::Grpc => over_grpc(LogExporter::builder().with_tonic(), endpoint)?.build(),
        Protocol::Http => over_http(LogExporter::builder().with_http(), endpoint)?.build(),
    };
    exporter.map_err(SetupError::Exporter)
}

fn over_grpc<B>(builder: B, endpoint: &Endpoint) -> Result<B, SetupError>
where
    B: WithTonicConfig + WithExportConfig,
{
    let builder = builder
        .with_channel(channel(endpoint)?)
        .with_metadata(metadata(endpoint))
        .with_timeout(endpoint.timeout);
    Ok(if endpoint.gzip { builder.with_compression(Compression::Gzip) } else { builder })
}

fn over_http<B>(builder: B, endpoint: &Endpoint) -> Result<B, SetupError>
where
    B: WithHttpConfig + WithExportConfig,
{
    let text = |(name, value): &(HeaderName, HeaderValue)| {
        Some((name.to_string(), value.to_str().ok()?.to_owned()))
    };
    let builder = builder
        .with_http_client(http_client(endpoint)?)
        .with_endpoint(endpoint.uri.to_string())
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_headers(endpoint.headers.iter().filter_map(text).collect())
        .with_timeout(endpoint.timeout);
    Ok(if endpoint.gzip { builder.with_compression(Compression::Gzip) } else { builder })
}

/// A connection for gRPC, which is made with the first call.
pub(super) fn channel(endpoint: &Endpoint) -> Result<Channel, SetupError> {
    let Endpoint { uri, timeout, .. } = endpoint;
    let mut server =
        Channel::builder(uri.clone()).connect_timeout(CONNECT.min(*timeout)).timeout(*timeout);
    if uri.scheme_str() == Some("https") {
        server = server.tls_config(grpc_tls(endpoint)?).map_err(SetupError::Grpc)?;
    }
    Ok(server.connect_lazy())
}

/// The endpoint's headers as gRPC has them.
pub(super) fn metadata(endpoint: &Endpoint) -> MetadataMap {
    MetadataMap::from_headers(endpoint.headers.iter().cloned().collect::<HeaderMap>())
}

/// A client for HTTP, which connects with the first request.
pub(super) fn http_client(
    endpoint: &Endpoint,
) -> Result<HyperClient<HttpsConnector<HttpConnector>>, SetupError> {
    Ok(HyperClient::new(connector(endpoint)?, endpoint.timeout, None))
}

/// The same trust as [`tls`] for gRPC's own client.
fn grpc_tls(endpoint: &Endpoint) -> Result<ClientTlsConfig, SetupError> {
    let read = |file: &Path| {
        let unreadable = |source| SetupError::Read { file: file.display().to_string(), source };
        std::fs::read(file).map_err(unreadable)
    };
    let mut config = ClientTlsConfig::new();
    config = match &endpoint.certificate {
        Some(file) => config.ca_certificate(Certificate::from_pem(read(file)?)),
        None => config.with_native_roots(),
    };
    if let Some((certificate, key)) = &endpoint.client {
        config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(config)
}

fn connector(endpoint: &Endpoint) -> Result<HttpsConnector<HttpConnector>, SetupError> {
    let config = match endpoint.uri.scheme_str() {
        Some("https") => tls(endpoint)?,
        _ => ClientConfig::builder()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth(),
    };
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT.min(endpoint.timeout)));
    Ok(HttpsConnector::from((http, Arc::new(config))))
}

/// An error with what caused it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn tls(endpoint: &Endpoint) -> Result<ClientConfig, SetupError> {
    let mut roots = RootCertStore::empty();
    match &endpoint.certificate {
        Some(file) => {
            roots.add_parsable_certificates(certificates(file)?);
        }
        None => {
            // Those that cannot be read are left out; what is left is what counts.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(SetupError::NoRoots);
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match &endpoint.client {
        Some((certificate, key)) => {
            let key_der =
                PrivateKeyDer::from_pem_file(key).map_err(|source| unreadable(key, source))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, key_der)
                .map_err(SetupError::Tls)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    read.map_err(|source| unreadable(file, source))
}

fn unreadable(file: &Path, source: rustls_pki_types::pem::Error) -> SetupError {
    SetupError::File { file: file.display().to_string(), source }
}
