//! A receiver of webhooks that keeps what it gets: the other end of an escalation's route.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How many deliveries are kept; the oldest are dropped first.
const KEPT: usize = 256;
/// The largest delivery that is accepted, in bytes.
const MAX_DELIVERY: usize = 1 << 20;

/// One delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// The last part of the path that it was sent to.
    pub hook: String,
    /// The JSON that was sent.
    pub body: Value,
}

type Kept = Arc<Mutex<VecDeque<Delivery>>>;

/// `POST /hooks/NAME` takes JSON; `GET /admin/deliveries` lists the deliveries, oldest first.
pub fn router() -> Router {
    Router::new()
        .route("/hooks/{name}", post(take))
        .route("/admin/deliveries", get(list))
        .layer(DefaultBodyLimit::max(MAX_DELIVERY))
        .with_state(Kept::default())
}

async fn take(State(kept): State<Kept>, Path(hook): Path<String>, body: Bytes) -> StatusCode {
    let Ok(body) = serde_json::from_slice(&body) else { return StatusCode::BAD_REQUEST };
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(Delivery { hook, body });
    StatusCode::NO_CONTENT
}

async fn list(State(kept): State<Kept>) -> Json<Vec<Delivery>> {
    Json(kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect())
}
