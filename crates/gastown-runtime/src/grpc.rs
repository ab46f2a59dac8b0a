//! The gRPC server of a controller: TLS, bearer tokens, trace context, deadlines, drain. Of several
//! replicas the one that works for the rig answers; the others name its address. The client side is crate
//! `gastown-grpc`.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

pub use gastown_grpc::{AuthChannel, Holder, Remote, others, retry, set_others};
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Status};
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::auth::{self, Identity, TokenReviewer};
use crate::metrics::Metrics;
use crate::runtime::Runtime;
use crate::shards::Work;
use crate::telemetry;
use crate::tls::{self, Tls};

/// The longest time that a unary call takes on the server.
pub const SERVER_DEADLINE: Duration = Duration::from_secs(30);
const HEALTH: &str = "/grpc.health.v1.Health/";
const REFLECTION: &str = "/grpc.reflection.";

/// Decides whether a caller may call a method, by its path `/package.Service/Method`; the error is
/// why not.
pub type Policy = Arc<dyn Fn(&str, &Identity) -> Result<(), String> + Send + Sync>;

/// The methods of a service, and the service accounts that may call each.
pub type Callers = &'static [(&'static str, &'static [&'static str])];

/// Whether a table allows a caller to call a method; only service accounts of namespace `release`
/// are allowed anything.
pub fn is_allowed(callers: Callers, release: &str, method: &str, caller: &Identity) -> bool {
    let allowed =
        callers.iter().find(|(m, _)| *m == method).map(|(_, who)| *who).unwrap_or_default();
    caller.namespace == release && allowed.contains(&caller.service_account.as_str())
}

/// The policy of a table: which service accounts of namespace `release` may call which method of
/// `service` (`package.Service`). Everything else is refused.
pub fn table(service: &'static str, release: &str, callers: Callers) -> Policy {
    let release = release.to_owned();
    Arc::new(move |path: &str, caller: &Identity| {
        let method = path
            .strip_prefix('/')
            .and_then(|p| p.strip_prefix(service))
            .and_then(|p| p.strip_prefix('/'));
        if method.is_some_and(|method| is_allowed(callers, &release, method, caller)) {
            return Ok(());
        }
        Err(format!("{}:{} may not call {path}", caller.namespace, caller.service_account))
    })
}

/// Why the server failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptors cannot be decoded.
    #[error("building the reflection service")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("serving gRPC")]
    Serve(#[source] tonic::transport::Error),
}

/// Serves `routes`, health and reflection until the runtime drains and running calls have ended.
/// Every call except those of the health service needs a token; the caller's [`Identity`] is in the
/// request's extensions. Calls of `routes` are answered while this process works for the rig that they are
/// about, or for any where they do not name one.
pub async fn serve(
    listener: TcpListener,
    tls: &Tls,
    routes: Routes,
    descriptors: &'static [u8],
    policy: Policy,
    runtime: &Runtime,
) -> Result<(), Error> {
    runtime.metrics.watch_certificate(tls);
    let drain = runtime.drain.clone();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(descriptors)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(Error::Reflection)?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let routes = routes.add_service(health).add_service(reflection);
    let connections = ReceiverStream::new(tls::accept(listener, tls, &[b"h2"], drain.clone()));
    let draining = drain.clone();
    let signal = async move {
        draining.cancelled().await;
        reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    };
    Server::builder()
        .timeout(SERVER_DEADLINE)
        .max_concurrent_streams(256)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .layer(AuthLayer { runtime: runtime.clone(), reviewer: runtime.reviewer(), policy })
        .serve_with_incoming_shutdown(routes.prepare(), connections, signal)
        .await
        .map_err(Error::Serve)
}

/// Begins work for a rig on behalf of a caller; an error that names the replica that works for it,
/// when this one does not.
pub fn enter(runtime: &Runtime, rig: &str) -> Result<Work, Status> {
    runtime.enter(rig).ok_or_else(|| elsewhere(runtime, rig))
}

/// Why this process does not answer about a rig.
pub fn elsewhere(runtime: &Runtime, rig: &str) -> Status {
    let (name, address) = runtime.shards.other(rig);
    let message = format!(
        "this replica of {} does not serve rig {rig}; the one that does is {}",
        runtime.controller,
        name.as_deref().unwrap_or("not known")
    );
    gastown_grpc::elsewhere(message, address)
}

/// Puts the caller's [`Identity`] into each request, or refuses it.
#[derive(Clone)]
struct AuthLayer {
    runtime: Runtime,
    reviewer: TokenReviewer,
    policy: Policy,
}

impl<S> Layer<S> for AuthLayer {
    type Service = Auth<S>;

    fn layer(&self, inner: S) -> Auth<S> {
        Auth { inner, layer: self.clone() }
    }
}

#[derive(Clone)]
struct Auth<S> {
    inner: S,
    layer: AuthLayer,
}

