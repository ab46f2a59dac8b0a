//! Logs, and what is sent by OTLP: the spans of lives, a sample of the spans of reconciles and calls,
//! and, when that is asked for, logs and metrics. The variables `OTEL_*` decide where, as OpenTelemetry
//! specifies them.
//!
//! Nothing that is wrong with it ends a controller or makes one wait: a variable that cannot be used
//! is a warning, and what the collector does not take is dropped and counted.

pub(crate) mod counters;
mod lives;
mod logs;
mod metrics_client;
mod metrics_export;
mod queue;
mod resource;
mod settings;
mod spans;
#[cfg(test)]
mod tests;
mod transport;

use std::time::Duration;

use gastown_trace::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::LogExporter as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter as _};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

pub use self::lives::{Lives, export, is_exported};
use self::metrics_client::MetricsClient;
use self::queue::{Outlet, Queue, Sending};
use self::settings::{Settings, settings};
use self::spans::ToQueue;
use self::transport::SetupError;
use crate::args::{LogFormat, RuntimeArgs};
use crate::metrics::Metrics;

/// How long the end of a process waits for the last telemetry to be taken.
const LAST: Duration = Duration::from_secs(3);

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter is not valid.
    #[error("reading the log filter {0:?}")]
    Filter(String, #[source] tracing_subscriber::filter::ParseError),
    /// A log subscriber is installed already.
    #[error("installing the log subscriber")]
    Install(#[source] tracing_subscriber::util::TryInitError),
}

/// What sends telemetry; [`Telemetry::shutdown`] sends what it still holds.
#[derive(Debug, Default)]
pub struct Telemetry {
    sending: Vec<Sending>,
    metrics: Option<MetricsOut>,
}

/// The way of metrics to their collector.
#[derive(Debug)]
struct MetricsOut {
    client: MetricsClient,
    resource: Resource,
    interval: Duration,
}

/// Installs the global log subscriber, and begins to send telemetry. Must be called in the tokio
/// runtime, where the tasks that send it run.
pub fn init(
    args: &RuntimeArgs,
    controller: &'static str,
    version: &'static str,
) -> Result<Telemetry, Error> {
    let filter =
        EnvFilter::try_new(&args.log).map_err(|error| Error::Filter(args.log.clone(), error))?;
    let log = match args.log_format {
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Pretty => tracing_subscriber::fmt::layer().with_writer(std::io::stderr).boxed(),
    };
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let (settings, warnings) = settings(&|name| std::env::var(name).ok());
    let mut started = start(args, controller, version, settings);
    started.warnings.splice(0..0, warnings);
    let provider = started.provider;
    let spans = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(controller)));
    tracing_subscriber::registry()
        .with(spans)
        .with(started.logs)
        .with(log)
        .with(filter)
        .try_init()
        .map_err(Error::Install)?;
    for warning in started.warnings {
        tracing::warn!(warning, "a setting of telemetry cannot be used");
    }
    Ok(started.telemetry)
}

/// Sends the spans of lives by the variables `OTEL_*`, without a log and without the spans of
/// reconciles: for tests and tools that run controllers in their own process. Returns what is wrong
/// with the variables.
pub fn export_lives(
    args: &RuntimeArgs,
    name: &'static str,
    get: &dyn Fn(&str) -> Option<String>,
) -> (Telemetry, Vec<String>) {
    let (settings, mut warnings) = settings(get);
    let started = start(args, name, env!("CARGO_PKG_VERSION"), settings);
    warnings.extend(started.warnings);
    (started.telemetry, warnings)
}

/// What was begun.
#[derive(Default)]
struct Started {
    telemetry: Telemetry,
    provider: Option<SdkTracerProvider>,
    logs: Option<logs::ToQueue>,
    warnings: Vec<String>,
}

