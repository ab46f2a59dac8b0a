//! The Kubernetes client: deadline, bounded retry, metrics and user agent around kube's own stack.
//!
//! kube's own retry is off: it may wait for minutes inside one `.await`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use kube::client::{Body, ClientBuilder};
use tower::{BoxError, Layer, Service, ServiceExt as _};

use crate::jitter::jittered;
use crate::metrics::Metrics;

/// A call that is not a stream ends within this time, retries included.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How many times one call is sent again.
const MAX_RETRIES: u32 = 4;

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no kubeconfig, and the process does not run in a cluster.
    #[error("finding the address and credentials of the API server")]
    Config(#[source] kube::config::InferConfigError),
    /// The configuration is not valid.
    #[error("building the client")]
    Build(#[source] Box<kube::Error>),
    /// The controller's name cannot be a header's value.
    #[error("setting the user agent")]
    UserAgent(#[source] http::header::InvalidHeaderValue),
}

/// A client of the cluster that this process runs in, or that its kubeconfig names.
pub async fn infer(controller: &str, metrics: &Metrics) -> Result<kube::Client, Error> {
    let config = kube::Config::infer().await.map_err(Error::Config)?;
    with_config(config, controller, metrics)
}

/// A client with a given configuration, such as one that impersonates a service account.
pub fn with_config(
    mut config: kube::Config,
    controller: &str,
    metrics: &Metrics,
) -> Result<kube::Client, Error> {
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    let agent = format!("{controller}/{}", env!("CARGO_PKG_VERSION"));
    config.headers.push((http::header::USER_AGENT, agent.parse().map_err(Error::UserAgent)?));
    let builder = ClientBuilder::try_from(config).map_err(|error| Error::Build(Box::new(error)))?;
    Ok(builder.with_layer(&CallLayer::new(metrics.clone(), DEADLINE)).build())
}

/// The body of a response: complete, or a stream.
pub type CallBody = UnsyncBoxBody<Bytes, BoxError>;

/// Deadline, retry and metrics, for [`ClientBuilder::with_layer`].
#[derive(Clone, Debug)]
pub struct CallLayer {
    metrics: Metrics,
    deadline: Duration,
}

impl CallLayer {
    /// The layer that [`with_config`] adds to a client; tests add it to a fake.
    pub fn new(metrics: Metrics, deadline: Duration) -> Self {
        Self { metrics, deadline }
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = Call<S>;

    fn layer(&self, inner: S) -> Call<S> {
        Call { inner: Arc::new(tokio::sync::Mutex::new(inner)), layer: self.clone() }
    }
}

/// The service of [`CallLayer`].
#[derive(Debug)]
pub struct Call<S> {
    // kube's stack is not `Clone`; it is locked only until it has made the future of one attempt.
    inner: Arc<tokio::sync::Mutex<S>>,
    layer: CallLayer,
}

impl<S, B> Service<Request<Body>> for Call<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<CallBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<CallBody>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = self.inner.clone();
        let layer = self.layer.clone();
        Box::pin(async move {
            let Target { verb, resource } = Target::of(&request);
            let stream = is_stream(&request);
            let started = tokio::time::Instant::now();
            let call = attempts(inner, request, verb, stream, &layer);
            let outcome = if stream {
                call.await
            } else {
                tokio::time::timeout(layer.deadline, call)
                    .await
                    .unwrap_or_else(|_| Err(Box::new(DeadlineExceeded(layer.deadline))))
            };
            let code = match &outcome {
                Ok(response) => response.status().as_str().to_owned(),
                Err(error) if error.is::<DeadlineExceeded>() => "timeout".to_owned(),
                Err(_) => "error".to_owned(),
            };
            let seconds = started.elapsed().as_secs_f64();
            layer.metrics.requests.inc([verb.into(), resource.into(), code.into()]);
            layer.metrics.request_seconds.observe([verb.into()], seconds, None);
            outcome
        })
    }
}

/// The API server did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer from the API server within {0:?}")]
pub struct DeadlineExceeded(Duration);

async fn attempts<S, B>(
    inner: Arc<tokio::sync::Mutex<S>>,
    request: Request<Body>,
    verb: &'static str,
    stream: bool,
    layer: &CallLayer,
) -> Result<Response<CallBody>, BoxError>
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let mut body = Some(body);
    let mut retries = 0;
    loop {
        // A body that is a stream cannot be sent twice.
        let again = body.as_ref().and_then(Body::try_clone);
        let last = retries >= MAX_RETRIES || again.is_none();
        let Some(sendable) = again.or_else(|| body.take()) else {
            return Err("the request's body has been sent already".into());
        };
        let mut attempt = Request::new(sendable);
        attempt.method_mut().clone_from(&parts.method);
        attempt.uri_mut().clone_from(&parts.uri);
        attempt.headers_mut().clone_from(&parts.headers);
        *attempt.extensions_mut() = parts.extensions.clone();
        let sent = {
            let mut service = inner.lock().await;
            let ready: &mut S = service.ready().await.map_err(Into::into)?;
            ready.call(attempt)
        };
        let wait = match sent.await {
            Ok(response) => match retry_after(&response) {
                Some(wait) if !last => wait,
                _ => return read(response, stream).await,
            },
            Err(error) => {
                let error = error.into();
                if last || !may_resend(&parts.method, error.as_ref()) {
                    return Err(error);
                }
                None
            }
        };
        retries += 1;
        layer.metrics.request_retries.inc([verb.into()]);
        let wait = wait.unwrap_or_else(|| Duration::from_millis(50 << (2 * retries.min(5))));
        tokio::time::sleep(jittered(wait.min(Duration::from_secs(3)))).await;
    }
}

