//! Faults of a connection to the API server.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::response::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::call::Call;

/// How late what is late arrives: longer than a controller needs to act on something else.
const LATE: Duration = Duration::from_millis(300);
/// Longer than a controller needs to act on all else.
const VERY_LATE: Duration = Duration::from_secs(1);
/// How many late events are on their way at a time.
const IN_FLIGHT: usize = 256;
/// How many watches of each kind break off.
const BROKEN_OFF: usize = 3;

/// What goes wrong. Requests are of one kind when they have the same verb and resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The first request of each kind is refused: too many requests, retry after a second.
    Throttled,
    /// The first write of each kind is refused as a conflict.
    Conflict,
    /// The first write of each kind is carried out, and the connection ends before its answer.
    AnswerLost,
    /// The first watches of each kind break off after their first event.
    WatchBrokenOff,
    /// The first watch of each kind is refused because its version has expired.
    WatchExpired,
    /// Events of watches arrive late: caches are older than the answers to own writes.
    LateEvents,
    /// Events of this resource arrive late, and those of others in time: one cache is older than the
    /// others.
    LateEventsOf(String),
    /// Answers to writes arrive late: caches are newer than the answers to own writes.
    LateAnswers,
}

impl Fault {
    /// All faults that are about every kind.
    pub const ALL: [Self; 7] = [
        Self::Throttled,
        Self::Conflict,
        Self::AnswerLost,
        Self::WatchBrokenOff,
        Self::WatchExpired,
        Self::LateEvents,
        Self::LateAnswers,
    ];

    pub(super) fn is_about(&self, call: &Call) -> bool {
        match self {
            Self::Throttled => true,
            Self::Conflict | Self::AnswerLost | Self::LateAnswers => call.write.is_some(),
            Self::WatchBrokenOff | Self::WatchExpired | Self::LateEvents => call.is_watch,
            Self::LateEventsOf(resource) => call.watched() == Some(resource),
        }
    }

    /// Whether it occurs at a request that is the one of this number of its kind, from 1.
    pub(super) fn occurs_at(&self, number: usize) -> bool {
        match self {
            Self::Throttled | Self::Conflict | Self::AnswerLost | Self::WatchExpired => number == 1,
            Self::WatchBrokenOff => number <= BROKEN_OFF,
            Self::LateEvents | Self::LateEventsOf(_) | Self::LateAnswers => true,
        }
    }

    /// The answer to a request that is not carried out.
    pub(super) fn refusal(&self) -> Option<Response> {
        let (code, reason) = match self {
            Self::Throttled => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
            Self::Conflict => (StatusCode::CONFLICT, "Conflict"),
            Self::WatchExpired => (StatusCode::GONE, "Expired"),
            Self::AnswerLost
            | Self::WatchBrokenOff
            | Self::LateEvents
            | Self::LateEventsOf(_)
            | Self::LateAnswers => return None,
        };
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
            "message": "refused by the test", "code": code.as_u16(),
        });
        let mut response = (code, axum::Json::<Value>(status)).into_response();
        if *self == Self::Throttled {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Some(response)
    }

    /// What becomes of the answer to a request that was carried out.
    pub(super) async fn answer(&self, parts: Parts, body: Body) -> io::Result<Response> {
        let late = |by| {
            move |chunk| async move {
                tokio::time::sleep(by).await;
                chunk
            }
        };
        let body = match self {
            Self::AnswerLost => return Err(lost()),
            Self::LateAnswers => {
                tokio::time::sleep(LATE).await;
                body
            }
            Self::LateEvents => {
                Body::from_stream(body.into_data_stream().map(late(LATE)).buffered(IN_FLIGHT))
            }
            Self::LateEventsOf(_) => {
                Body::from_stream(body.into_data_stream().map(late(VERY_LATE)).buffered(IN_FLIGHT))
            }
            Self::WatchBrokenOff => {
                let first = body.into_data_stream().map(|chunk| chunk.map_err(io::Error::other));
                let broken = stream::once(async { Err::<Bytes, _>(lost()) });
                Body::from_stream(first.take(1).chain(broken))
            }
            Self::Throttled | Self::Conflict | Self::WatchExpired => body,
        };
        Ok(Response::from_parts(parts, body))
    }
}

fn lost() -> io::Error {
    io::Error::other("the connection is lost")
}
