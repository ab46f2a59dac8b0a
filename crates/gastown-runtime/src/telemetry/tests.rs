//! Telemetry on its way to a collector that takes it, is busy, hangs or is not there.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gastown_fakes::collector::{Collector, Mood};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tracing_subscriber::layer::SubscriberExt as _;

use super::counters::records;
use super::queue::{self, Queue, Sending};
use super::settings::{Batch, settings};
use super::spans::{self, LIVES};
use super::{Telemetry, resource, start, transport};
use crate::metrics::Metrics;

const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const GRPC: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");

fn span(n: u8) -> SpanData {
    let context = SpanContext::new(
        TraceId::from_bytes([7; 16]),
        SpanId::from_bytes([n; 8]),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    );
    SpanData {
        span_context: context,
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: "a".into(),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: spans::scope(LIVES),
    }
}

/// The way out that these variables state. `signal` names its counters.
fn way_out(
    signal: &'static str,
    variables: &[(&str, &str)],
    batch: Batch,
) -> (Queue<SpanData>, Sending) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let all: HashMap<&str, &str> = variables.iter().copied().collect();
    let (mut settings, warnings) = settings(&|name| all.get(name).map(|v| (*v).to_owned()));
    assert_eq!(warnings, [""; 0]);
    let mut exporter = transport::span_exporter(&settings.traces.take().unwrap()).unwrap();
    exporter.set_resource(&resource::resource(&crate::testing::args(), "rig-ctl", "1", &settings));
    queue::start(signal, batch, spans::send(exporter))
}

fn soon() -> Batch {
    Batch { delay: Duration::from_millis(1), ..Batch::default() }
}

#[tokio::test]
async fn spans_arrive_over_each_protocol_with_headers_and_the_resource() {
    let collector = Collector::start(None).await.unwrap();
    let url = format!("http://{}", collector.address);
    let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=web%20shop");
    let zip = |how| ("OTEL_EXPORTER_OTLP_COMPRESSION", how);
    let ways = [(GRPC, "none"), (HTTP, "none"), (GRPC, "gzip"), (HTTP, "gzip")];
    for (n, (protocol, how)) in (1..).zip(ways) {
        let all = [(ALL, url.as_str()), protocol, zip(how), headers];
        let (queue, sending) = way_out("arrive", &all, soon());
        queue.add(span(n));
        let received = collector.wait(|received| received.spans.len() == usize::from(n)).await;
        let (scope, received_span) = received.spans.last().unwrap();
        assert_eq!((scope.as_str(), &received_span.span_id), (LIVES, &vec![n; 8]));
        assert_eq!(received.headers["x-team"], "web shop");
        assert_eq!(received.resource["service.name"], "rig-ctl");
        sending.end(Duration::from_secs(30)).await;
    }
    assert_eq!(records("arrive", "sent").get(), 4);
}