/// How long an overloaded server asks to wait: `Some(None)` when it gives no time, `None` when the
/// response is not to be retried.
#[allow(clippy::option_option)]
fn retry_after<B>(response: &Response<B>) -> Option<Option<Duration>> {
    let busy = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    busy.contains(&response.status()).then(|| {
        let header = response.headers().get(http::header::RETRY_AFTER)?;
        Some(Duration::from_secs(header.to_str().ok()?.parse().ok()?))
    })
}

/// Whether the request had no effect, or has the same effect when it arrives twice. A POST whose
/// connection broke may have created its object: only the caller can find out.
fn may_resend(method: &Method, error: &(dyn std::error::Error + 'static)) -> bool {
    if method != Method::POST {
        return true;
    }
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = error.source();
    }
    false
}

/// Reads the body to its end, unless it is a stream, so that the deadline covers it too.
async fn read<B>(response: Response<B>, stream: bool) -> Result<Response<CallBody>, BoxError>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = response.into_parts();
    let body =
        if stream && parts.status.is_success() || parts.status == StatusCode::SWITCHING_PROTOCOLS {
            body.map_err(Into::into).boxed_unsync()
        } else {
            Full::new(body.collect().await.map_err(Into::into)?.to_bytes())
                .map_err(|never| match never {})
                .boxed_unsync()
        };
    Ok(Response::from_parts(parts, body))
}

fn is_stream<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    let has = |key: &str| {
        query.split('&').any(|pair| {
            pair.split_once('=')
                .is_some_and(|(name, value)| name == key && matches!(value, "true" | "1"))
        })
    };
    has("watch") || has("follow") || request.headers().contains_key(http::header::UPGRADE)
}

/// What a request is about, in the terms of RBAC.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    verb: &'static str,
    resource: String,
}

impl Target {
    fn of<B>(request: &Request<B>) -> Self {
        let path = request.uri().path().trim_matches('/');
        let mut parts = path.split('/');
        let resource_parts: Vec<&str> = match parts.next() {
            Some("api") => parts.skip(1).collect(),
            Some("apis") => parts.skip(2).collect(),
            // `/version`, `/readyz` and similar: one label for all.
            _ => return Self { verb: "get", resource: "nonresource".to_owned() },
        };
        let rest = match resource_parts.as_slice() {
            // `namespaces/NAME/status` and `/finalize` are subresources of the namespace itself;
            // any other third part is a resource in it.
            ["namespaces", _, sub] if matches!(*sub, "status" | "finalize") => {
                &["namespaces", "", sub][..].to_vec()
            }
            ["namespaces", _, rest @ ..] if !rest.is_empty() => &rest.to_vec(),
            rest => &rest.to_vec(),
        };
        let named = rest.len() > 1;
        let resource = match rest.as_slice() {
            [] => "discovery".to_owned(),
            [kind, _, sub, ..] => format!("{kind}/{sub}"),
            [kind, ..] => (*kind).to_owned(),
        };
        Self { verb: verb(request, named), resource }
    }
}

fn verb<B>(request: &Request<B>, named: bool) -> &'static str {
    let apply = || {
        request
            .headers()
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"))
    };
    match *request.method() {
        Method::GET if is_stream(request) => "watch",
        Method::GET if named => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH if apply() => "apply",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
