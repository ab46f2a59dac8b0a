//! Logs and traces. Traces are exported when `OTEL_EXPORTER_OTLP_ENDPOINT` is set, by OTLP over
//! gRPC without TLS.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::args::{LogFormat, RuntimeArgs};

/// Why logging or tracing could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter is not valid.
    #[error("reading the log filter {0:?}")]
    Filter(String, #[source] tracing_subscriber::filter::ParseError),
    /// The endpoint of the trace exporter is not valid.
    #[error("setting up the export of traces")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// A log subscriber is installed already.
    #[error("installing the log subscriber")]
    Install(#[source] tracing_subscriber::util::TryInitError),
}

/// The exporter of traces; [`Telemetry::shutdown`] sends the spans that it still holds.
#[derive(Debug, Default)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Installs the global log subscriber and the exporter of traces. Must be called in the tokio
/// runtime, where the exporter's channel lives.
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
    let is_exported = std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT")
        .is_some_and(|endpoint| !endpoint.is_empty());
    let provider = if is_exported {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .build()
            .map_err(Error::Exporter)?;
        let resource = Resource::builder()
            .with_service_name(controller)
            .with_attribute(opentelemetry::KeyValue::new("service.version", version))
            .build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
        Some(
            SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(resource)
                .with_sampler(sampler)
                .build(),
        )
    } else {
        None
    };
    let spans = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(controller)));
    tracing_subscriber::registry()
        .with(spans)
        .with(log)
        .with(filter)
        .try_init()
        .map_err(Error::Install)?;
    Ok(Telemetry { provider })
}

impl Telemetry {
    /// Sends the spans that are still buffered, for at most five seconds.
    pub fn shutdown(self) {
        if let Some(provider) = self.provider
            && let Err(error) = provider.shutdown_with_timeout(std::time::Duration::from_secs(5))
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the last traces were not exported"
            );
        }
    }
}

/// Makes `span` a child of the remote span that `traceparent` names. Must be called before the span
/// is entered.
pub fn set_parent(span: &tracing::Span, traceparent: &str) {
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    let carrier =
        std::collections::HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let context =
        opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&carrier));
    // It fails without an exporter, when there are no traces.
    let _ = span.set_parent(context);
}
