//! Spans on their way out: those of lives and those of reconciles and calls, in one queue.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use gastown_trace::SEMANTIC_CONVENTIONS;
use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanProcessor};
use prost::Message as _;

use super::queue::Queue;

/// The scope of the spans of lives.
pub(super) const LIVES: &str = "gastown.lives";
/// The scope of the spans of reconciles and calls.
pub(super) const WORK: &str = "gastown.work";

/// A span that waits to be sent.
#[derive(Debug)]
pub(super) struct Record {
    pub scope: &'static str,
    pub span: Span,
}

/// One message of spans.
pub(super) fn encode(resource: &Resource, version: &str, records: Vec<Record>) -> Bytes {
    let mut by_scope: BTreeMap<&'static str, Vec<Span>> = BTreeMap::new();
    for Record { scope, span } in records {
        by_scope.entry(scope).or_default().push(span);
    }
    let schema_url = SEMANTIC_CONVENTIONS.to_owned();
    let of_scope = |(name, spans): (&str, Vec<Span>)| ScopeSpans {
        scope: Some(InstrumentationScope {
            name: name.to_owned(),
            version: version.to_owned(),
            ..InstrumentationScope::default()
        }),
        spans,
        schema_url: schema_url.clone(),
    };
    let scope_spans = by_scope.into_iter().map(of_scope).collect();
    let resource_spans = ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans,
        schema_url: schema_url.clone(),
    };
    Bytes::from(ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec())
}

/// Hands the spans of reconciles and calls to the queue when they end.
#[derive(Debug)]
pub(super) struct ToQueue(pub Queue<Record>);

impl SpanProcessor for ToQueue {
    fn on_start(&self, _span: &mut opentelemetry_sdk::trace::Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.0.add(Record { scope: WORK, span: span.into() });
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _limit: Duration) -> OTelSdkResult {
        Ok(())
    }
}
