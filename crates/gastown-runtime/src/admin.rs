//! The admin server: `/livez`, `/readyz`, `/metrics` and `/version`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What has to happen before the process is ready. Clones share.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waits: Arc<Mutex<BTreeMap<String, Option<String>>>>,
    changed: Arc<tokio::sync::Notify>,
}

impl Readiness {
    /// Adds something that readiness waits for, and why it has not happened yet.
    pub fn wait_for(&self, what: &str, why: &str) {
        self.waits.lock().insert(what.to_owned(), Some(why.to_owned()));
        self.changed.notify_waiters();
    }

    /// It has happened.
    pub fn done(&self, what: &str) {
        self.waits.lock().insert(what.to_owned(), None);
        self.changed.notify_waiters();
    }

    /// What has not happened yet, one line each; empty when the process is ready.
    pub fn missing(&self) -> Vec<String> {
        self.waits
            .lock()
            .iter()
            .filter_map(|(what, why)| why.as_ref().map(|why| format!("{what}: {why}")))
            .collect()
    }

    /// Waits until the process is ready.
    pub async fn ready(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the check, or a change between the two would be missed.
            changed.as_mut().enable();
            if self.missing().is_empty() {
                return;
            }
            changed.await;
        }
    }
}

/// The content of `/version`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Version {
    /// The controller's name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

#[derive(Clone)]
struct Admin {
    readiness: Readiness,
    metrics: Metrics,
    version: Version,
    drain: CancellationToken,
}

/// The four pages. `/readyz` fails once `drain` is cancelled, so that no new requests are sent
/// here.
pub fn router(
    readiness: Readiness,
    metrics: Metrics,
    version: Version,
    drain: CancellationToken,
) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .route("/version", get(|State(admin): State<Admin>| async move { Json(admin.version) }))
        .with_state(Admin { readiness, metrics, version, drain })
}

/// Serves the pages until `stop` is cancelled.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let mut missing = admin.readiness.missing();
    if admin.drain.is_cancelled() {
        missing.push("draining: the process is about to end".to_owned());
    }
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", missing.join("\n")))
        .into_response()
}

async fn metrics_page(State(admin): State<Admin>) -> Response {
    match admin.metrics.encode() {
        Ok(text) => (
            [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
            text,
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
