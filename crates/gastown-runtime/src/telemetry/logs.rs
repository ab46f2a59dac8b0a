//! Log lines as OTLP has them, where that is asked for; they are written to stderr all the same.

use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::InstrumentationScope;
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use opentelemetry_otlp::LogExporter;
use opentelemetry_sdk::logs::{
    LogBatch, LogExporter as _, SdkLogRecord, SdkLogger, SdkLoggerProvider,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::queue::{Queue, Send};
use super::spans;

/// The longest text of a record, in bytes.
const MAX_TEXT: usize = 16 * 1024;
/// The scope of log lines.
const LOGS: &str = "gastown.logs";

fn scope() -> InstrumentationScope {
    spans::scope(LOGS)
}

/// Sends batches by this exporter.
pub(super) fn send(exporter: LogExporter) -> Send<Vec<SdkLogRecord>> {
    let shared = Arc::new((exporter, scope()));
    Box::new(move |records| {
        let shared = shared.clone();
        Box::pin(async move {
            let (exporter, scope) = &*shared;
            let batch: Vec<_> = records.iter().map(|record| (record, scope)).collect();
            Ok(exporter.export(LogBatch::new(&batch)).await?)
        })
    })
}

/// Hands log lines to the queue, with the fields of the spans that they are in.
///
/// `opentelemetry-appender-tracing` does the same with the id of the OpenTelemetry span that is current:
/// that is the one of the reconcile, if it was sampled, where these lines need the one of the life, which
/// is a field. It also leaves out what caused an error, and has no bound for texts.
pub(super) struct ToQueue {
    queue: Queue<SdkLogRecord>,
    logger: SdkLogger,
}

impl ToQueue {
    pub(super) fn new(queue: Queue<SdkLogRecord>) -> Self {
        // It makes the records; they leave by the queue.
        let logger = SdkLoggerProvider::builder().build().logger_with_scope(scope());
        Self { queue, logger }
    }
}

/// The fields of a span.
#[derive(Default)]
struct Fields {
    /// What the line itself states.
    message: String,
    trace: Option<TraceId>,
    span: Option<SpanId>,
    others: Vec<(&'static str, AnyValue)>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: impl Into<AnyValue>) {
        let name = field.name();
        self.others.retain(|(key, _)| *key != name);
        self.others.push((name, value.into()));
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let end = value.floor_char_boundary(MAX_TEXT.min(value.len()));
        let value = &value[..end];
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "trace_id" => self.trace = TraceId::from_hex(value).ok(),
            "span_id" => self.span = SpanId::from_hex(value).ok(),
            _ => self.set(field, value.to_owned()),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut shown = String::new();
        // Writing into a text does not fail.
        let _ = write!(shown, "{value:?}");
        self.record_str(field, &shown);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.set(field, value),
            Err(_) => self.set(field, value.to_string()),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &super::transport::chain(value));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for ToQueue {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        // What the export itself logs would be exported, which would log again.
        if metadata.target().starts_with("opentelemetry") {
            return;
        }
        let mut all = Fields::default();
        let spans = context.event_scope(event).into_iter().flat_map(Scope::from_root);
        for span in spans {
            if let Some(fields) = span.extensions().get::<Fields>() {
                for (key, value) in &fields.others {
                    all.others.retain(|(other, _)| other != key);
                    all.others.push((*key, value.clone()));
                }
                if fields.trace.is_some() {
                    (all.trace, all.span) = (fields.trace, fields.span);
                }
            }
        }
        event.record(&mut all);
        self.queue.add(self.record(metadata.target(), *metadata.level(), all));
    }
}

impl ToQueue {
    fn record(&self, target: &str, level: Level, fields: Fields) -> SdkLogRecord {
        let Fields { message, trace, span, others } = fields;
        let now = SystemTime::now();
        let mut record = self.logger.create_log_record();
        record.set_timestamp(now);
        record.set_observed_timestamp(now);
        record.set_severity_number(severity(level));
        record.set_severity_text(level.as_str());
        record.set_body(message.into());
        record.add_attributes(others);
        record.add_attribute("code.namespace", target.to_owned());
        if let Some(trace) = trace {
            let span = span.unwrap_or(SpanId::INVALID);
            record.set_trace_context(trace, span, Some(TraceFlags::SAMPLED));
        }
        record
    }
}

/// The level as OpenTelemetry names it.
fn severity(level: Level) -> Severity {
    match level {
        Level::TRACE => Severity::Trace,
        Level::DEBUG => Severity::Debug,
        Level::INFO => Severity::Info,
        Level::WARN => Severity::Warn,
        Level::ERROR => Severity::Error,
    }
}