/// Begins to send what the settings state.
fn start(
    args: &RuntimeArgs,
    controller: &'static str,
    version: &'static str,
    mut settings: Settings,
) -> Started {
    let mut started = Started::default();
    let resource = resource::resource(args, controller, version, &settings);
    if let Some(queue) = start_traces(&resource, &mut settings, &mut started) {
        lives::set(queue.clone());
        let mut builder = SdkTracerProvider::builder().with_span_processor(ToQueue(queue));
        if let Some(sampler) = settings.sampler.take() {
            builder = builder.with_sampler(sampler);
        }
        started.provider = Some(builder.build());
    }
    started.logs = start_logs(&resource, &mut settings, &mut started);
    if let Some(endpoint) = settings.metrics.take()
        && let Some(client) = made(MetricsClient::new(endpoint), "metrics", &mut started.warnings)
    {
        let interval = settings.metric_interval;
        started.telemetry.metrics = Some(MetricsOut { client, resource, interval });
    }
    started
}

fn start_logs(
    resource: &Resource,
    settings: &mut Settings,
    started: &mut Started,
) -> Option<logs::ToQueue> {
    let exporter = transport::log_exporter(&settings.logs.take()?);
    let mut exporter = made(exporter, "logs", &mut started.warnings)?;
    exporter.set_resource(resource);
    let (queue, sending) = queue::start("logs", settings.batch, logs::send(exporter));
    started.telemetry.sending.push(sending);
    Some(logs::ToQueue::new(queue))
}

fn start_traces(
    resource: &Resource,
    settings: &mut Settings,
    started: &mut Started,
) -> Option<Queue<SpanData>> {
    let exporter = transport::span_exporter(&settings.traces.take()?);
    let mut exporter = made(exporter, "traces", &mut started.warnings)?;
    exporter.set_resource(resource);
    let (queue, sending) = queue::start("spans", settings.batch, spans::send(exporter));
    started.telemetry.sending.push(sending);
    Some(queue)
}

/// A way to an endpoint; none, and a warning, where there can be none.
fn made<T>(made: Result<T, SetupError>, what: &str, warnings: &mut Vec<String>) -> Option<T> {
    made.map_err(|error| {
        let error = anyhow::Error::from(error);
        warnings.push(format!("{what} are not sent: {error:#}"));
    })
    .ok()
}

impl Telemetry {
    /// Begins to send the metrics of a registry, where that is asked for.
    pub fn export_metrics(&mut self, metrics: &Metrics) {
        let Some(MetricsOut { client, resource, interval }) = self.metrics.take() else { return };
        let (metrics, began) = (metrics.clone(), metrics_export::now());
        let mut outlet =
            Outlet::new("metrics", Box::new(move |message| Box::pin(client.clone().send(message))));
        // It ends with the process: what it would send last is what it sent before.
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Ok(text) = metrics.encode() else { continue };
                let now = metrics_export::now();
                let (message, count) = metrics_export::message(&resource, &text, began, now);
                outlet.send(message, count, true).await;
            }
        });
    }

    /// Sends what still waits, for at most three seconds.
    pub async fn shutdown(self) {
        futures::future::join_all(self.sending.into_iter().map(|sending| sending.end(LAST))).await;
    }
}

/// States which life the current reconcile or call is about: its log lines have the trace and the
/// span, and its own span, where that is recorded, links to it. The current span needs the fields
/// `trace_id` and `span_id`.
pub fn about(life: Context) {
    let span = tracing::Span::current();
    span.record("trace_id", tracing::field::display(life.trace));
    span.record("span_id", tracing::field::display(life.span));
    if is_exported() {
        span.add_link(SpanContext::new(
            TraceId::from_bytes(life.trace.bytes()),
            SpanId::from_bytes(life.span.bytes()),
            TraceFlags::SAMPLED,
            true,
            TraceState::NONE,
        ));
    }
}

/// Makes `span` a child of the remote span that `traceparent` names. Must be called before the span
/// is entered.
pub fn set_parent(span: &tracing::Span, traceparent: &str) {
    let carrier =
        std::collections::HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let context =
        opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&carrier));
    // It fails without an exporter, when there are no traces.
    let _ = span.set_parent(context);
}
