//! A process that ends at one of its writes, before the API server has it or before the answer is
//! back.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use tokio::sync::watch;

/// What becomes of the write at which a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It is never sent.
    Unsent,
    /// The API server carries it out, and nobody gets the answer.
    Unanswered,
}

/// Counts the writes of a process, and ends it at one of them.
pub struct Cut {
    /// The number of that write, from 1; 0 for none.
    at: usize,
    last: Last,
    /// What was written, Events apart.
    writes: Mutex<Vec<String>>,
    /// Nothing passes any more.
    dead: AtomicBool,
    /// The write at which the process ended.
    ended: watch::Sender<Option<String>>,
}

impl Cut {
    /// The process ends at write number `at`, from 1; at none with 0.
    pub fn new(at: usize, last: Last) -> Self {
        Self {
            at,
            last,
            writes: Mutex::default(),
            dead: false.into(),
            ended: watch::Sender::new(None),
        }
    }

    /// Waits until the process has to end.
    pub async fn reached(&self) {
        self.ended.subscribe().wait_for(Option::is_some).await.expect("the cut exists");
    }

    /// The write at which the process ended, if it did.
    pub fn ended_at(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// All writes of the process.
    pub fn writes(&self) -> Vec<String> {
        self.writes.lock().clone()
    }

    /// Passes a request, unless the process has ended or ends with it.
    pub async fn pass(
        &self,
        inner: Client,
        request: Request<Body>,
    ) -> Result<Response<Body>, kube::Error> {
        let ends = name(&request).and_then(|name| {
            let mut writes = self.writes.lock();
            writes.push(name.clone());
            (writes.len() == self.at).then_some(name)
        });
        if let Some(name) = ends {
            self.dead.store(true, Ordering::SeqCst);
            if self.last == Last::Unanswered {
                drop(inner.send(request).await);
            }
            self.ended.send_replace(Some(name));
            return std::future::pending().await;
        }
        if self.dead.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        let answer = inner.send(request).await;
        if self.dead.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        answer
    }
}

/// The method and the object of a write; none for reads and for Events.
fn name(request: &Request<Body>) -> Option<String> {
    let method = request.method();
    let is_write = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
    let (_, object) = request.uri().path().split_once("/namespaces/")?;
    let (_, object) = object.split_once('/')?;
    let is_event = object.split('/').next() == Some("events");
    (is_write && !is_event).then(|| format!("{method} {object}"))
}
