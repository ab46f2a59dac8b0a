//! Logs and traces. Traces are exported when `OTEL_EXPORTER_OTLP_ENDPOINT` is set (OTLP over plain
//! gRPC).

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::args::{LogFormat, RuntimeArgs};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("reading the log filter {0:?}")]
    Filter(String, #[source] tracing_subscriber::filter::ParseError),
    /// The endpoint cannot be used.
    #[error("setting up the export of traces")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// Another subscriber is installed.
    #[error("installing the log subscriber")]
    Install(#[source] tracing_subscriber::util::TryInitError),
}

/// Keeps the exporter; [`Telemetry::shutdown`] sends what is left.
#[derive(Debug, Default)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Installs the global subscriber. Must be called inside the tokio runtime, where the exporter's
/// channel lives.
pub fn init(
    args: &RuntimeArgs,
    controller: &'static str,
    version: &'static str,
) -> Result<Telemetry, Error> {
    let filter =
        EnvFilter::try_new(&args.log).map_err(|error| Error::Filter(args.log.clone(), error))?;
    let lines = match args.log_format {
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Pretty => tracing_subscriber::fmt::layer().with_writer(std::io::stderr).boxed(),
    };
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let wanted = std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT")
        .is_some_and(|endpoint| !endpoint.is_empty());
    let provider = if wanted {
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
        .with(lines)
        .with(filter)
        .try_init()
        .map_err(Error::Install)?;
    Ok(Telemetry { provider })
}

impl Telemetry {
    /// Sends the spans that are still buffered; waits at most five seconds.
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

/// The W3C trace context of the current span, as the value of a `traceparent` header or annotation.
pub fn traceparent() -> Option<String> {
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    let context = tracing::Span::current().context();
    let mut carrier = std::collections::HashMap::new();
    opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&context, &mut carrier)
    });
    carrier.remove("traceparent")
}

/// Makes `span` a child of the remote span that `traceparent` names. Must be called before the span
/// is entered.
pub fn set_parent(span: &tracing::Span, traceparent: &str) {
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    let carrier =
        std::collections::HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let context =
        opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&carrier));
    // Without an exporter there is no layer to take the parent: nothing is lost.
    let _ = span.set_parent(context);
}
