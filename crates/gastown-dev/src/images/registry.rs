//! The upload side of the OCI distribution API.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::TryStreamExt as _;
use gastown_cluster::oci::{BlobRef, Digest, Layout};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use url::form_urlencoded;

use super::docker::{self, Credentials};

/// How long a request without a large body may take.
const DEADLINE: Duration = Duration::from_mins(1);
/// How long an upload may make no progress.
const STALLED: Duration = Duration::from_mins(2);
/// How often an upload reports its progress.
const REPORT: Duration = Duration::from_secs(15);
/// The largest body of a response that is read, in bytes.
const MAX_RESPONSE: usize = 1 << 20;

type Body = BoxBody<Bytes, io::Error>;

/// One repository of a registry.
pub struct Repository {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    /// Scheme and host.
    base: String,
    name: String,
    credentials: Option<Credentials>,
    /// The value of the Authorization header.
    authorization: Option<HeaderValue>,
}

/// What a push did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// How many blobs were uploaded.
    pub uploaded: usize,
    /// How many were there, or in another repository of the registry.
    pub present: usize,
}

/// The request that a body belongs to.
enum Content<'a> {
    None,
    Manifest(&'a Layout),
    Blob(&'a Layout, &'a BlobRef, Arc<AtomicU64>),
}

impl Repository {
    /// The repository of an image's full name, with docker's credentials for the host.
    pub fn of(reference: &str) -> Result<Self> {
        let (host, name) = split(reference)?;
        Self::new(&host, &name, docker::credentials(&host)?)
    }

