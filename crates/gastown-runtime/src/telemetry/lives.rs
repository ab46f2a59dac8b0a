//! The way out for the finished spans of lives: each is exported once by a process, and again by the next
//! one, which cannot know what its predecessor sent.

use std::collections::HashMap;
use std::sync::OnceLock;

use gastown_trace::{Span, SpanId, Status, Value};
use jiff::{SignedDuration, Timestamp};
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue as Any, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{self as otlp, span, status};
use parking_lot::Mutex;

use super::queue::Queue;
use super::spans::{LIVES, Record};

/// What ended longer ago than this was exported by a predecessor.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);

/// The queue of this process, once traces are exported.
static QUEUE: OnceLock<Queue<Record>> = OnceLock::new();

/// Has what is exported from now on sent by this queue. The first call counts.
pub(super) fn set(queue: Queue<Record>) {
    // It fails when there is one already, which stays.
    let _ = QUEUE.set(queue);
}

/// Whether spans are exported. Where they are not, none is made.
pub fn is_exported() -> bool {
    QUEUE.get().is_some()
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
            queue.add(Record { scope: LIVES, span: record(span) });
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

/// A span as OTLP has it.
fn record(span: Span) -> otlp::Span {
    use span::SpanKind;
    let nanos = |time: Timestamp| u64::try_from(time.as_nanosecond()).unwrap_or_default();
    let sampled = 0x01;
    let parent_is_known = otlp::SpanFlags::ContextHasIsRemoteMask as u32;
    let remote = if span.remote_parent { otlp::SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
    let link = |context: gastown_trace::Context| span::Link {
        trace_id: context.trace.bytes().to_vec(),
        span_id: context.span.bytes().to_vec(),
        flags: sampled,
        ..span::Link::default()
    };
    otlp::Span {
        trace_id: span.trace.bytes().to_vec(),
        span_id: span.id.bytes().to_vec(),
        parent_span_id: span.parent.map(|id| id.bytes().to_vec()).unwrap_or_default(),
        flags: sampled | parent_is_known | remote,
        name: span.name.into_owned(),
        kind: SpanKind::Internal as i32,
        start_time_unix_nano: nanos(span.begin),
        end_time_unix_nano: nanos(span.end),
        attributes: span.attributes.into_iter().map(|(key, value)| pair(key, value)).collect(),
        links: span.links.into_iter().map(link).collect(),
        status: match span.status {
            Status::Unset => None,
            Status::Ok => Some(otlp::Status {
                code: status::StatusCode::Ok as i32,
                ..otlp::Status::default()
            }),
            Status::Error(message) => {
                Some(otlp::Status { message, code: status::StatusCode::Error as i32 })
            }
        },
        ..otlp::Span::default()
    }
}

fn pair(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => AnyValue::StringValue(text),
        Value::Integer(number) => AnyValue::IntValue(number),
        Value::Number(number) => AnyValue::DoubleValue(number),
        Value::Boolean(value) => AnyValue::BoolValue(value),
    };
    KeyValue { key: key.to_owned(), value: Some(Any { value: Some(value) }), ..KeyValue::default() }
}
