//! gRPC between controllers: TLS, bearer tokens, trace context, deadlines, drain.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Server};
use tonic::{Code, Request, Status};
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::auth::{self, Identity, TokenReviewer};
use crate::telemetry;
use crate::tls::{self, Tls};

/// A unary call takes at most this long on the server.
pub const SERVER_DEADLINE: Duration = Duration::from_secs(30);
const HEALTH: &str = "/grpc.health.v1.Health/";

/// Who may call what: `Err` says why not. The path is `/package.Service/Method`.
pub type Policy = Arc<dyn Fn(&str, &Identity) -> Result<(), String> + Send + Sync>;

/// Methods of a service, and the service accounts that may call each.
pub type Callers = &'static [(&'static str, &'static [&'static str])];

/// Whether a table lets the caller, of the namespace `release`, call a method.
pub fn is_allowed(callers: Callers, release: &str, method: &str, caller: &Identity) -> bool {
    let allowed =
        callers.iter().find(|(m, _)| *m == method).map(|(_, who)| *who).unwrap_or_default();
    caller.namespace == release && allowed.contains(&caller.service_account.as_str())
}

/// A policy that is a table: who of the namespace `release` may call what of `service`
/// (`package.Service`), and nobody else anything.
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

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptors do not decode.
    #[error("building the reflection service")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("serving gRPC")]
    Serve(#[source] tonic::transport::Error),
    /// The CA certificate cannot be read.
    #[error("reading {0}")]
    Ca(PathBuf, #[source] std::io::Error),
    /// The address is none, or the CA is no certificate.
    #[error("preparing calls to {0}")]
    Endpoint(String, #[source] tonic::transport::Error),
}

/// Serves `routes` with health and reflection until `drain`; then running calls end first. Every
/// call but those of the health service needs a token; the caller's [`Identity`] is in the
/// request's extensions.
pub async fn serve(
    listener: TcpListener,
    tls: &Tls,
    routes: Routes,
    descriptors: &'static [u8],
    reviewer: TokenReviewer,
    policy: Policy,
    drain: CancellationToken,
) -> Result<(), Error> {
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
        .layer(AuthLayer { reviewer, policy })
        .serve_with_incoming_shutdown(routes.prepare(), connections, signal)
        .await
        .map_err(Error::Serve)
}

/// Puts the caller's [`Identity`] into each request, or answers it with the refusal.
#[derive(Clone)]
struct AuthLayer {
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
        // The one that is ready goes; its clone waits for the next call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let AuthLayer { reviewer, policy } = self.layer.clone();
        let path = request.uri().path().to_owned();
        let span = tracing::info_span!("call", rpc.path = path);
        // Before the span is entered: a started span takes no parent any more.
        if let Some(parent) =
            request.headers().get("traceparent").and_then(|value| value.to_str().ok())
        {
            telemetry::set_parent(&span, parent);
        }
        let call = async move {
            if !path.starts_with(HEALTH) {
                match admit(&reviewer, &policy, &path, request.headers()).await {
                    Ok(identity) => drop(request.extensions_mut().insert(identity)),
                    Err(refusal) => return Ok(refusal.into_http()),
                }
            }
            inner.call(request).await
        };
        Box::pin(call.instrument(span))
    }
}

async fn admit(
    reviewer: &TokenReviewer,
    policy: &Policy,
    path: &str,
    headers: &http::HeaderMap,
) -> Result<Identity, Status> {
    let identity = reviewer.review_headers(headers).await.map_err(|error| match error {
        auth::Error::Unauthenticated(why) => Status::unauthenticated(why),
        error @ auth::Error::Unavailable(_) => Status::unavailable(error.to_string()),
    })?;
    // Reflection tells what anybody can read in our source: a valid token is enough.
    if !path.starts_with("/grpc.reflection.") {
        policy(path, &identity).map_err(Status::permission_denied)?;
    }
    Ok(identity)
}

/// The caller of a request on our server.
pub fn caller<T>(request: &Request<T>) -> Result<&Identity, Status> {
    request.extensions().get::<Identity>().ok_or_else(|| Status::unauthenticated("no identity"))
}

/// A channel whose calls carry our token and the trace context.
pub type AuthChannel = InterceptedService<Channel, Bearer>;

/// Adds the projected token, read anew for each call since the kubelet rotates it, and
/// `traceparent`.
#[derive(Clone, Debug)]
pub struct Bearer {
    token_file: PathBuf,
}

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let file = if self.token_file.is_dir() {
            self.token_file.join("token")
        } else {
            self.token_file.clone()
        };
        let token = std::fs::read_to_string(&file).map_err(|error| {
            Status::unavailable(format!("reading the token {}: {error}", file.display()))
        })?;
        let value = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| Status::internal("the token is no header value"))?;
        request.metadata_mut().insert("authorization", value);
        if let Some(Ok(parent)) = telemetry::traceparent().map(|parent| parent.parse()) {
            request.metadata_mut().insert("traceparent", parent);
        }
        Ok(request)
    }
}