    fn new(host: &str, name: &str, credentials: Option<Credentials>) -> Result<Self> {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            base: base(host),
            name: name.to_owned(),
            credentials,
            authorization: None,
        })
    }

    /// The name of the repository in its registry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Uploads what the registry does not have of an image, and sets the tag. Blobs may be in other
    /// repositories of the registry already: `elsewhere` returns one that has a blob.
    pub async fn push(
        &mut self,
        layout: &Layout,
        tag: &str,
        elsewhere: impl Fn(&Digest) -> Option<String>,
    ) -> Result<Pushed> {
        let mut pushed = Pushed::default();
        for blob in &layout.blobs {
            let present = self.has_blob(&blob.digest).await?
                || self.upload(layout, blob, elsewhere(&blob.digest)).await?;
            if present {
                pushed.present += 1;
            } else {
                pushed.uploaded += 1;
            }
        }
        if self.tagged(tag).await?.as_deref() != Some(layout.digest.as_str()) {
            let url = format!("{}/v2/{}/manifests/{tag}", self.base, self.name);
            let response = self.send(Method::PUT, &url, &Content::Manifest(layout)).await?;
            expect(response, StatusCode::CREATED, "the manifest").await?;
        }
        Ok(pushed)
    }

    /// The digest of the manifest under a tag.
    async fn tagged(&mut self, tag: &str) -> Result<Option<String>> {
        let url = format!("{}/v2/{}/manifests/{tag}", self.base, self.name);
        let response = self.send(Method::HEAD, &url, &Content::None).await?;
        let digest = response.headers().get("docker-content-digest");
        let digest = digest.and_then(|digest| digest.to_str().ok()).map(str::to_owned);
        Ok(digest.filter(|_| response.status().is_success()))
    }

    async fn has_blob(&mut self, digest: &Digest) -> Result<bool> {
        let url = format!("{}/v2/{}/blobs/{digest}", self.base, self.name);
        let response = self.send(Method::HEAD, &url, &Content::None).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            status => bail!("{} has refused to look for a blob: {status}", self.base),
        }
    }

    /// Uploads a blob, unless the registry takes it over from another repository; returns whether it
    /// did.
    async fn upload(
        &mut self,
        layout: &Layout,
        blob: &BlobRef,
        elsewhere: Option<String>,
    ) -> Result<bool> {
        let mut url = format!("{}/v2/{}/blobs/uploads/", self.base, self.name);
        if let Some(from) = elsewhere {
            let query = [("mount", blob.digest.as_str()), ("from", &from)];
            url = with_query(&url, &query);
        }
        let response = self.send(Method::POST, &url, &Content::None).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(true);
        }
        let location = response.headers().get(header::LOCATION).cloned();
        expect(response, StatusCode::ACCEPTED, "the start of an upload").await?;
        let location = location.context("the registry names no place for an upload")?;
        let location = absolute(&self.base, location.to_str()?);
        let url = with_query(&location, &[("digest", blob.digest.as_str())]);
        let sent = Arc::new(AtomicU64::new(0));
        let content = Content::Blob(layout, blob, sent.clone());
        let name = self.name.clone();
        let response = tokio::select! {
            response = self.send(Method::PUT, &url, &content) => response?,
            error = watch(&name, &sent, blob.size) => return Err(error),
        };
        expect(response, StatusCode::CREATED, "a blob").await?;
        Ok(false)
    }

    /// Sends a request, and once more with a login when the registry asks for one.
    async fn send(
        &mut self,
        method: Method,
        url: &str,
        content: &Content<'_>,
    ) -> Result<Response<Incoming>> {
        let response = self.send_once(&method, url, content).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenge = response.headers().get(header::WWW_AUTHENTICATE).cloned();
        let challenge = challenge.context("the registry refuses without naming a login")?;
        self.authorization = Some(self.log_in(challenge.to_str()?).await?);
        let response = self.send_once(&method, url, content).await?;
        ensure!(
            response.status() != StatusCode::UNAUTHORIZED,
            "{} refuses the login: check the credentials in docker's config.json",
            self.base
        );
        Ok(response)
    }

    async fn send_once(
        &self,
        method: &Method,
        url: &str,
        content: &Content<'_>,
    ) -> Result<Response<Incoming>> {
        let what = || format!("{method} {url}");
        let mut request = Request::builder().method(method).uri(url);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let (request, deadline) = match content {
            Content::None => (request.body(empty()), DEADLINE),
            Content::Manifest(layout) => {
                let request = request.header(header::CONTENT_TYPE, &layout.media_type);
                (request.body(full(layout.manifest.clone())), DEADLINE)
            }
            Content::Blob(layout, blob, sent) => {
                let request = request
                    .header(header::CONTENT_TYPE, "application/octet-stream")
                    .header(header::CONTENT_LENGTH, blob.size);
                sent.store(0, Ordering::Relaxed);
                // Its progress is watched instead.
                (request.body(stream(layout, &blob.digest, sent.clone()).await?), Duration::MAX)
            }
        };
        let response = tokio::time::timeout(deadline, self.client.request(request?));
        response
            .await
            .with_context(|| format!("{}: no response within {} s", what(), deadline.as_secs()))?
            .with_context(what)
    }

    /// The Authorization header for a challenge.
    async fn log_in(&self, challenge: &str) -> Result<HeaderValue> {
        let basic = self.credentials.as_ref().map(Credentials::basic);
        if challenge.to_ascii_lowercase().starts_with("basic") {
            let basic = basic.with_context(|| {
                format!("{} needs a login: run `docker login` for it first", self.base)
            })?;
            return Ok(HeaderValue::from_str(&basic)?);
        }
        let realm = parameter(challenge, "realm").context("the registry names no token server")?;
        let scope = format!("repository:{}:pull,push", self.name);
        let mut query = vec![("scope", scope.as_str())];
        let service = parameter(challenge, "service");
        query.extend(service.as_deref().map(|service| ("service", service)));
        let mut request = Request::get(with_query(&realm, &query));
        if let Some(basic) = basic {
            request = request.header(header::AUTHORIZATION, basic);
        }
        let response = self.client.request(request.body(empty())?);
        let response = tokio::time::timeout(DEADLINE, response)
            .await
            .context("the token server does not respond")??;
        ensure!(
            response.status().is_success(),
            "{realm} gives no token for {scope} ({}): run `docker login` for the registry, and check that the account may push",
            response.status()
        );
        let body = read(response).await?;
        let body: Value = serde_json::from_slice(&body).context("the token server's response")?;
        let token = body["token"].as_str().or(body["access_token"].as_str());
        let token = token.context("the token server's response has no token")?;
        Ok(HeaderValue::from_str(&format!("Bearer {token}"))?)
    }
}

