//! An OCI registry that keeps what is pushed to it: the upload side of the distribution API, with
//! tokens or passwords if a test wants them.
//!
//! It refuses what a strict registry refuses: a blob whose digest is another one, a manifest that
//! names a missing blob, a request without a valid login.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The largest blob that is accepted, in bytes.
const MAX_BLOB: usize = 64 << 20;
/// The token that [`Login::Token`] hands out.
const TOKEN: &str = "a-token-for-one-push";

/// What a request has to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Nothing.
    None,
    /// User and password with each request.
    Basic(String, String),
    /// A token, which user and password get from another path.
    Token(String, String),
}

/// A manifest with its media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// What a registry holds.
#[derive(Debug, Default)]
struct Contents {
    /// Blobs by repository and digest.
    blobs: BTreeMap<(String, String), Bytes>,
    /// Manifests by repository and tag.
    manifests: BTreeMap<(String, String), Manifest>,
    /// Open uploads.
    uploads: BTreeSet<String>,
    /// The requests so far, as `METHOD path`.
    requests: Vec<String>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    login: Login,
    contents: Mutex<Contents>,
}

/// A registry on a free port of the loopback interface; it ends when it is dropped.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Registry {
    /// Starts an empty registry.
    pub async fn start(login: Login) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening on loopback")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { address, login, contents: Mutex::default() });
        let app = Router::new()
            .route("/token", get(token))
            .fallback(handle)
            .layer(DefaultBodyLimit::max(MAX_BLOB))
            .with_state(shared.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "the registry ended");
            }
        });
        Ok(Self { shared, task })
    }

    /// Its host and port.
    pub fn host(&self) -> String {
        self.shared.address.to_string()
    }

    /// The manifest under a tag of a repository.
    pub fn manifest(&self, repository: &str, tag: &str) -> Option<Manifest> {
        let key = (repository.to_owned(), tag.to_owned());
        self.shared.contents.lock().manifests.get(&key).cloned()
    }

    /// A blob of a repository.
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        let key = (repository.to_owned(), digest.to_owned());
        self.shared.contents.lock().blobs.get(&key).cloned()
    }

    /// How many requests used this method so far.
    pub fn count(&self, method: &str) -> usize {
        let contents = self.shared.contents.lock();
        contents.requests.iter().filter(|line| line.starts_with(method)).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}

/// Hands out the token for the user and password, for the right scope only.
async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap, uri: Uri) -> Response {
    let Login::Token(user, password) = &shared.login else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let asks_to_push = query.get("scope").is_some_and(|scope| scope.ends_with(":pull,push"));
    if authorization(&headers) != Some(&basic(user, password)) || !asks_to_push {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    axum::Json(json!({"token": TOKEN, "expires_in": 300})).into_response()
}

/// The challenge of a request that may not pass.
fn challenge(shared: &Shared, repository: &str, headers: &HeaderMap) -> Option<Response> {
    let given = authorization(headers);
    let (allowed, challenge) = match &shared.login {
        Login::None => return None,
        Login::Basic(user, password) => {
            (given == Some(&basic(user, password)), "Basic realm=\"registry\"".to_owned())
        }
        Login::Token(..) => (
            given == Some(&format!("Bearer {TOKEN}")),
            format!(
                "Bearer realm=\"http://{}/token\",service=\"registry\",scope=\"repository:{repository}:pull,push\"",
                shared.address
            ),
        ),
    };
    (!allowed).then(|| {
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    })
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BLOB).await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID");
    };
    let path = parts.uri.path();
    let Some((repository, kind, name)) = parse(path) else {
        return refusal(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    };
    if let Some(response) = challenge(&shared, repository, &parts.headers) {
        return response;
    }
    let mut contents = shared.contents.lock();
    contents.requests.push(format!("{} {path}", parts.method));
    match (&parts.method, kind) {
        (&Method::HEAD, "blobs") => {
            let key = (repository.to_owned(), name.to_owned());
            let found = contents.blobs.contains_key(&key);
            if found { StatusCode::OK } else { StatusCode::NOT_FOUND }.into_response()
        }
        (&Method::POST, "blobs/uploads")
            if contents.mount(repository, parts.uri.query().unwrap_or_default()) =>
        {
            StatusCode::CREATED.into_response()
        }
        (&Method::POST, "blobs/uploads") => {
            let upload = format!("upload-{}", contents.requests.len());
            // Relative and with a query of its own, as some registries have it.
            let location = format!("/v2/{repository}/blobs/uploads/{upload}?state=open");
            contents.uploads.insert(upload);
            (StatusCode::ACCEPTED, [(header::LOCATION, location)]).into_response()
        }
        (&Method::PUT, "blobs/uploads") => {
            contents.finish_upload(repository, name, parts.uri.query().unwrap_or_default(), body)
        }
        (&Method::PUT, "manifests") => {
            contents.put_manifest(repository, name, &parts.headers, body)
        }
        (&Method::HEAD, "manifests") => contents.head_manifest(repository, name),
        _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
    }
}

