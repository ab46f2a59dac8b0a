//! Sends messages of metrics through the clients that the exporters of `opentelemetry-otlp` use.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, Request, StatusCode, header};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::HttpClient as _;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use prost::Message as _;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::settings::{Endpoint, Protocol};
use super::transport::{self, Refusal, SetupError, chain};

/// The way of metrics to their collector. Clones share the connection.
#[derive(Clone, Debug)]
pub(super) enum MetricsClient {
    Grpc(MetricsServiceClient<Channel>, MetadataMap),
    Http(HyperClient<HttpsConnector<HttpConnector>>, Arc<Endpoint>),
}

impl MetricsClient {
    /// The way to an endpoint. Nothing is connected yet.
    pub(super) fn new(endpoint: Endpoint) -> Result<Self, SetupError> {
        Ok(match endpoint.protocol {
            Protocol::Grpc => {
                let mut client = MetricsServiceClient::new(transport::channel(&endpoint)?);
                if endpoint.gzip {
                    client = client.send_compressed(CompressionEncoding::Gzip);
                }
                Self::Grpc(client, transport::metadata(&endpoint))
            }
            Protocol::Http => Self::Http(transport::http_client(&endpoint)?, Arc::new(endpoint)),
        })
    }

    /// Sends one message once, within the endpoint's timeout.
    pub(super) async fn send(self, message: ExportMetricsServiceRequest) -> Result<(), Refusal> {
        match self {
            Self::Grpc(mut client, metadata) => {
                let request =
                    tonic::Request::from_parts(metadata, tonic::Extensions::default(), message);
                client.export(request).await.map(drop).map_err(|status| by_status(&status))
            }
            Self::Http(client, endpoint) => {
                let request = post(&endpoint, &message).map_err(|error| Refusal {
                    why: format!("making the request: {error}"),
                    retryable: false,
                })?;
                let lost = |why| Refusal { why, retryable: true };
                let answer = client.send_bytes(request).await;
                let answer = answer.map_err(|error| lost(chain(error.as_ref())))?;
                let status = answer.status();
                if status.is_success() { Ok(()) } else { Err(by_http_status(status)) }
            }
        }
    }
}

fn post(
    endpoint: &Endpoint,
    message: &ExportMetricsServiceRequest,
) -> Result<Request<Bytes>, http::Error> {
    let mut request = Request::post(endpoint.uri.clone());
    if let Some(headers) = request.headers_mut() {
        headers.extend(endpoint.headers.iter().cloned().collect::<HeaderMap>());
    }
    request = request.header(header::CONTENT_TYPE, "application/x-protobuf");
    let body = message.encode_to_vec();
    if !endpoint.gzip {
        return request.body(body.into());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing into memory does not fail.
    let compressed = encoder.write_all(&body).and_then(|()| encoder.finish()).unwrap_or_default();
    request.header(header::CONTENT_ENCODING, "gzip").body(compressed.into())
}

fn by_status(status: &Status) -> Refusal {
    // https://opentelemetry.io/docs/specs/otlp/#failures
    let retryable = matches!(
        status.code(),
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    );
    Refusal { why: chain(status), retryable }
}

fn by_http_status(status: StatusCode) -> Refusal {
    Refusal {
        why: format!("the collector answered with HTTP status {status}"),
        retryable: matches!(status.as_u16(), 429 | 502 | 503 | 504),
    }
}