/// Reports the progress of an upload and returns an error when it makes none.
async fn watch(name: &str, sent: &AtomicU64, size: u64) -> anyhow::Error {
    let (mut last, mut changed) = (0, Instant::now());
    loop {
        tokio::time::sleep(REPORT).await;
        let now = sent.load(Ordering::Relaxed);
        println!("images: pushing {name}: {} of {} MiB of a layer", now >> 20, size >> 20);
        if now != last {
            (last, changed) = (now, Instant::now());
        } else if changed.elapsed() > STALLED {
            return anyhow::anyhow!("{name}: the upload makes no progress");
        }
    }
}

async fn stream(layout: &Layout, digest: &Digest, sent: Arc<AtomicU64>) -> Result<Body> {
    let range = layout.find(digest)?;
    let mut file = tokio::fs::File::open(layout.path()).await?;
    file.seek(io::SeekFrom::Start(range.start)).await?;
    let chunks = ReaderStream::with_capacity(file.take(range.end - range.start), 1 << 20);
    let frames = chunks.map_ok(move |chunk| {
        sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        Frame::data(chunk)
    });
    Ok(StreamBody::new(frames).boxed())
}

fn empty() -> Body {
    full(Vec::new())
}

fn full(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed()
}

async fn read(response: Response<Incoming>) -> Result<Bytes> {
    let body = http_body_util::Limited::new(response.into_body(), MAX_RESPONSE).collect();
    let body = tokio::time::timeout(DEADLINE, body).await.context("the response does not end")?;
    Ok(body.map_err(|error| anyhow::anyhow!("reading the response: {error}"))?.to_bytes())
}

/// An error unless the response has this status.
async fn expect(response: Response<Incoming>, wanted: StatusCode, what: &str) -> Result<()> {
    let status = response.status();
    if status == wanted {
        return Ok(());
    }
    let body = read(response).await.unwrap_or_default();
    let text: String = String::from_utf8_lossy(&body).trim().chars().take(500).collect();
    bail!("the registry refused {what} with {status}: {text}")
}

/// Host and repository of an image's full name.
fn split(reference: &str) -> Result<(String, String)> {
    let last = reference.rfind('/').map_or(0, |at| at + 1);
    let end = reference[last..].find(':').map_or(reference.len(), |at| last + at);
    let (host, name) = reference[..end].split_once('/').context("the name has no registry")?;
    Ok((host.to_owned(), name.to_owned()))
}

/// Scheme and host of the API. A registry on this machine needs no TLS.
fn base(host: &str) -> String {
    let api = if host == "docker.io" { "registry-1.docker.io" } else { host };
    let uri: Option<Uri> = format!("http://{api}").parse().ok();
    let name = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let is_local = name == "localhost"
        || name
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    if is_local { format!("http://{api}") } else { format!("https://{api}") }
}

/// The URL of a Location header, which may be relative to the host.
fn absolute(base: &str, location: &str) -> String {
    if location.starts_with('/') { format!("{base}{location}") } else { location.to_owned() }
}

fn with_query(url: &str, query: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{query}")
}

