//! A real git server over smart HTTP: git's own `http-backend` behind a router, over a folder of
//! bare repositories.
//!
//! Everybody may read and write unless a login is set. Objects are checked when they arrive; every
//! branch may be deleted or moved backwards, as on a forge without protected branches. A test may
//! refuse pushes to a ref, and stop the server and start it again on its port.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::io::ReaderStream;

use crate::connection::Connection;

mod git_lfs;

/// The file in a bare repository that lists the refs that no push may touch, one a line.
const REFUSED: &str = "refused-refs";

/// Refuses what [`REFUSED`] lists, in git's own words for a declined ref.
const UPDATE_HOOK: &str = r#"#!/bin/sh
[ -f "$GIT_DIR/refused-refs" ] || exit 0
while read -r ref; do
    if [ "$ref" = "$1" ]; then
        echo "$1 is protected" >&2
        exit 1
    fi
done <"$GIT_DIR/refused-refs"
"#;

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder that holds the bare repositories, `NAME.git`.
    pub dir: PathBuf,
    /// User and password that every request must carry; none are needed when absent.
    pub login: Option<(String, String)>,
}

/// A git server on a free port of the loopback interface, gone when dropped.
pub struct GitHttp {
    config: Config,
    address: SocketAddr,
    task: Option<JoinHandle<()>>,
    counts: Arc<Counts>,
    tls: Option<TlsAcceptor>,
}

/// The number of requests, and those that are refused.
#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    sessions: AtomicU64,
    refused: Mutex<Option<(String, StatusCode)>>,
    /// The connections over which pushes pass, by repository.
    connections: Mutex<BTreeMap<String, Arc<Connection>>>,
    /// What happens before a session, and before which.
    event: Mutex<Option<(u64, Event)>>,
}

type Event = Box<dyn FnOnce() + Send>;

impl GitHttp {
    /// Serves the repositories of `dir` to everybody.
    pub async fn start(dir: impl Into<PathBuf>) -> Result<Self> {
        Self::start_with(Config { dir: dir.into(), login: None }).await
    }

    /// Serves the repositories of `config.dir`.
    pub async fn start_with(config: Config) -> Result<Self> {
        Self::start_as(config, None).await
    }

    /// Serves the repositories of `config.dir` over https, with a certificate of an authority of
    /// its own, which is returned as PEM.
    pub async fn start_secure(config: Config) -> Result<(Self, String)> {
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der())
            .map_err(anyhow::Error::msg)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)?;
        let server = Self::start_as(config, Some(TlsAcceptor::from(Arc::new(tls)))).await?;
        Ok((server, own.cert.pem()))
    }

    async fn start_as(config: Config, tls: Option<TlsAcceptor>) -> Result<Self> {
        let counts = Arc::default();
        let (address, task) = serve("127.0.0.1:0".parse()?, &config, &counts, tls.as_ref()).await?;
        Ok(Self { config, address, task: Some(task), counts, tls })
    }

    /// `http://127.0.0.1:PORT` (or `https://…`), without a slash at its end and without a user.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The URL of one repository.
    pub fn repository(&self, name: &str) -> String {
        format!("{}/{name}.git", self.url())
    }

    /// Answers requests whose path contains this text with this status from now on, as a proxy
    /// before the server does; `None` serves all again.
    pub fn refuse_requests(&self, refused: Option<(&str, StatusCode)>) {
        *self.counts.refused.lock() = refused.map(|(part, status)| (part.to_owned(), status));
    }

    /// Something happens before the session of this number from now, from 1.
    pub fn before_session(&self, number: u64, event: impl FnOnce() + Send + 'static) {
        let number = self.sessions() + number;
        *self.counts.event.lock() = Some((number, Box::new(event)));
    }

    /// Pushes to this repository pass over the connection from now on: each is one of its writes.
    pub fn connect(&self, name: &str, connection: Arc<Connection>) {
        self.counts.connections.lock().insert(name.to_owned(), connection);
    }

    /// The folder of one bare repository.
    pub fn path(&self, name: &str) -> PathBuf {
        self.config.dir.join(format!("{name}.git"))
    }

    /// Creates an empty bare repository with `main` as its first branch.
    pub async fn create(&self, name: &str) -> Result<PathBuf> {
        create_repository(&self.config.dir, name).await
    }

    /// Declines pushes to these full ref names of a repository from now on; an empty list allows all
    /// again.
    pub fn refuse(&self, name: &str, refs: &[&str]) -> Result<()> {
        let mut lines = refs.join("\n");
        if !lines.is_empty() {
            // The hook reads whole lines only.
            lines.push('\n');
        }
        std::fs::write(self.path(name).join(REFUSED), lines)
            .context("writing the list of refused refs")
    }

    /// Closes the port: connections are refused until [`GitHttp::up`].
    pub async fn down(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // The listener is closed only when the task has ended.
            let _ = task.await;
        }
    }

    /// Serves again on the same port.
    pub async fn up(&mut self) -> Result<()> {
        if self.task.is_none() {
            self.task =
                Some(serve(self.address, &self.config, &self.counts, self.tls.as_ref()).await?.1);
        }
        Ok(())
    }

    /// How many requests there were so far.
    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// How many of them listed the refs, as every run of git against a remote does first.
    pub fn sessions(&self) -> u64 {
        self.counts.sessions.load(Ordering::Relaxed)
    }
}

