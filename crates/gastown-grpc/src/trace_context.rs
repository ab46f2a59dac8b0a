//! Which span a request comes from, for the server.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::Injector;

/// Makes what the server does for a request a part of `span`: that of the request itself, where it is
/// recorded, else the one around it.
pub(crate) fn inject(span: &tracing::Span, headers: &mut HeaderMap) {
    span.in_scope(|| {
        opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.inject(&mut Headers(headers));
        });
    });
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An empty `tracestate` is left out.
        if let (Ok(name), Ok(header)) = (HeaderName::try_from(key), HeaderValue::try_from(&value))
            && !value.is_empty()
        {
            self.0.insert(name, header);
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn the_server_s_span_is_below_that_of_the_request() {
        let mut headers = HeaderMap::new();
        inject(&tracing::info_span!("request"), &mut headers);
        assert!(headers.is_empty(), "without a trace");

        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let reconcile = tracing::info_span!("reconcile");
            let _entered = reconcile.enter();
            let request = tracing::info_span!("request");
            inject(&request, &mut headers);
            let context = request.context();
            let own = context.span().span_context().clone();
            let expected = format!("00-{}-{}-01", own.trace_id(), own.span_id());
            assert_eq!(headers["traceparent"], expected);
            assert!(!headers.contains_key("tracestate"), "there is none");
        });
    }
}
