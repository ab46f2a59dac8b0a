//! A server that follows the published rules of `bd serve` v0, on a real socket, with faults on
//! demand.
//!
//! It knows no client. A request that no client of ours may send (without a project, an unlimited read)
//! panics, which fails the test.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use self::store::Reply;
pub use self::store::{PROJECT, Store, TOKEN};

mod store;

/// What happens to a request instead of a normal response.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A response with this status, these headers and this body; the request is not carried out.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// The connection ends; the request is not carried out.
    CutBefore,
    /// The connection ends; the request is carried out.
    CutAfter,
    /// The request is carried out, and half of its response is sent.
    CutMidway,
    /// The request is carried out, and its response never ends.
    NeverEnds,
    /// A body without an end, sent as fast as it is read.
    Flood,
}

/// What the server shares with its connections.
struct Shared {
    store: Mutex<Store>,
    faults: Queue<Fault>,
    asked: Mutex<Vec<String>>,
    /// Runs after a request arrived and before it is carried out: the changes of other clients.
    meanwhile: Queue<fn(&mut Store)>,
}

/// A running server; it ends with this value.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    tasks: JoinSet<()>,
}

/// What happens to the next request whose line holds the text.
type Queue<T> = Mutex<VecDeque<(&'static str, T)>>;

type Body = BoxBody<Bytes, io::Error>;

impl Server {
    /// A server with an empty store.
    pub async fn start() -> Self {
        Self::start_on(None).await
    }

    /// A server with TLS, and the roots that trust it.
    pub async fn start_secure() -> (Self, rustls::RootCertStore) {
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(own.cert.der().clone()).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = config
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        (Self::start_on(Some(TlsAcceptor::from(Arc::new(config)))).await, roots)
    }

    async fn start_on(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new()),
            faults: Mutex::default(),
            asked: Mutex::default(),
            meanwhile: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls.clone(), shared.clone()));
        Self { address, shared, tls, tasks }
    }

    /// A server with issues `gt-1`, `gt-2`, …, all open.
    pub async fn with_issues(count: usize) -> Self {
        let server = Self::start().await;
        for number in 1..=count {
            server.store(|store| {
                let (id, title) = (format!("gt-{number}"), format!("issue {number}"));
                store.add(&json!({"id": id, "title": title}));
            });
        }
        server
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port: connections are refused until [`Server::up`].
    pub async fn down(&mut self) {
        // The listener is closed only when the tasks have ended.
        self.tasks.shutdown().await;
    }

    /// Serves the same store again on the same port.
    pub async fn up(&mut self) {
        if self.tasks.is_empty() {
            let listener = TcpListener::bind(self.address).await.unwrap();
            self.tasks.spawn(accept(listener, self.tls.clone(), self.shared.clone()));
        }
    }

    /// Reads the store, or changes it without the API.
    pub fn store<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
        work(&mut self.shared.store.lock())
    }

    /// The next request whose line holds `part` gets this fault.
    pub fn fault(&self, part: &'static str, fault: Fault) {
        self.shared.faults.lock().push_back((part, fault));
    }

    /// Before the next request whose line holds `part` is carried out, another client makes this
    /// change.
    pub fn meanwhile(&self, part: &'static str, change: fn(&mut Store)) {
        self.shared.meanwhile.lock().push_back((part, change));
    }

    /// The requests so far that hold `part`, as `METHOD target`.
    pub fn asked(&self, part: &str) -> Vec<String> {
        self.shared.asked.lock().iter().filter(|line| line.contains(part)).cloned().collect()
    }

    /// An issue as the server keeps it.
    pub fn row(&self, id: &str) -> Value {
        self.store(|store| store.row(id).cloned().unwrap())
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (shared, tls) = (shared.clone(), tls.clone());
        connections.spawn(async move {
            let service =
                hyper::service::service_fn(move |request| answer(shared.clone(), request));
            let http = hyper::server::conn::http1::Builder::new();
            // An error is a fault on purpose, or a client that disconnected.
            match tls {
                None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        drop(http.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            }
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let cut = || io::Error::other("cut on purpose");
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let line = format!("{} {}", parts.method, parts.uri);
    shared.asked.lock().push(line.clone());
    let fault = take(&shared.faults, &line);
    match &fault {
        Some(Fault::CutBefore) => return Err(cut()),
        Some(Fault::Answer(status, headers, body)) => {
            let mut response = Response::builder().status(*status);
            for (name, value) in headers {
                response = response.header(*name, value);
            }
            return Ok(response.body(whole(body.clone())).unwrap());
        }
        Some(Fault::Flood) => {
            let chunk = || Ok(Frame::data(Bytes::from_static(&[b' '; 8192])));
            return Ok(Response::new(BoxBody::new(StreamBody::new(stream::repeat_with(chunk)))));
        }
        _ => {}
    }
    if let Some(change) = take(&shared.meanwhile, &line) {
        change(&mut shared.store.lock());
    }
    let Reply { status, headers, body } = shared.store.lock().answer(&parts, &body);
    let half = Bytes::from(body.as_bytes()[..body.len() / 2].to_vec());
    let body = match fault {
        Some(Fault::CutAfter) => return Err(cut()),
        Some(Fault::CutMidway) => {
            BoxBody::new(StreamBody::new(stream::iter([Ok(Frame::data(half)), Err(cut())])))
        }
        Some(Fault::NeverEnds) => {
            let first = stream::iter([Ok(Frame::data(half))]);
            BoxBody::new(StreamBody::new(first.chain(stream::pending())))
        }
        _ => whole(body),
    };
    let kind =
        if status == 200 { "application/json; charset=utf-8" } else { "application/problem+json" };
    let mut response = Response::builder().status(status).header("content-type", kind);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(body).unwrap())
}

fn whole(body: String) -> Body {
    BoxBody::new(Full::new(Bytes::from(body)).map_err(|never| match never {}))
}

fn take<T>(queue: &Queue<T>, line: &str) -> Option<T> {
    let mut queue = queue.lock();
    let place = queue.iter().position(|(part, _)| line.contains(part))?;
    queue.remove(place).map(|(_, found)| found)
}

/// The body of a problem with a code.
pub fn problem(code: &str) -> String {
    json!({"type": "about:blank", "code": code, "title": code, "detail": "in the server's words"})
        .to_string()
}