/// A certificate for this machine's address in a file, and a server that shows it.
fn certificate(folder: &Path, name: &str) -> (String, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let file = folder.join(name);
    std::fs::write(&file, made.cert.pem()).unwrap();
    let certificates = vec![CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key);
    let mut config = config.unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (file.display().to_string(), TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn tls_is_checked_with_the_authorities_of_the_file() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let (file, tls) = certificate(folder.path(), "ours.pem");
    let (other, _) = certificate(folder.path(), "other.pem");
    let collector = Collector::start(Some(tls)).await.unwrap();
    let url = format!("https://{}", collector.address);
    let roots = |file| ("OTEL_EXPORTER_OTLP_CERTIFICATE", file);
    let (queue, sending) = way_out("tls", &[(ALL, &url), roots(file.as_str())], soon());
    queue.add(span(1));
    collector.wait(|received| received.spans.len() == 1).await;
    sending.end(Duration::from_secs(30)).await;

    let (queue, sending) = way_out("not-tls", &[(ALL, &url), HTTP, roots(other.as_str())], soon());
    queue.add(span(2));
    // Its end does not wait for further tries.
    sending.end(Duration::from_secs(30)).await;
    assert_eq!((records("not-tls", "sent").get(), records("not-tls", "failed").get()), (0, 1));
    assert_eq!(collector.received().spans.len(), 1);
}

#[tokio::test]
async fn what_a_busy_collector_does_not_take_is_sent_again() {
    let collector = Collector::start(None).await.unwrap();
    collector.set_mood(Mood::Busy);
    let url = format!("http://{}", collector.address);
    for (n, protocol) in [(1, GRPC), (2, HTTP)] {
        collector.set_mood(Mood::Busy);
        let before = collector.received().requests;
        let (queue, sending) = way_out("busy", &[(ALL, &url), protocol], soon());
        queue.add(span(n));
        collector.wait(|received| received.requests > before).await;
        collector.set_mood(Mood::Takes);
        collector.wait(|received| received.spans.len() == usize::from(n)).await;
        sending.end(Duration::from_secs(30)).await;
    }
    assert_eq!((records("busy", "sent").get(), records("busy", "failed").get()), (2, 0));
}

#[tokio::test]
async fn a_collector_that_hangs_costs_a_bounded_queue_and_nobody_waits_for_it() {
    let collector = Collector::start(None).await.unwrap();
    collector.set_mood(Mood::Hangs);
    let url = format!("http://{}", collector.address);
    let batch = Batch { queue: 4, size: 2, ..soon() };
    let (queue, sending) = way_out("hang", &[(ALL, &url)], batch);
    queue.add(span(0));
    collector.wait(|received| received.requests == 1).await;
    // Nothing of this waits: the queue takes four more, and the rest is dropped.
    for n in 1..=100 {
        queue.add(span(n));
    }
    assert_eq!(records("hang", "dropped").get(), 96);
    sending.end(Duration::from_millis(10)).await;
    assert_eq!(records("hang", "sent").get(), 0);
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_a_warning_and_no_error() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let args = crate::testing::args();
    let warnings = |variables: &[(&str, &str)]| {
        let all: HashMap<&str, &str> = variables.iter().copied().collect();
        let (settings, mut warnings) = settings(&|name| all.get(name).map(|v| (*v).to_owned()));
        let started = start(&args, "rig-ctl", "1", settings);
        assert!(started.provider.is_none());
        warnings.extend(started.warnings);
        warnings
    };
    assert_eq!(warnings(&[(ALL, "collector:port")]).len(), 1);
    let absent = ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem");
    let text = warnings(&[(ALL, "https://c:4317"), absent]).concat();
    assert!(text.starts_with("traces are not sent: reading /nowhere/ca.pem"), "{text}");

    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (queue, sending) = way_out("absent", &[(ALL, &format!("http://{port}"))], soon());
    queue.add(span(1));
    sending.end(Duration::from_secs(30)).await;
    assert_eq!(records("absent", "failed").get(), 1);
}

/// What is sent by these variables.
fn started(variables: &[(&str, &str)]) -> super::Started {
    let all: HashMap<&str, &str> = variables.iter().copied().collect();
    let (settings, warnings) = settings(&|name| all.get(name).map(|v| (*v).to_owned()));
    assert_eq!(warnings, [""; 0]);
    let started = start(&crate::testing::args(), "rig-ctl", "1", settings);
    assert_eq!(started.warnings, [""; 0]);
    started
}

#[tokio::test]
async fn log_lines_arrive_with_the_life_that_they_are_about() {
    let collector = Collector::start(None).await.unwrap();
    let url = format!("http://{}", collector.address);
    let only = [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_LOGS_EXPORTER", "otlp")];
    for (n, protocol) in (1..).zip([GRPC, HTTP]) {
        let started = started(&[(ALL, url.as_str()), protocol, only[0], only[1]]);
        let subscriber = tracing_subscriber::registry().with(started.logs);
        tracing::subscriber::with_default(subscriber, || {
            let reconcile = tracing::info_span!(
                "reconcile",
                kind = "Polecat",
                trace_id = tracing::field::Empty,
                span_id = tracing::field::Empty,
            );
            reconcile.record("trace_id", "0123456789abcdef0123456789abcdef");
            reconcile.record("span_id", "0123456789abcdef");
            let cause = std::io::Error::other("connection refused");
            let error = transport::SetupError::Read { file: "ca.crt".into(), source: cause };
            let error: &dyn std::error::Error = &error;
            reconcile.in_scope(|| tracing::warn!(error, pods = 3, "the pod is gone"));
        });
        let received = collector.wait(|received| received.logs.len() == n).await;
        let line = received.logs.last().unwrap();
        assert_eq!(hex::encode(&line.trace_id), "0123456789abcdef0123456789abcdef");
        assert_eq!(hex::encode(&line.span_id), "0123456789abcdef");
        assert_eq!((line.severity_text.as_str(), line.severity_number), ("WARN", 13));
        let text = |text: &str| Some(Value::StringValue(text.into()));
        assert_eq!(line.body.clone().unwrap().value, text("the pod is gone"));
        let field = |key: &str| {
            let pair = line.attributes.iter().find(|pair| pair.key == key);
            pair.and_then(|pair| pair.value.clone()?.value)
        };
        assert_eq!((field("kind"), field("pods")), (text("Polecat"), Some(Value::IntValue(3))));
        assert_eq!(field("error"), text("reading ca.crt: connection refused"));
        assert_eq!(received.resource["service.name"], "rig-ctl");
        started.telemetry.shutdown().await;
    }
}

#[tokio::test]
async fn metrics_arrive_over_each_protocol() {
    let collector = Collector::start(None).await.unwrap();
    let url = format!("http://{}", collector.address);
    let soon = ("OTEL_METRIC_EXPORT_INTERVAL", "1");
    let only = [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "otlp")];
    let ways = [(GRPC, "none"), (HTTP, "none"), (GRPC, "gzip"), (HTTP, "gzip")];
    for (n, (protocol, zip)) in (1_i64..).zip(ways) {
        let zip = ("OTEL_EXPORTER_OTLP_COMPRESSION", zip);
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=web%20shop");
        let all = [(ALL, url.as_str()), protocol, zip, headers, soon, only[0], only[1]];
        let mut telemetry: Telemetry = started(&all).telemetry;
        let metrics = Metrics::default();
        metrics.shards_held.set([], n);
        telemetry.export_metrics(&metrics);
        let is_shown = |metric: &Metric| match &metric.data {
            Some(Data::Gauge(gauge)) if metric.name == "gastown_shards_held" => {
                gauge.data_points[0].value == Some(Number::AsDouble(n as f64))
            }
            _ => false,
        };
        let received = collector.wait(|r| r.metrics.iter().any(is_shown)).await;
        assert_eq!(received.headers["x-team"], "web shop");
        assert_eq!(received.resource["service.name"], "rig-ctl");
    }
}
