//! Spans as a backend returns them.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, TracesData};

/// The scope of the spans of lives, beside those of reconciles and calls.
const LIVES: &str = "gastown.lives";

/// The spans of lives among those of a backend's answer.
pub fn of_lives(traces: TracesData) -> Vec<Span> {
    let scopes = traces.resource_spans.into_iter().flat_map(|of_resource| of_resource.scope_spans);
    let is_of_lives = |name: &str| name == LIVES;
    scopes
        .filter(|of_scope| of_scope.scope.as_ref().is_some_and(|scope| is_of_lives(&scope.name)))
        .flat_map(|of_scope| of_scope.spans)
        .collect()
}

/// An attribute of a span, as text.
pub fn attribute(span: &Span, key: &str) -> Option<String> {
    let pair = span.attributes.iter().find(|pair| pair.key == key)?;
    Some(match pair.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::BoolValue(value) => value.to_string(),
        other => format!("{other:?}"),
    })
}

/// How long a span took, in seconds.
pub(crate) fn seconds(span: &Span) -> f64 {
    between(span.start_time_unix_nano, span.end_time_unix_nano)
}

/// From one time to another, in seconds; negative when the other one is earlier. Both are in nanoseconds.
pub(crate) fn between(from: u64, to: u64) -> f64 {
    (i128::from(to) - i128::from(from)) as f64 / 1e9
}

/// The spans below one, in the order of their times: one that takes no time comes before one that begins
/// with it.
pub(crate) fn below<'a>(spans: &[&'a Span], parent: &Span) -> Vec<&'a Span> {
    let mut below: Vec<&Span> =
        spans.iter().copied().filter(|span| span.parent_span_id == parent.span_id).collect();
    below.sort_by_key(|span| (span.start_time_unix_nano, span.end_time_unix_nano));
    below
}

/// A span in messages: its name and the beginning of its id.
pub(crate) fn named(span: &Span) -> String {
    let id = hex::encode(&span.span_id);
    format!("{} ({})", span.name, id.get(..6).unwrap_or(&id))
}