impl<S, B> Service<http::Request<Body>> for Auth<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Default + Send + 'static,
{
    type Response = http::Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The service that is ready takes this call; its clone the next one.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let AuthLayer { runtime, reviewer, policy } = self.layer.clone();
        let path = request.uri().path().to_owned();
        let span = rpc_span(&path);
        // Before the span is entered: a span that has started takes no parent any more.
        if let Some(parent) =
            request.headers().get("traceparent").and_then(|value| value.to_str().ok())
        {
            telemetry::set_parent(&span, parent);
        }
        let (calls, began) = (Calls::new(&runtime.metrics, &path), Instant::now());
        let call = async move {
            let is_ours = !path.starts_with(HEALTH) && !path.starts_with(REFLECTION);
            // Before the token is reviewed: a replica that works for no rig asks for nothing.
            let rig = request.headers().get(gastown_grpc::RIG).and_then(|v| v.to_str().ok());
            let is_here = rig.map_or(runtime.shards.serves_any(), |rig| runtime.serves(rig));
            if is_ours && !is_here {
                calls.refused(tonic::Code::Unavailable, began);
                return Ok(elsewhere(&runtime, rig.unwrap_or_default()).into_http());
            }
            if !path.starts_with(HEALTH) {
                match authorize(&reviewer, &policy, &path, request.headers()).await {
                    Ok(identity) => {
                        let peer = format!("{}:{}", identity.namespace, identity.service_account);
                        tracing::Span::current().record("gastown.peer", peer);
                        request.extensions_mut().insert(identity);
                    }
                    Err(refusal) => {
                        record_status(refusal.code());
                        calls.refused(refusal.code(), began);
                        return Ok(refusal.into_http());
                    }
                }
            }
            let answer = inner.call(request).await;
            // The status of an answer without a body; that of another is in its trailers, which are
            // not there yet: then the call is under way as it should be.
            if let Ok(answer) = &answer {
                let status = Status::from_header_map(answer.headers());
                let code = status.map_or(tonic::Code::Ok, |status| status.code());
                record_status(code);
                calls.served(code, began);
            }
            answer
        };
        Box::pin(call.instrument(span))
    }
}

/// Counts one call.
struct Calls {
    metrics: Metrics,
    service: String,
    method: String,
}

impl Calls {
    fn new(metrics: &Metrics, path: &str) -> Self {
        let path = path.trim_start_matches('/');
        let (service, method) = path.split_once('/').unwrap_or((path, ""));
        Self { metrics: metrics.clone(), service: service.to_owned(), method: method.to_owned() }
    }

    /// Whoever was refused may have named any method: it is counted without its name.
    fn refused(mut self, code: tonic::Code, began: Instant) {
        (self.service, self.method) = ("other".to_owned(), "other".to_owned());
        self.served(code, began);
    }

    /// The method is one that our policy, or one of tonic's services, has.
    fn served(self, code: tonic::Code, began: Instant) {
        let Self { metrics, service, method } = self;
        // Of health and reflection anybody may name a method that does not exist.
        let labels = if code == tonic::Code::Unimplemented {
            ["other".into(), "other".into()]
        } else {
            [service.into(), method.into()]
        };
        metrics.grpc_seconds.observe(labels.clone(), began.elapsed().as_secs_f64(), None);
        let [service, method] = labels;
        metrics.grpc_calls.inc([service, method, format!("{code:?}").into()]);
    }
}

/// The span of a call, named as OpenTelemetry's conventions for RPC have it.
fn rpc_span(path: &str) -> tracing::Span {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    tracing::info_span!(
        "call",
        otel.name = path.trim_start_matches('/'),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = tracing::field::Empty,
        gastown.peer = tracing::field::Empty,
    )
}

/// Records how the current call ended. Of a server only its own faults are errors.
fn record_status(code: tonic::Code) {
    use tonic::Code;
    let span = tracing::Span::current();
    span.record("rpc.grpc.status_code", code as i64);
    let is_fault = matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    );
    if is_fault {
        span.record("otel.status_code", "ERROR");
    }
}

async fn authorize(
    reviewer: &TokenReviewer,
    policy: &Policy,
    path: &str,
    headers: &http::HeaderMap,
) -> Result<Identity, Status> {
    let identity = reviewer.review_headers(headers).await.map_err(|error| match error {
        auth::Error::Unauthenticated(why) => Status::unauthenticated(why),
        error @ auth::Error::Unavailable(_) => Status::unavailable(error.to_string()),
    })?;
    // Reflection shows what anybody can read in our source: a valid token is enough.
    if !path.starts_with(REFLECTION) {
        policy(path, &identity).map_err(Status::permission_denied)?;
    }
    Ok(identity)
}

/// The caller of a request to our server.
pub fn caller<T>(request: &Request<T>) -> Result<&Identity, Status> {
    request
        .extensions()
        .get::<Identity>()
        .ok_or_else(|| Status::unauthenticated("the request has no identity"))
}

/// Binds an address, for [`serve`] or [`crate::https::serve`].
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
