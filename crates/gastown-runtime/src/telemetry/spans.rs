//! Spans on their way out: those of lives and those of reconciles and calls, in one queue.

use std::sync::Arc;
use std::time::Duration;

use gastown_trace::SEMANTIC_CONVENTIONS;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _, SpanProcessor};

use super::queue::{Queue, Send};

/// The scope of the spans of lives.
pub(super) const LIVES: &str = "gastown.lives";
/// The scope of the spans of reconciles and calls.
pub(super) const WORK: &str = "gastown.work";

/// A scope of spans.
pub(super) fn scope(name: &'static str) -> InstrumentationScope {
    InstrumentationScope::builder(name)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(SEMANTIC_CONVENTIONS)
        .build()
}

/// Sends batches by this exporter.
pub(super) fn send(exporter: SpanExporter) -> Send<Vec<SpanData>> {
    let exporter = Arc::new(exporter);
    Box::new(move |batch| {
        let exporter = exporter.clone();
        Box::pin(async move { Ok(exporter.export(batch).await?) })
    })
}

/// Hands the spans of reconciles and calls to the queue when they end.
#[derive(Debug)]
pub(super) struct ToQueue(pub Queue<SpanData>);

impl SpanProcessor for ToQueue {
    fn on_start(&self, _span: &mut opentelemetry_sdk::trace::Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.0.add(SpanData { instrumentation_scope: scope(WORK), ..span });
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _limit: Duration) -> OTelSdkResult {
        Ok(())
    }
}
