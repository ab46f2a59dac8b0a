//! The wire between one replica and the API server: answers get lost on it, and watches are held back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use tokio::sync::watch;

/// What happens on the wire.
pub struct Wire {
    /// The answers to so many creations of pods get lost after the API server has carried them out.
    pub lost_answers: AtomicU32,
    /// How many of them got lost.
    pub lost: AtomicU32,
    /// Watches of this resource begin only when it is another one.
    held: watch::Sender<Option<&'static str>>,
}

impl Default for Wire {
    fn default() -> Self {
        let held = watch::Sender::new(None);
        Self { lost_answers: 0.into(), lost: 0.into(), held }
    }
}

impl Wire {
    /// A wire on which watches of a resource are held back.
    pub fn holding(resource: &'static str) -> Self {
        let wire = Self::default();
        wire.held.send_replace(Some(resource));
        wire
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
            let mut held = self.held.subscribe();
            let free = held.wait_for(|held| held.is_none_or(|h| h != resource)).await;
            drop(free.expect("the wire exists"));
        }
        let creates = method == Method::POST && resource == "pods";
        let loses = creates
            && self
                .lost_answers
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok();
        let answer = inner.send(request).await;
        if loses {
            self.lost.fetch_add(1, Ordering::SeqCst);
            return Err(kube::Error::Service("the connection broke off".into()));
        }
        answer
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
