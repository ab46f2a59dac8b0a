//! Log lines as OTLP has them, where that is asked for; they are written to stderr all the same.

use std::fmt::{Debug, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::queue::Queue;
use super::resource::text;

/// The longest text of a record, in bytes.
const MAX_TEXT: usize = 16 * 1024;

/// One message of log lines.
pub(super) fn encode(resource: &Resource, version: &str, records: Vec<LogRecord>) -> Bytes {
    let scope = InstrumentationScope {
        name: "gastown.logs".to_owned(),
        version: version.to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_logs =
        vec![ScopeLogs { scope: Some(scope), log_records: records, ..ScopeLogs::default() }];
    let resource_logs =
        ResourceLogs { resource: Some(resource.clone()), scope_logs, ..ResourceLogs::default() };
    Bytes::from(ExportLogsServiceRequest { resource_logs: vec![resource_logs] }.encode_to_vec())
}

/// Hands log lines to the queue, with the fields of the spans that they are in.
pub(super) struct ToQueue(pub Queue<LogRecord>);

/// The fields of a span.
#[derive(Default)]
struct Fields {
    /// What the line itself states.
    message: String,
    trace_id: Vec<u8>,
    span_id: Vec<u8>,
    others: Vec<KeyValue>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            "trace_id" => self.trace_id = hex(&value),
            "span_id" => self.span_id = hex(&value),
            name => {
                self.others.retain(|pair| pair.key != name);
                self.others.push(text(name.to_owned(), value));
            }
        }
    }
}

/// The bytes of hexadecimal digits; none where there is anything else.
fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let bytes = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    bytes.collect::<Option<Vec<u8>>>().unwrap_or_default()
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let end = value.floor_char_boundary(MAX_TEXT.min(value.len()));
        self.set(field, value[..end].to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut shown = String::new();
        // Writing into a text does not fail.
        let _ = write!(shown, "{value:?}");
        self.record_str(field, &shown);
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
        let mut all = Fields::default();
        let spans = context.event_scope(event).into_iter().flat_map(Scope::from_root);
        for span in spans {
            if let Some(fields) = span.extensions().get::<Fields>() {
                all.others.extend(fields.others.iter().cloned());
                if !fields.trace_id.is_empty() {
                    (all.trace_id, all.span_id) = (fields.trace_id.clone(), fields.span_id.clone());
                }
            }
        }
        event.record(&mut all);
        let metadata = event.metadata();
        all.others.push(text("code.namespace".to_owned(), metadata.target().to_owned()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or_default();
        self.0.add(LogRecord {
            time_unix_nano: now,
            observed_time_unix_nano: now,
            severity_number: severity(*metadata.level()),
            severity_text: metadata.level().as_str().to_owned(),
            body: Some(AnyValue { value: Some(Value::StringValue(all.message)) }),
            attributes: all.others,
            trace_id: all.trace_id,
            span_id: all.span_id,
            ..LogRecord::default()
        });
    }
}

/// The level by OpenTelemetry's numbers.
fn severity(level: Level) -> i32 {
    match level {
        Level::TRACE => 1,
        Level::DEBUG => 5,
        Level::INFO => 9,
        Level::WARN => 13,
        Level::ERROR => 17,
    }
}
