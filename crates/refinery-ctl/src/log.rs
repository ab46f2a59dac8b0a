//! The end of a container's log.

use std::collections::VecDeque;

use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

/// How many bytes of a log's end are kept.
const KEPT: usize = 64 << 10;
/// How many bytes of a log are read: the kubelet keeps about ten megabytes of it.
const MOST: usize = 64 << 20;
/// How many lines are asked for.
const LINES: i64 = 1000;

/// The last 64 KiB of a container's log, as far as it has them; empty when it cannot be read. The
/// API server can only cut a log at its end.
pub(crate) async fn end(pods: &Api<Pod>, pod: &str, container: &str) -> String {
    let params = LogParams {
        container: Some(container.to_owned()),
        tail_lines: Some(LINES),
        ..LogParams::default()
    };
    let Ok(stream) = pods.log_stream(pod, &params).await else { return String::new() };
    let mut stream = Box::pin(stream);
    let (mut kept, mut read) = (VecDeque::new(), 0);
    let mut chunk = vec![0; 16 << 10];
    while read < MOST {
        let Ok(count @ 1..) = stream.read(&mut chunk).await else { break };
        read += count;
        kept.extend(&chunk[..count]);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(kept.make_contiguous()).into_owned()
}