impl Drop for GitHttp {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn serve(
    address: SocketAddr,
    config: &Config,
    counts: &Arc<Counts>,
    tls: Option<&TlsAcceptor>,
) -> Result<(SocketAddr, JoinHandle<()>)> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    let address = listener.local_addr()?;
    let app = router(config.clone()).layer(from_fn_with_state(counts.clone(), count));
    let tls = tls.cloned();
    let task = tokio::spawn(async move {
        let ended = match tls {
            Some(tls) => axum::serve(Secure { listener, tls }, app).await,
            None => axum::serve(listener, app).await,
        };
        if let Err(e) = ended {
            tracing::error!(error = %e, "the git server ended");
        }
    });
    Ok((address, task))
}

async fn count(State(counts): State<Arc<Counts>>, request: Request, next: Next) -> Response {
    counts.requests.fetch_add(1, Ordering::Relaxed);
    if request.uri().path().ends_with("/info/refs") {
        let number = counts.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some((_, event)) = counts.event.lock().take_if(|(at, _)| *at == number) {
            event();
        }
    }
    let refused = counts.refused.lock().clone();
    if let Some((_, status)) = refused.filter(|(part, _)| request.uri().path().contains(part)) {
        return (status, "refused on the way\n").into_response();
    }
    let pushed = request.uri().path().strip_suffix(".git/git-receive-pack");
    let connection =
        pushed.and_then(|name| counts.connections.lock().get(name.trim_matches('/')).cloned());
    match connection {
        Some(connection) => {
            connection.pass(Some("push".to_owned()), whole(next.run(request))).await
        }
        None => next.run(request).await,
    }
}

/// A response with all of its body: by then its request is carried out.
async fn whole(response: impl Future<Output = Response>) -> Response {
    let (parts, body) = response.await.into_parts();
    match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => Response::from_parts(parts, Body::from(bytes)),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// A listener whose connections speak TLS.
struct Secure {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl axum::serve::Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, peer) = axum::serve::Listener::accept(&mut self.listener).await;
            // A client that does not trust us ends the handshake.
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Creates an empty bare repository `NAME.git` in `dir`; one that exists is left as it is.
pub async fn create_repository(dir: &Path, name: &str) -> Result<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(plain) {
        bail!("{name:?} is not a repository name: letters, digits, - and _ only");
    }
    let path = dir.join(format!("{name}.git"));
    if path.join("HEAD").is_file() {
        return Ok(path);
    }
    let out = git(dir)
        .args(["init", "--quiet", "--bare", "--initial-branch=main"])
        .arg(&path)
        .output()
        .await?;
    if !out.status.success() {
        bail!("git init {}: {}", path.display(), String::from_utf8_lossy(&out.stderr).trim());
    }
    let hooks = path.join("hooks");
    std::fs::create_dir_all(&hooks)?;
    let hook = hooks.join("update");
    std::fs::write(&hook, UPDATE_HOOK)?;
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(path)
}

/// `git` in `dir` without the machine's own configuration.
fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    let settings = [
        ("http.receivepack", "true"),
        ("receive.fsckObjects", "true"),
        ("receive.denyNonFastForwards", "false"),
        ("receive.denyDeletes", "false"),
        ("receive.denyDeleteCurrent", "ignore"),
        ("receive.autogc", "false"),
        ("uploadpack.allowFilter", "true"),
        ("safe.directory", "*"),
    ];
    command.current_dir(dir).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", dir).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("GIT_CONFIG_COUNT", settings.len().to_string());
    for (i, (key, value)) in settings.iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{i}"), key).env(format!("GIT_CONFIG_VALUE_{i}"), value);
    }
    command.kill_on_drop(true);
    command
}

/// What the routes know.
#[derive(Debug)]
struct Served {
    dir: PathBuf,
    /// The user and the password that are required now.
    login: Mutex<Option<(String, String)>>,
}

