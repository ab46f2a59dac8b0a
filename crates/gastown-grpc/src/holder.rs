//! The way to the replica that serves: of several replicas one does, and the others answer where it is.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tonic::Code;
use tonic::body::Body;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tower::Service;
use tracing::Instrument as _;

/// The metadata of the status [`Code::Unavailable`] that names the address of the replica that serves.
const ADDRESS: &str = "gastown-holder";

/// Where the replica of a server is that serves, as far as its replicas have named it. Clones share.
#[derive(Clone, Debug, Default)]
pub struct Holder(Arc<Mutex<Option<IpAddr>>>);

impl Holder {
    /// Its address; none while requests go to any replica.
    pub fn address(&self) -> Option<IpAddr> {
        *self.0.lock()
    }

    /// Takes in where the replica `from`, or any one, sends requests.
    fn answered(&self, from: Option<IpAddr>, headers: &http::HeaderMap) {
        let value = headers.get(ADDRESS).and_then(|value| value.to_str().ok());
        let elsewhere = value.and_then(|value| value.parse().ok()).filter(|to| Some(*to) != from);
        let is_unavailable = tonic::Status::from_header_map(headers)
            .is_some_and(|status| status.code() == Code::Unavailable);
        match elsewhere {
            Some(address) => *self.0.lock() = Some(address),
            // It does not serve, and does not know who does.
            None if is_unavailable => self.failed(from),
            None => {}
        }
    }

    /// The replica at this address does not answer, or does not serve.
    pub(crate) fn failed(&self, from: Option<IpAddr>) {
        let mut address = self.0.lock();
        if from.is_some() && *address == from {
            *address = None;
        }
    }
}

/// The answer of a replica that does not serve: requests are to go to `address`, where that is known.
pub fn elsewhere(message: String, address: Option<IpAddr>) -> tonic::Status {
    let mut status = tonic::Status::unavailable(message);
    let address = address.map(|address| AsciiMetadataValue::try_from(address.to_string()));
    if let Some(Ok(address)) = address {
        status.metadata_mut().insert(ADDRESS, address);
    }
    status
}

/// A channel to a replica that learns from each answer where the next request goes.
#[derive(Clone, Debug)]
pub struct Follow {
    channel: Channel,
    /// The replica at the other end; none where it may be any.
    to: Option<IpAddr>,
    holder: Holder,
}

impl Follow {
    pub(crate) fn new(channel: Channel, to: Option<IpAddr>, holder: Holder) -> Self {
        Self { channel, to, holder }
    }
}

impl Service<http::Request<Body>> for Follow {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let ready = self.channel.poll_ready(context);
        if let Poll::Ready(Err(_)) = &ready {
            self.holder.failed(self.to);
        }
        ready
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let span = span(request.uri(), self.to);
        let answer = self.channel.call(request);
        let (to, holder) = (self.to, self.holder.clone());
        let followed = async move {
            let answer = answer.await;
            let code = if let Ok(response) = &answer {
                holder.answered(to, response.headers());
                // Without one the status is in the trailers, and the call is under way.
                let status = tonic::Status::from_header_map(response.headers());
                status.map_or(Code::Ok, |status| status.code())
            } else {
                holder.failed(to);
                Code::Unavailable
            };
            let span = tracing::Span::current();
            span.record("rpc.grpc.status_code", code as i64);
            if code != Code::Ok {
                span.record("otel.status_code", "ERROR");
            }
            answer
        };
        Box::pin(followed.instrument(span))
    }
}

/// The span of a request, named as OpenTelemetry's conventions for RPC have it.
fn span(uri: &http::Uri, to: Option<IpAddr>) -> tracing::Span {
    let path = uri.path().trim_start_matches('/');
    let (service, method) = path.split_once('/').unwrap_or((path, ""));
    tracing::info_span!(
        "request",
        otel.name = path,
        otel.kind = "client",
        otel.status_code = tracing::field::Empty,
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = tracing::field::Empty,
        server.address = to.map(tracing::field::display),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(status: tonic::Status) -> http::HeaderMap {
        status.into_http::<Body>().headers().clone()
    }

    #[test]
    fn requests_follow_the_replica_that_serves_until_it_does_not() {
        let holder = Holder::default();
        let (first, second): (IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "fd00::2".parse().unwrap());
        holder.answered(None, &headers(elsewhere("a stand-by".into(), None)));
        assert_eq!(holder.address(), None);
        holder.answered(None, &headers(elsewhere("a stand-by".into(), Some(first))));
        assert_eq!(holder.address(), Some(first));
        holder.answered(Some(first), &http::HeaderMap::new());
        holder.answered(Some(first), &headers(tonic::Status::not_found("nothing")));
        assert_eq!(holder.address(), Some(first), "it serves");
        holder.answered(Some(first), &headers(elsewhere("not any more".into(), Some(second))));
        assert_eq!(holder.address(), Some(second));
        holder.failed(Some(first));
        holder.answered(None, &headers(tonic::Status::unavailable("another one")));
        assert_eq!(holder.address(), Some(second), "that was another replica");
        holder.answered(Some(second), &headers(elsewhere("me".into(), Some(second))));
        assert_eq!(holder.address(), None, "it names itself and does not serve");
        holder.answered(None, &headers(elsewhere("a stand-by".into(), Some(first))));
        holder.failed(Some(first));
        assert_eq!(holder.address(), None);
    }
}
