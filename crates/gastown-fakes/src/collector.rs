//! An OpenTelemetry collector that keeps the spans, log lines and metrics that it is sent: OTLP over gRPC and over HTTP on one
//! port, with or without TLS.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// What a collector does with requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Takes them.
    #[default]
    Takes,
    /// Answers that they may be sent again.
    Busy,
    /// Never answers.
    Hangs,
}

/// A collector. It ends when it is dropped.
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct State {
    mood: Mutex<Mood>,
    received: Mutex<Received>,
    changed: Notify,
}

/// What was received.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// How many requests came, whatever became of them.
    pub requests: usize,
    /// The headers of the last request.
    pub headers: HeaderMap,
    /// The attributes of the resource of the last request that was taken.
    pub resource: BTreeMap<String, String>,
    /// The spans that were taken, with their scope's name, in the order in which they came.
    pub spans: Vec<(String, Span)>,
    /// The log lines that were taken, in the order in which they came.
    pub logs: Vec<LogRecord>,
    /// The metrics that were taken, in the order in which they came.
    pub metrics: Vec<Metric>,
}

impl Received {
    /// The spans of one trace, by its id in hexadecimal digits.
    pub fn of_trace(&self, trace: &str) -> Vec<Span> {
        let is_of = |span: &&Span| hex::encode(&span.trace_id) == trace;
        self.spans.iter().map(|(_, span)| span).filter(is_of).cloned().collect()
    }
}

impl Collector {
    /// A collector on a free port of this machine.
    pub async fn start(tls: Option<TlsAcceptor>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::<State>::default();
        let shared = state.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (shared.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, state).await;
                            }
                        }
                        None => serve(stream, state).await,
                    }
                });
            }
        });
        Ok(Self { address, state, _serving: AbortOnDropHandle::new(serving) })
    }

    /// What it does from now on.
    pub fn set_mood(&self, mood: Mood) {
        *self.state.mood.lock() = mood;
    }

    /// What it has received.
    pub fn received(&self) -> Received {
        self.state.received.lock().clone()
    }

    /// Waits until what it has received is enough.
    pub async fn wait(&self, is_enough: impl Fn(&Received) -> bool) -> Received {
        loop {
            let changed = self.state.changed.notified();
            let received = self.received();
            if is_enough(&received) {
                return received;
            }
            changed.await;
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, state: Arc<State>) {
    let service = service_fn(|request| answer(request, state.clone()));
    // The other side may end a connection as it likes.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<Body>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let is = |name: &str, value: &str| parts.headers.get(name).is_some_and(|v| v == value);
    let is_grpc = is("content-type", "application/grpc");
    let is_gzip = is("grpc-encoding", "gzip") || is("content-encoding", "gzip");
    let message = if is_grpc { body.slice(5..) } else { body };
    let message = if is_gzip { unzipped(&message) } else { message };
    let mood = *state.mood.lock();
    {
        let mut received = state.received.lock();
        received.requests += 1;
        received.headers = parts.headers;
        if mood == Mood::Takes {
            take(&mut received, parts.uri.path(), message);
        }
    }
    state.changed.notify_waiters();
    Ok(match (mood, is_grpc) {
        (Mood::Hangs, _) => std::future::pending().await,
        (Mood::Takes, true) => grpc("0"),
        (Mood::Busy, true) => grpc("14"),
        (Mood::Takes, false) => http(StatusCode::OK),
        (Mood::Busy, false) => http(StatusCode::SERVICE_UNAVAILABLE),
    })
}

fn unzipped(body: &[u8]) -> Bytes {
    let mut message = Vec::new();
    // What is not compressed is no message either.
    let _ = GzDecoder::new(body).read_to_end(&mut message);
    message.into()
}

/// Keeps what a message of the signal of this path holds.
fn take(received: &mut Received, path: &str, message: Bytes) {
    match path {
        "/v1/traces" | "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => {
            let Ok(message) = ExportTraceServiceRequest::decode(message) else { return };
            for of_resource in message.resource_spans {
                received.resource = attributes(of_resource.resource);
                for of_scope in of_resource.scope_spans {
                    let name = of_scope.scope.map(|scope| scope.name).unwrap_or_default();
                    let spans = of_scope.spans.into_iter().map(|span| (name.clone(), span));
                    received.spans.extend(spans);
                }
            }
        }
        "/v1/logs" | "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => {
            let Ok(message) = ExportLogsServiceRequest::decode(message) else { return };
            for of_resource in message.resource_logs {
                received.resource = attributes(of_resource.resource);
                received
                    .logs
                    .extend(of_resource.scope_logs.into_iter().flat_map(|s| s.log_records));
            }
        }
        "/v1/metrics" | "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => {
            let Ok(message) = ExportMetricsServiceRequest::decode(message) else { return };
            for of_resource in message.resource_metrics {
                received.resource = attributes(of_resource.resource);
                received
                    .metrics
                    .extend(of_resource.scope_metrics.into_iter().flat_map(|s| s.metrics));
            }
        }
        _ => {}
    }
}

/// The attributes of a resource, as text.
fn attributes(resource: Option<Resource>) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    };
    let attributes = resource.map(|resource| resource.attributes).unwrap_or_default();
    attributes
        .into_iter()
        .map(|pair| (pair.key, text(pair.value.and_then(|value| value.value))))
        .collect()
}

/// An empty message, and a status in the trailers.
fn grpc(status: &'static str) -> Response<Body> {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(0);
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static(status),
    )]);
    let body = Full::new(frame.freeze()).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn http(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = status;
    response
}
