//! The connection of one process to the API server and to git, which a test controls: requests pass
//! through a proxy, and at one of them the process ends, or a fault occurs.

mod call;
mod fault;
mod log;
mod scope;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};
use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use call::Call;
pub use fault::Fault;
pub use log::Log;
use scope::Scope;

/// What becomes of the write at which a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Last {
    /// It is never sent.
    Unsent,
    /// The server carries it out, and nobody gets the answer.
    Unanswered,
}

/// What happens to the requests of one process. By default they pass, and its writes are counted.
#[derive(Default)]
pub struct Connection {
    /// The number of the write at which the process ends, from 1.
    cut: Option<(usize, Last)>,
    fault: Option<Fault>,
    scope: OnceLock<Scope>,
    /// What was written, Events apart.
    writes: Mutex<Vec<String>>,
    /// How many requests of each kind there were.
    calls: Mutex<HashMap<String, usize>>,
    /// How often the fault occurred.
    faults: AtomicUsize,
    /// Nothing passes any more.
    dead: AtomicBool,
    /// The write at which the process ended.
    ended: watch::Sender<Option<String>>,
    log: Log,
}

impl Connection {
    /// The process ends at write number `at`, from 1.
    pub fn cut(at: usize, last: Last) -> Self {
        Self { cut: Some((at, last)), ..Self::default() }
    }

    /// The fault occurs at the requests that it is about.
    pub fn with(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }

    /// The connection of the process that follows: without faults, and with the same log.
    pub fn following(first: &Self) -> Self {
        Self { log: first.log.clone(), ..Self::default() }
    }

    /// What processes with this connection log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// One namespace stands for all of them, and one Rig for all Rigs: what the process lists and
    /// watches in the whole cluster it gets of these.
    pub fn only(&self, namespace: &str, rig: &str) {
        self.scope.get_or_init(|| Scope { namespace: namespace.to_owned(), rig: rig.to_owned() });
    }

    /// Waits until the process has to end.
    pub async fn reached(&self) {
        // The sender lives as long as this.
        drop(self.ended.subscribe().wait_for(Option::is_some).await);
    }

    /// The write at which the process ended, if it did.
    pub fn ended_at(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// All writes of the process.
    pub fn writes(&self) -> Vec<String> {
        self.writes.lock().clone()
    }

    /// The resources that the process has watched.
    pub fn watched(&self) -> BTreeSet<String> {
        let calls = self.calls.lock();
        calls.keys().filter_map(|kind| call::watched(kind)).map(ToOwned::to_owned).collect()
    }

    /// How often the fault occurred.
    pub fn faults(&self) -> usize {
        self.faults.load(Ordering::SeqCst)
    }

    /// Sends a request, which is a write if it has a name, unless the process has ended or ends with
    /// it: then this never returns.
    pub async fn pass<T>(&self, write: Option<String>, send: impl Future<Output = T>) -> T {
        let ends = write.and_then(|name| {
            self.log.line(&format!("write: {name}"));
            let mut writes = self.writes.lock();
            writes.push(name.clone());
            let (at, last) = self.cut?;
            (writes.len() == at).then_some((name, last))
        });
        if let Some((name, last)) = ends {
            self.dead.store(true, Ordering::SeqCst);
            if last == Last::Unanswered {
                drop(send.await);
            }
            self.ended.send_replace(Some(name));
            return std::future::pending().await;
        }
        if self.dead.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        let answer = send.await;
        if self.dead.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        answer
    }

    /// Serves the API server of this client to the process.
    pub async fn serve(self: Arc<Self>, server: Client) -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { continue };
                        let (connection, server) = (self.clone(), server.clone());
                        let answer = service_fn(move |request| {
                            let (connection, server) = (connection.clone(), server.clone());
                            async move { connection.answer(&server, request).await }
                        });
                        open.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
                    }
                    Some(_) = open.join_next() => {}
                }
            }
        });
        Ok(Proxy { address, _task: AbortOnDropHandle::new(task) })
    }

    /// An error ends the process's connection without an answer.
    async fn answer(
        &self,
        server: &Client,
        request: Request<Incoming>,
    ) -> io::Result<Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        if let Some(scope) = self.scope.get() {
            parts.uri = scope.within(&parts.uri);
        }
        // The client of the proxy has its own.
        for name in ["host", "connection", "content-length", "accept-encoding"] {
            parts.headers.remove(name);
        }
        let call = Call::of(&parts.method, &parts.uri);
        let fault = self.fault_of(&call);
        if let Some(fault) = fault {
            self.log.line(&format!("{fault:?}: {}", call.kind));
        }
        if let Some(refusal) = fault.and_then(Fault::refusal) {
            return Ok(refusal);
        }
        let request = Request::from_parts(parts, kube::client::Body::from(body));
        let sent = self.pass(call.write, server.send(request)).await;
        let response = sent.map_err(io::Error::other)?;
        let (mut parts, body) = response.into_parts();
        for name in ["connection", "content-length", "transfer-encoding"] {
            parts.headers.remove(name);
        }
        let body = Body::new(body.map_err(io::Error::other));
        match fault {
            Some(fault) => fault.answer(parts, body).await,
            None => Ok(Response::from_parts(parts, body)),
        }
    }

    /// Counts a request; the fault that occurs at it, if one does.
    fn fault_of(&self, call: &Call) -> Option<&Fault> {
        let number = {
            let mut calls = self.calls.lock();
            let number = calls.entry(call.kind.clone()).or_default();
            *number += 1;
            *number
        };
        let fault = self.fault.as_ref()?;
        let occurs = fault.is_about(call) && fault.occurs_at(number);
        self.faults.fetch_add(usize::from(occurs), Ordering::SeqCst);
        occurs.then_some(fault)
    }
}

/// The server of a process's connection. It ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    /// The configuration of a client that has to pass here.
    pub fn config(&self, mut config: Config) -> Result<Config> {
        let url = format!("http://{}", self.address);
        config.cluster_url = url.parse().context("the address of the proxy")?;
        Ok(config)
    }
}