/// The server's routes: the repositories, `/admin/repos` to list and to create them, and
/// `/admin/login` to change the login that they require.
pub fn router(config: Config) -> Router {
    Router::new()
        .route("/admin/repos", get(list))
        .route("/admin/repos/{name}", put(create).post(create))
        .route("/admin/login", put(change_login))
        .route("/admin/healthz", get(async || "ok"))
        .fallback(backend)
        .with_state(Arc::new(Served { dir: config.dir, login: Mutex::new(config.login) }))
}

/// Requires this user and this password from now on, or none.
async fn change_login(
    State(served): State<Arc<Served>>,
    axum::Json(login): axum::Json<Option<(String, String)>>,
) -> StatusCode {
    *served.login.lock() = login;
    StatusCode::NO_CONTENT
}

async fn list(State(served): State<Arc<Served>>) -> Response {
    let entries = std::fs::read_dir(&served.dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".git")?.to_owned()))
        .collect();
    names.sort();
    axum::Json(names).into_response()
}

async fn create(State(served): State<Arc<Served>>, UrlPath(name): UrlPath<String>) -> Response {
    match create_repository(&served.dir, &name).await {
        Ok(_) => StatusCode::CREATED.into_response(),
        Err(e) => (StatusCode::BAD_REQUEST, format!("{e:#}\n")).into_response(),
    }
}

async fn backend(State(served): State<Arc<Served>>, request: Request) -> Response {
    let login = served.login.lock().clone();
    if !authorized(login.as_ref(), request.headers()) {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")];
        return (StatusCode::UNAUTHORIZED, challenge, "a user and a password are needed\n")
            .into_response();
    }
    if git_lfs::is_request(request.uri().path()) {
        return git_lfs::answer(&served.dir, request).await;
    }
    cgi(&served.dir, request).await.unwrap_or_else(|e| {
        tracing::error!(error = format!("{e:#}"), "git http-backend");
        (StatusCode::INTERNAL_SERVER_ERROR, "the git server failed\n").into_response()
    })
}

fn authorized(login: Option<&(String, String)>, headers: &HeaderMap) -> bool {
    let Some((user, password)) = login else { return true };
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Basic "));
    given.is_some_and(|given| given == BASE64.encode(format!("{user}:{password}")))
}

/// Runs `git http-backend` for one request, streaming both ways.
async fn cgi(dir: &Path, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let mut command = git(dir);
    command.arg("http-backend").env("GIT_PROJECT_ROOT", dir).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("REQUEST_METHOD", parts.method.as_str()).env("PATH_INFO", parts.uri.path());
    command
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("REMOTE_ADDR", "127.0.0.1");
    let passed = BTreeMap::from([
        ("content-type", "CONTENT_TYPE"),
        ("content-length", "CONTENT_LENGTH"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
        ("accept", "HTTP_ACCEPT"),
    ]);
    for (name, variable) in passed {
        if let Some(value) = parts.headers.get(name).and_then(|v| v.to_str().ok()) {
            command.env(variable, value);
        }
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    let stdin = child.stdin.take().context("no stdin")?;
    let stdout = child.stdout.take().context("no stdout")?;
    let upload = tokio::spawn(feed(stdin, body));
    let mut output = BufReader::new(stdout);
    let mut response = Response::new(Body::empty());
    let head = read_head(&mut output, &mut response).await;
    // The rest streams while the child lives; it is waited for when its output has ended.
    let rest = ReaderStream::new(output).chain(futures::stream::once(async move {
        upload.abort();
        let status = child.wait().await?;
        if !status.success() {
            tracing::warn!(%status, "git http-backend");
        }
        Ok(bytes::Bytes::new())
    }));
    head?;
    *response.body_mut() = Body::from_stream(rest);
    Ok(response)
}

async fn feed(mut stdin: ChildStdin, body: Body) {
    let mut body = body.into_data_stream();
    while let Some(Ok(chunk)) = body.next().await {
        // The backend may respond with an error before it has read everything.
        if stdin.write_all(&chunk).await.is_err() {
            return;
        }
    }
    let _ = stdin.shutdown().await;
}

/// Reads the header lines of a CGI response.
async fn read_head(output: &mut BufReader<ChildStdout>, response: &mut Response) -> Result<()> {
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).await? == 0 {
            bail!("git http-backend ended before its response");
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(());
        }
        let (name, value) =
            line.split_once(':').with_context(|| format!("not a header: {line:?}"))?;
        if name.eq_ignore_ascii_case("status") {
            let code = value.split_whitespace().next().unwrap_or_default();
            *response.status_mut() =
                code.parse().with_context(|| format!("not a status: {line:?}"))?;
        } else {
            response
                .headers_mut()
                .insert(HeaderName::try_from(name)?, HeaderValue::try_from(value.trim())?);
        }
    }
}
