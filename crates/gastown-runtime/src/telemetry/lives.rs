//! The way out for the finished spans of lives: each is exported once by a process, and again by the next
//! one, which cannot know what its predecessor sent.

use std::collections::HashMap;
use std::sync::OnceLock;

use gastown_trace::{Span, SpanId, Status, Value};
use jiff::{SignedDuration, Timestamp};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use parking_lot::Mutex;

use super::queue::Queue;
use super::spans::{LIVES, scope};

/// What ended longer ago than this was exported by a predecessor.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);

/// The queue of this process, once traces are exported.
static QUEUE: OnceLock<Queue<SpanData>> = OnceLock::new();

/// Has what is exported from now on sent by this queue. The first call counts.
pub(super) fn set(queue: Queue<SpanData>) {
    // It fails when there is one already, which stays.
    let _ = QUEUE.set(queue);
}

/// Whether spans are exported. Where they are not, none is made.
pub fn is_exported() -> bool {
    QUEUE.get().is_some()
}

/// Exports finished spans that are reported to this process alone: what it loses is lost.
pub fn export(spans: impl IntoIterator<Item = Span>) {
    if let Some(queue) = QUEUE.get() {
        spans.into_iter().for_each(|span| queue.add(record(span)));
    }
}

/// The spans that this process has exported, by the uid of their object. It is empty, and stays so, when
/// traces are not exported.
#[derive(Debug, Default)]
pub struct Lives(Mutex<HashMap<String, Vec<SpanId>>>);

impl Lives {
    /// Exports the finished spans of an object that it has not exported yet. Must be called after what they
    /// show was written. `spans` is not called when spans are not exported.
    pub fn export(&self, uid: &str, now: Timestamp, spans: impl FnOnce() -> Vec<Span>) {
        let Some(queue) = QUEUE.get() else { return };
        for span in self.new_ones(uid, now, spans()) {
            queue.add(record(span));
        }
    }

    fn new_ones(&self, uid: &str, now: Timestamp, spans: Vec<Span>) -> Vec<Span> {
        let mut all = self.0.lock();
        let is_new = !all.contains_key(uid);
        let exported = all.entry(uid.to_owned()).or_default();
        let mut new_ones = Vec::new();
        for span in spans {
            if exported.contains(&span.id) {
                continue;
            }
            exported.push(span.id);
            if !is_new || now.duration_since(span.end) <= AGAIN {
                new_ones.push(span);
            }
        }
        exported.shrink_to_fit();
        new_ones
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        if is_exported() {
            self.0.lock().remove(uid);
        }
    }
}

/// A span as the exporter takes it.
fn record(span: Span) -> SpanData {
    let context = |context: gastown_trace::Context, is_remote| {
        SpanContext::new(
            TraceId::from_bytes(context.trace.bytes()),
            opentelemetry::trace::SpanId::from_bytes(context.span.bytes()),
            TraceFlags::SAMPLED,
            is_remote,
            TraceState::NONE,
        )
    };
    let parent = span.parent.map(|id| opentelemetry::trace::SpanId::from_bytes(id.bytes()));
    let mut links = SpanLinks::default();
    links.links =
        span.links.iter().map(|link| Link::new(context(*link, true), Vec::new(), 0)).collect();
    let own = context(span.context(), false);
    SpanData {
        span_context: own,
        parent_span_id: parent.unwrap_or(opentelemetry::trace::SpanId::INVALID),
        parent_span_is_remote: span.remote_parent,
        span_kind: SpanKind::Internal,
        name: span.name,
        start_time: span.begin.into(),
        end_time: span.end.into(),
        attributes: span.attributes.into_iter().map(|(key, value)| pair(key, value)).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: match span.status {
            Status::Unset => opentelemetry::trace::Status::Unset,
            Status::Ok => opentelemetry::trace::Status::Ok,
            Status::Error(message) => opentelemetry::trace::Status::error(message),
        },
        instrumentation_scope: scope(LIVES),
    }
}

fn pair(key: &'static str, value: Value) -> KeyValue {
    match value {
        Value::Text(text) => KeyValue::new(key, text),
        Value::Integer(number) => KeyValue::new(key, number),
        Value::Number(number) => KeyValue::new(key, number),
        Value::Boolean(value) => KeyValue::new(key, value),
    }
}