/// Repository, kind and last part of a path such as `/v2/a/b/blobs/sha256:…`.
fn parse(path: &str) -> Option<(&str, &str, &str)> {
    let rest = path.strip_prefix("/v2/")?;
    ["blobs/uploads", "blobs", "manifests"].into_iter().find_map(|kind| {
        let (repository, name) = rest.split_once(&format!("/{kind}/"))?;
        Some((repository, kind, name))
    })
}

impl Contents {
    /// Takes a blob over from another repository, if the query asks for it and it is there.
    fn mount(&mut self, repository: &str, query: &str) -> bool {
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let (Some(digest), Some(from)) = (query.get("mount"), query.get("from")) else {
            return false;
        };
        let found = self.blobs.get(&(from.clone(), digest.clone())).cloned();
        let key = (repository.to_owned(), digest.clone());
        found.is_some_and(|blob| self.blobs.insert(key, blob).is_none())
    }

    fn finish_upload(
        &mut self,
        repository: &str,
        upload: &str,
        query: &str,
        body: Bytes,
    ) -> Response {
        let digest = url::form_urlencoded::parse(query.as_bytes())
            .find_map(|(name, value)| (name == "digest").then(|| value.into_owned()));
        let is_open = query.contains("state=open") && self.uploads.remove(upload);
        if !is_open {
            return refusal(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
        }
        let Some(digest) = digest.filter(|digest| *digest == digest_of(&body)) else {
            return refusal(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
        };
        self.blobs.insert((repository.to_owned(), digest), body);
        StatusCode::CREATED.into_response()
    }

    fn put_manifest(
        &mut self,
        repository: &str,
        tag: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Response {
        let manifest: Value = serde_json::from_slice(&body).unwrap_or_default();
        let layers = manifest["layers"].as_array().into_iter().flatten();
        let mut named = layers.chain([&manifest["config"]]).map(|d| d["digest"].as_str());
        let is_there = |digest: Option<&str>| {
            let key = digest.map(|digest| (repository.to_owned(), digest.to_owned()));
            key.is_some_and(|key| self.blobs.contains_key(&key))
        };
        if !named.all(is_there) {
            return refusal(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN");
        }
        let media_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let digest = digest_of(&body);
        let key = (repository.to_owned(), tag.to_owned());
        self.manifests.insert(key, Manifest { media_type, bytes: body });
        (StatusCode::CREATED, [("docker-content-digest", digest)]).into_response()
    }

    fn head_manifest(&self, repository: &str, tag: &str) -> Response {
        let key = (repository.to_owned(), tag.to_owned());
        match self.manifests.get(&key) {
            Some(manifest) => {
                (StatusCode::OK, [("docker-content-digest", digest_of(&manifest.bytes))])
                    .into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn refusal(status: StatusCode, code: &str) -> Response {
    (status, axum::Json(json!({"errors": [{"code": code, "message": code}]}))).into_response()
}