/// A parameter of a challenge such as `Bearer realm="…",service="…"`.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let (_, parameters) = challenge.split_once(' ')?;
    let start = parameters.find(&format!("{name}=\""))? + name.len() + 2;
    let (value, _) = parameters[start..].split_once('"')?;
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use gastown_cluster::oci::{ImageBuilder, Layer};
    use gastown_fakes::registry::{Login, Registry};
    use tempfile::TempDir;

    use super::*;

    fn ann() -> Credentials {
        Credentials { user: "ann".to_owned(), password: "s3cret".to_owned() }
    }

    fn image(dir: &TempDir, content: &str) -> Layout {
        let path = dir.path().join(format!("{content}.tar"));
        let shared = Layer::new().bytes("/base", "the same in every image", 0o644);
        let own = Layer::new().bytes("/own", content, 0o644);
        ImageBuilder::new("x/y:1").gzip(true).layer(shared).layer(own).write(&path).unwrap();
        Layout::open(&path).unwrap()
    }

    fn repository(registry: &Registry, name: &str, credentials: Option<Credentials>) -> Repository {
        Repository::new(&registry.host(), name, credentials).unwrap()
    }

    fn nowhere(_: &Digest) -> Option<String> {
        None
    }

    #[tokio::test]
    async fn an_image_is_pushed_whole_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start(Login::None).await.unwrap();
        let layout = image(&dir, "a");
        let mut repository = repository(&registry, "team/rig-ctl", None);
        let pushed = repository.push(&layout, "v1", nowhere).await.unwrap();
        assert_eq!(pushed, Pushed { uploaded: 3, present: 0 });
        let manifest = registry.manifest("team/rig-ctl", "v1").unwrap();
        assert_eq!(manifest.media_type, "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(Digest::of(&manifest.bytes), layout.digest);
        for blob in &layout.blobs {
            let stored = registry.blob("team/rig-ctl", blob.digest.as_str()).unwrap();
            assert_eq!(stored.len() as u64, blob.size);
        }
        let puts = registry.count("PUT");
        let again = repository.push(&layout, "v1", nowhere).await.unwrap();
        assert_eq!(again, Pushed { uploaded: 0, present: 3 });
        assert_eq!((registry.count("PUT"), registry.count("POST")), (puts, 3));
        repository.push(&layout, "v2", nowhere).await.unwrap();
        assert_eq!(registry.count("PUT"), puts + 1, "a new tag needs the manifest alone");
    }

    #[tokio::test]
    async fn a_layer_of_another_repository_is_not_uploaded() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start(Login::None).await.unwrap();
        let (first, second) = (image(&dir, "a"), image(&dir, "b"));
        repository(&registry, "one", None).push(&first, "v1", nowhere).await.unwrap();
        let shared = first.blobs[1].digest.clone();
        let elsewhere = |digest: &Digest| (*digest == shared).then(|| "one".to_owned());
        let mut two = repository(&registry, "two", None);
        let pushed = two.push(&second, "v1", elsewhere).await.unwrap();
        assert_eq!(pushed, Pushed { uploaded: 2, present: 1 });
        assert!(registry.manifest("two", "v1").is_some());
    }

    #[tokio::test]
    async fn passwords_and_tokens_are_shown_when_the_registry_asks() {
        let dir = tempfile::tempdir().unwrap();
        let layout = image(&dir, "a");
        let Credentials { user, password } = ann();
        for login in [Login::Basic(user.clone(), password.clone()), Login::Token(user, password)] {
            let registry = Registry::start(login.clone()).await.unwrap();
            let pushed = repository(&registry, "r", Some(ann())).push(&layout, "v1", nowhere).await;
            assert_eq!(pushed.unwrap().uploaded, 3, "{login:?}");
            let wrong = Credentials { password: "guess".to_owned(), ..ann() };
            for credentials in [None, Some(wrong)] {
                let refused =
                    repository(&registry, "r", credentials).push(&layout, "v2", nowhere).await;
                let error = format!("{:#}", refused.unwrap_err());
                assert!(error.contains("docker"), "{login:?}: {error}");
            }
            assert!(registry.manifest("r", "v2").is_none());
        }
    }

    #[test]
    fn names_are_split_into_host_and_repository() {
        let of = |reference: &str| split(reference).unwrap();
        assert_eq!(of("ghcr.io/a/b:1"), ("ghcr.io".to_owned(), "a/b".to_owned()));
        assert_eq!(of("localhost:5000/b:1"), ("localhost:5000".to_owned(), "b".to_owned()));
        assert!(split("b:1").is_err());
    }

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        assert_eq!(base("localhost:5000"), "http://localhost:5000");
        assert_eq!(base("127.0.0.1:5000"), "http://127.0.0.1:5000");
        assert_eq!(base("[::1]:5000"), "http://[::1]:5000");
        assert_eq!(base("ghcr.io"), "https://ghcr.io");
        assert_eq!(base("localhost.example.com"), "https://localhost.example.com");
        assert_eq!(base("docker.io"), "https://registry-1.docker.io");
    }

    #[test]
    fn challenges_are_read() {
        let challenge = "Bearer realm=\"https://auth/token\",service=\"r.io\",scope=\"x\"";
        assert_eq!(parameter(challenge, "realm").as_deref(), Some("https://auth/token"));
        assert_eq!(parameter(challenge, "service").as_deref(), Some("r.io"));
        assert_eq!(parameter(challenge, "other"), None);
        assert_eq!(with_query("/a?b=c", &[("d", "e:f")]), "/a?b=c&d=e%3Af");
    }
}