/// A server of another controller. It need not be there: connections are made when a call is, and
/// again when lost.
#[derive(Debug)]
pub struct Remote {
    uri: String,
    ca_file: PathBuf,
    bearer: Bearer,
    deadline: Duration,
    present: parking_lot::Mutex<Option<(Vec<u8>, Channel)>>,
}

impl Remote {
    /// `uri` is `https://host:port`; the host must be a name in the server's certificate. The CA is
    /// `ca.crt` in `tls_dir`. Each attempt of a call ends within `deadline`.
    pub fn new(uri: &str, tls_dir: &Path, token_file: &Path, deadline: Duration) -> Self {
        Self {
            uri: uri.to_owned(),
            ca_file: tls_dir.join("ca.crt"),
            bearer: Bearer { token_file: token_file.to_owned() },
            deadline,
            present: parking_lot::Mutex::default(),
        }
    }

    /// The channel, made anew when the CA has changed. Cheap: ask for it before each call. Must be
    /// called in the async runtime.
    pub fn channel(&self) -> Result<AuthChannel, Error> {
        let ca =
            std::fs::read(&self.ca_file).map_err(|error| Error::Ca(self.ca_file.clone(), error))?;
        let mut present = self.present.lock();
        let channel = match present.as_ref() {
            Some((same, channel)) if *same == ca => channel.clone(),
            _ => {
                let channel = self.connect(&ca)?;
                *present = Some((ca, channel.clone()));
                channel
            }
        };
        Ok(InterceptedService::new(channel, self.bearer.clone()))
    }

    fn connect(&self, ca: &[u8]) -> Result<Channel, Error> {
        let endpoint = || {
            Endpoint::from_shared(self.uri.clone())?
                .timeout(self.deadline)
                .connect_timeout(Duration::from_secs(3))
                .http2_keep_alive_interval(Duration::from_secs(30))
                .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)))
        };
        Ok(endpoint().map_err(|error| Error::Endpoint(self.uri.clone(), error))?.connect_lazy())
    }
}

/// Calls up to `most` times while the answer is one that another attempt may better, with 100 ms,
/// 200 ms, … (jittered) between. For calls that change nothing when they come twice.
pub async fn retry<T, F, Fut>(most: u32, mut call: F) -> Result<T, Status>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Status>>,
{
    let mut tried = 0;
    loop {
        match call().await {
            Err(status)
                if tried + 1 < most
                    && matches!(
                        status.code(),
                        Code::Unavailable
                            | Code::ResourceExhausted
                            | Code::DeadlineExceeded
                            | Code::Aborted
                    ) =>
            {
                tried += 1;
                let wait = Duration::from_millis(100 << tried.min(6));
                tracing::debug!(code = ?status.code(), tried, "a call is tried again");
                tokio::time::sleep(crate::jittered(wait)).await;
            }
            ended => return ended,
        }
    }
}

/// Binds an address for [`serve`] or [`crate::https::serve`].
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
