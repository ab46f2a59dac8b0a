//! What every request carries: the token, and the trace context.

use std::path::{Path, PathBuf};

use opentelemetry::propagation::Injector;
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// Adds a projected service-account token and the trace context to each request. The token is read
/// for each request, because the kubelet rotates it.
#[derive(Clone, Debug)]
pub struct Bearer {
    token_file: PathBuf,
}

impl Bearer {
    /// The token is in `token_file`, or in the file `token` if that is a folder.
    pub fn new(token_file: &Path) -> Self {
        Self { token_file: token_file.to_owned() }
    }

    fn token(&self) -> Result<String, Status> {
        let file = if self.token_file.is_dir() {
            self.token_file.join("token")
        } else {
            self.token_file.clone()
        };
        std::fs::read_to_string(&file).map_err(|error| {
            Status::unavailable(format!("reading the token {}: {error}", file.display()))
        })
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = format!("Bearer {}", self.token()?.trim())
            .parse()
            .map_err(|_| Status::internal("the token cannot be a header's value"))?;
        request.metadata_mut().insert("authorization", value);
        opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.inject(&mut Metadata(request.metadata_mut()));
        });
        Ok(request)
    }
}

struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An empty `tracestate` is left out.
        if let (Ok(key), Ok(header)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse())
            && !value.is_empty()
        {
            self.0.insert(key, header);
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Tracer as _, TracerProvider as _, mark_span_as_active};
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    fn header(request: &Request<()>, name: &str) -> Option<String> {
        request.metadata().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
    }

    #[test]
    fn a_request_carries_the_token_as_it_is_now_and_the_trace_context() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let mut bearer = Bearer::new(folder.path());
        let absent = bearer.call(Request::new(())).unwrap_err();
        assert_eq!(absent.code(), tonic::Code::Unavailable, "the kubelet may write it later");
        std::fs::write(&file, "old").unwrap();
        let request = bearer.call(Request::new(())).unwrap();
        assert_eq!(header(&request, "authorization").as_deref(), Some("Bearer old"));
        assert_eq!(header(&request, "traceparent"), None);

        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        let provider = SdkTracerProvider::builder().build();
        let _active = mark_span_as_active(provider.tracer("test").start("reconcile"));
        std::fs::write(&file, "new\n").unwrap();
        let request = bearer.call(Request::new(())).unwrap();
        assert_eq!(header(&request, "authorization").as_deref(), Some("Bearer new"));
        let parent = header(&request, "traceparent").unwrap();
        assert!(parent.starts_with("00-") && parent.len() == 55, "{parent}");
        assert_eq!(header(&request, "tracestate"), None, "there is none");
    }
}
