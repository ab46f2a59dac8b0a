//! The wire between one replica and the API server: answers get lost on it, and watches are held
//! back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use tokio::sync::watch;

/// What happens on the wire.
pub struct Wire {
    /// The answers to so many creations of pods get lost after the API server has carried them out.
    pub lost_answers: AtomicU32,
    /// How many of them got lost.
    pub lost: AtomicU32,
    /// Watches of this resource begin only when it is another one.
    held: watch::Sender<Option<&'static str>>,
    /// How many watches wait now.
    waiting: watch::Sender<u32>,
    /// The requests that passed while a watch waited: method and path.
    passed: Mutex<Vec<(Method, String)>>,
    /// The bodies of requests that create pods, if they are kept.
    created: Option<Mutex<Vec<String>>>,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            lost_answers: 0.into(),
            lost: 0.into(),
            held: watch::Sender::new(None),
            waiting: watch::Sender::new(0),
            passed: Mutex::default(),
            created: None,
        }
    }
}

impl Wire {
    /// A wire on which watches of a resource are held back.
    pub fn holding(resource: &'static str) -> Self {
        let wire = Self::default();
        wire.held.send_replace(Some(resource));
        wire
    }

    /// A wire that keeps which pods are asked for.
    pub fn counting() -> Self {
        Self { created: Some(Mutex::default()), ..Self::default() }
    }

    /// The names of the pods that were asked for.
    pub fn creations(&self) -> Vec<String> {
        self.created.iter().flat_map(|created| created.lock().clone()).collect()
    }

    /// Waits until the first list of the held resource has passed and its watch is held.
    pub async fn holds(&self) {
        let mut waiting = self.waiting.subscribe();
        waiting.wait_for(|n| *n > 0).await.expect("the wire exists");
    }

    /// How many requests passed while a watch was held, and is held still.
    pub fn passed(&self, method: &Method, path: &str) -> usize {
        assert!(*self.waiting.borrow() > 0, "the watch is held no longer");
        self.passed.lock().iter().filter(|(m, p)| m == method && p == path).count()
    }

    /// Lets all watches through.
    pub fn release(&self) {
        self.held.send_replace(None);
    }

    async fn pass(
        &self,
        inner: Client,
        request: Request<Body>,
    ) -> Result<Response<Body>, kube::Error> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let resource = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        if uri.query().is_some_and(|q| q.contains("watch=true")) {
            self.wait_for_turn(&resource).await;
        } else if *self.waiting.borrow() > 0 {
            self.passed.lock().push((method.clone(), uri.path().to_owned()));
        }
        let creates = method == Method::POST && resource == "pods";
        let loses = creates
            && self
                .lost_answers
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok();
        let request = match &self.created {
            Some(kept) if creates => {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap_or_default();
                let pod: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
                kept.lock().push(pod["metadata"]["name"].to_string());
                Request::from_parts(parts, Body::from(body))
            }
            _ => request,
        };
        let answer = inner.send(request).await;
        if loses {
            self.lost.fetch_add(1, Ordering::SeqCst);
            return Err(kube::Error::Service("the connection broke off".into()));
        }
        answer
    }

    /// Waits while watches of the resource are held.
    async fn wait_for_turn(&self, resource: &str) {
        let mut held = self.held.subscribe();
        if held.borrow_and_update().is_none_or(|h| h != resource) {
            return;
        }
        self.waiting.send_modify(|n| *n += 1);
        let free = held.wait_for(|held| held.is_none_or(|h| h != resource)).await;
        drop(free.expect("the wire exists"));
        self.waiting.send_modify(|n| *n -= 1);
    }
}

/// A client whose requests pass over the wire.
pub fn client(inner: Client, wire: Arc<Wire>) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let (inner, wire) = (inner.clone(), wire.clone());
        async move { wire.pass(inner, request).await }
    });
    Client::new(service, "default")
}
