//! OTLP over gRPC and over HTTP, with or without TLS: one request for one batch.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::settings::{Endpoint, Protocol};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const MAX_ANSWER: usize = 64 * 1024;

/// Why no connection can be made, ever.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    /// A file of certificates or a key cannot be read.
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
    /// The exporter of spans refuses a setting.
    #[error("preparing the export")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
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

/// One signal's way to its collector.
#[derive(Debug)]
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    endpoint: Endpoint,
}

impl Transport {
    /// The way to an endpoint. Nothing is connected yet.
    pub(super) fn new(endpoint: Endpoint) -> Result<Self, SetupError> {
        let connector = connector(&endpoint)?;
        let client = Client::builder(TokioExecutor::new())
            .http2_only(endpoint.protocol == Protocol::Grpc)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(90))
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self { client, endpoint })
    }

    /// Sends one encoded message, within the endpoint's timeout.
    pub(super) async fn send(&self, message: Bytes) -> Result<(), Refusal> {
        let exchange = async {
            let request = self.request(&message).map_err(|error| Refusal {
                why: format!("making the request: {error}"),
                retryable: false,
            })?;
            let lost = |why: String| Refusal { why, retryable: true };
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| lost(chain(&error)))?;
            match self.endpoint.protocol {
                Protocol::Grpc => grpc_answer(answer).await,
                Protocol::Http => http_answer(answer).await,
            }
        };
        match tokio::time::timeout(self.endpoint.timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal {
                why: format!("the collector did not answer within {:?}", self.endpoint.timeout),
                retryable: true,
            }),
        }
    }

    fn request(&self, message: &Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
        let Endpoint { uri, protocol, gzip, headers, .. } = &self.endpoint;
        let body = if *gzip { compressed(message) } else { message.clone() };
        let mut request = Request::post(uri.clone());
        let body = match protocol {
            Protocol::Grpc => {
                request = request
                    .header(header::CONTENT_TYPE, "application/grpc")
                    .header(header::TE, "trailers");
                if *gzip {
                    request = request.header("grpc-encoding", "gzip");
                }
                framed(&body, *gzip)
            }
            Protocol::Http => {
                request = request.header(header::CONTENT_TYPE, "application/x-protobuf");
                if *gzip {
                    request = request.header(header::CONTENT_ENCODING, "gzip");
                }
                body
            }
        };
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request
            .header(header::USER_AGENT, concat!("gastown-operator/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
    }
}

/// What exports spans to an endpoint. Nothing is connected yet. Must be called in the async runtime.
pub(super) fn span_exporter(endpoint: &Endpoint) -> Result<SpanExporter, SetupError> {
    match endpoint.protocol {
        Protocol::Grpc => over_grpc(endpoint),
        Protocol::Http => over_http(endpoint),
    }
}

fn over_grpc(endpoint: &Endpoint) -> Result<SpanExporter, SetupError> {
    let Endpoint { uri, timeout, .. } = endpoint;
    let scheme = uri.scheme_str().unwrap_or("http");
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let mut server = tonic::transport::Endpoint::from_shared(format!("{scheme}://{authority}"))
        .map_err(SetupError::Grpc)?
        .connect_timeout(CONNECT.min(*timeout))
        .timeout(*timeout);
    if scheme == "https" {
        server = server.tls_config(grpc_tls(endpoint)?).map_err(SetupError::Grpc)?;
    }
    let headers: HeaderMap = endpoint.headers.iter().cloned().collect();
    let mut exporter = SpanExporter::builder()
        .with_tonic()
        .with_channel(server.connect_lazy())
        .with_metadata(MetadataMap::from_headers(headers))
        .with_timeout(*timeout);
    if endpoint.gzip {
        exporter = exporter.with_compression(opentelemetry_otlp::Compression::Gzip);
    }
    exporter.build().map_err(SetupError::Exporter)
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

fn over_http(endpoint: &Endpoint) -> Result<SpanExporter, SetupError> {
    let client = HyperClient::new(connector(endpoint)?, endpoint.timeout, None);
    let text = |(name, value): &(HeaderName, HeaderValue)| {
        Some((name.to_string(), value.to_str().ok()?.to_owned()))
    };
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(endpoint.uri.to_string())
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_headers(endpoint.headers.iter().filter_map(text).collect())
        .with_timeout(endpoint.timeout);
    if endpoint.gzip {
        exporter = exporter.with_compression(opentelemetry_otlp::Compression::Gzip);
    }
    exporter.build().map_err(SetupError::Exporter)
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

/// One message of gRPC: whether it is compressed, its length, itself.
fn framed(message: &[u8], compressed: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(u8::from(compressed));
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

fn compressed(message: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing into memory does not fail.
    let written = encoder.write_all(message).and_then(|()| encoder.finish());
    written.map(Bytes::from).unwrap_or_default()
}

/// The answer of gRPC: its status is in the trailers, or in the headers of an answer without a body.
async fn grpc_answer(answer: Response<Incoming>) -> Result<(), Refusal> {
    if answer.status() != StatusCode::OK {
        return Err(by_http_status(answer.status()));
    }
    let headers = answer.headers().clone();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| Refusal {
        why: format!("reading the answer: {error}"),
        retryable: true,
    })?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let field = |name: &str| -> Option<String> {
        let text = |map: &HeaderMap| Some(map.get(name)?.to_str().ok()?.to_owned());
        text(&trailers).or_else(|| text(&headers))
    };
    match field("grpc-status").as_deref() {
        Some("0") => Ok(()),
        status => {
            let code = status.and_then(|code| code.parse().ok()).unwrap_or(2);
            let message = field("grpc-message").unwrap_or_default();
            Err(Refusal {
                why: format!("the collector answered with gRPC status {code} {message}")
                    .trim_end()
                    .to_owned(),
                // CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, OUT_OF_RANGE, UNAVAILABLE,
                // DATA_LOSS: https://opentelemetry.io/docs/specs/otlp/#failures
                retryable: matches!(code, 1 | 4 | 8 | 10 | 11 | 14 | 15),
            })
        }
    }
}

async fn http_answer(answer: Response<Incoming>) -> Result<(), Refusal> {
    let status = answer.status();
    // The connection is used again only when the answer has been read.
    let _ = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    if status.is_success() { Ok(()) } else { Err(by_http_status(status)) }
}

fn by_http_status(status: StatusCode) -> Refusal {
    Refusal {
        why: format!("the collector answered with HTTP status {status}"),
        retryable: matches!(status.as_u16(), 429 | 502 | 503 | 504),
    }
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
    config.alpn_protocols = match endpoint.protocol {
        Protocol::Grpc => vec![b"h2".to_vec()],
        Protocol::Http => vec![b"http/1.1".to_vec()],
    };
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    read.map_err(|source| unreadable(file, source))
}

fn unreadable(file: &Path, source: rustls_pki_types::pem::Error) -> SetupError {
    SetupError::File { file: file.display().to_string(), source }
}
