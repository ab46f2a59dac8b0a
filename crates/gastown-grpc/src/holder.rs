//! The way to the replica that works for a rig: of several replicas one does, and the others answer
//! where it is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::HeaderValue;
use parking_lot::Mutex;
use tonic::Code;
use tonic::body::Body;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;
use tower::Service;
use tracing::Instrument as _;

use crate::{calls, trace_context};

/// The metadata of a request that names the rig that it is about.
pub const RIG: &str = "gastown-rig";
/// The metadata of the status [`Code::Unavailable`] that names the address of the replica that serves.
const ADDRESS: &str = "gastown-holder";
/// The metadata of an answer that names the addresses of the other replicas.
const OTHERS: &str = "gastown-replicas";

/// Where the replica is that works for each rig, as far as replicas have named it. Clones share.
#[derive(Clone, Debug, Default)]
pub struct Holder(Arc<Mutex<HashMap<String, IpAddr>>>);

impl Holder {
    /// Its address; none while requests go to any replica.
    pub fn address(&self, rig: &str) -> Option<IpAddr> {
        self.0.lock().get(rig).copied()
    }

    /// Whether a replica that is known is at this address.
    pub(crate) fn knows(&self, address: IpAddr) -> bool {
        self.0.lock().values().any(|known| *known == address)
    }

    /// Takes in where the replica `from`, or any one, sends requests about a rig.
    fn answered(&self, rig: &str, from: Option<IpAddr>, headers: &http::HeaderMap) {
        let value = headers.get(ADDRESS).and_then(|value| value.to_str().ok());
        let elsewhere = value.and_then(|value| value.parse().ok()).filter(|to| Some(*to) != from);
        let is_unavailable = tonic::Status::from_header_map(headers)
            .is_some_and(|status| status.code() == Code::Unavailable);
        match elsewhere {
            Some(address) => drop(self.0.lock().insert(rig.to_owned(), address)),
            // It does not serve, and does not know who does.
            None if is_unavailable => self.failed(rig, from),
            None => {}
        }
    }

    /// The replica at this address does not answer, or does not serve.
    pub(crate) fn failed(&self, rig: &str, from: Option<IpAddr>) {
        let mut known = self.0.lock();
        if from.is_some() && known.get(rig).copied() == from {
            known.remove(rig);
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

/// Names the addresses of the other replicas in an answer.
pub fn set_others(metadata: &mut MetadataMap, others: &[IpAddr]) {
    let text: Vec<String> = others.iter().map(IpAddr::to_string).collect();
    if let Ok(value) = text.join(",").parse() {
        metadata.insert(OTHERS, value);
    }
}

/// The addresses that [`set_others`] has put there.
pub fn others(metadata: &MetadataMap) -> Vec<IpAddr> {
    let text = metadata.get(OTHERS).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(',').filter_map(|address| address.parse().ok()).collect()
}

/// A channel to a replica, for requests about one rig, that learns from each answer where the next one
/// goes.
#[derive(Clone, Debug)]
pub struct Follow {
    channel: Channel,
    rig: Arc<str>,
    /// The replica at the other end; none where it may be any.
    to: Option<IpAddr>,
    holder: Holder,
}

impl Follow {
    pub(crate) fn new(channel: Channel, rig: &str, to: Option<IpAddr>, holder: Holder) -> Self {
        Self { channel, rig: rig.into(), to, holder }
    }
}

impl Service<http::Request<Body>> for Follow {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let ready = self.channel.poll_ready(context);
        if let Poll::Ready(Err(_)) = &ready {
            self.holder.failed(&self.rig, self.to);
        }
        ready
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let span = span(request.uri(), self.to);
        trace_context::inject(&span, request.headers_mut());
        if !self.rig.is_empty()
            && let Ok(rig) = HeaderValue::from_str(&self.rig)
        {
            request.headers_mut().insert(RIG, rig);
        }
        let (path, began) = (request.uri().path().to_owned(), Instant::now());
        let answer = self.channel.call(request);
        let (rig, to, holder) = (self.rig.clone(), self.to, self.holder.clone());
        let followed = async move {
            let answer = answer.await;
            let code = if let Ok(response) = &answer {
                holder.answered(&rig, to, response.headers());
                // Without one the status is in the trailers, and the call is under way.
                let status = tonic::Status::from_header_map(response.headers());
                status.map_or(Code::Ok, |status| status.code())
            } else {
                holder.failed(&rig, to);
                Code::Unavailable
            };
            calls::ended(&path, code, began.elapsed().as_secs_f64());
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

    /// Where the replica is that works for the rig `web`.
    #[derive(Default)]
    struct Web(Holder);

    impl Web {
        fn address(&self) -> Option<IpAddr> {
            assert_eq!(self.0.address("other"), None);
            self.0.address("web")
        }

        fn answered(&self, from: Option<IpAddr>, headers: &http::HeaderMap) {
            self.0.answered("web", from, headers);
        }

        fn failed(&self, from: Option<IpAddr>) {
            self.0.failed("web", from);
        }
    }

    #[test]
    fn an_answer_names_the_other_replicas() {
        let mut metadata = MetadataMap::new();
        assert!(others(&metadata).is_empty());
        for all in [vec![], vec![IpAddr::from([10, 0, 0, 1]), "fd00::2".parse().unwrap()]] {
            set_others(&mut metadata, &all);
            assert_eq!(others(&metadata), all);
        }
    }

    #[test]
    fn requests_follow_the_replica_that_serves_until_it_does_not() {
        let holder = Web::default();
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
