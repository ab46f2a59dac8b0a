//! Jaeger 2, which keeps traces in memory: an OpenTelemetry collector with a store and a query API.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use gastown_cluster::control_plane::free_port;
use gastown_cluster::{http_client, toolchain};
use http::Method;
use opentelemetry_proto::tonic::trace::v1::{Span, TracesData};
use serde_json::{Value, json};

use crate::server::Server;
use crate::span::of_lives;

/// How many traces it keeps.
const MAX_TRACES: u32 = 100_000;

/// A running Jaeger. It ends when it is dropped, and its traces with it.
#[derive(Debug)]
pub struct Jaeger {
    _server: Server,
    query: String,
    otlp: String,
}

impl Jaeger {
    /// Starts it. It takes OTLP at this address of the machine, and answers queries on loopback.
    pub async fn start(address: Ipv4Addr) -> Result<Self> {
        let program = toolchain::jaeger().await?;
        let (query, otlp) = (free_port()?, free_port()?);
        // A configuration in JSON is one in YAML.
        let configuration = configuration(&format!("{address}:{otlp}"), query, free_port()?);
        let query = format!("http://127.0.0.1:{query}");
        let ready = format!("{query}/api/services");
        let flags = |file: &std::path::Path, _: &std::path::Path| {
            vec!["--config".to_owned(), file.display().to_string()]
        };
        let server =
            Server::start("jaeger", &program, &configuration.to_string(), flags, &ready).await?;
        Ok(Self { _server: server, query, otlp: format!("http://{address}:{otlp}") })
    }

    /// Where spans are sent by OTLP over gRPC.
    pub fn otlp(&self) -> &str {
        &self.otlp
    }

    /// The address of the query API.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// The spans of a life, by its trace's id, with every copy that came; none when it has no such trace.
    pub async fn life(&self, trace: &str) -> Result<Vec<Span>> {
        let url = format!("{}/api/v3/traces/{trace}?raw_traces=true", self.query);
        read(&url).await
    }

    /// The spans of all lives that a service sent.
    pub async fn lives(&self, service: &str) -> Result<Vec<Span>> {
        let times =
            "query.start_time_min=2000-01-01T00:00:00Z&query.start_time_max=2100-01-01T00:00:00Z";
        let which = format!("query.service_name={service}&query.num_traces={MAX_TRACES}");
        let url = format!("{}/api/v3/traces?{which}&{times}&query.raw_traces=true", self.query);
        read(&url).await
    }
}

async fn read(url: &str) -> Result<Vec<Span>> {
    let body = match http_client::send(Method::GET, url, Vec::new()).await {
        Err(error) if format!("{error:#}").contains("404 Not Found") => return Ok(Vec::new()),
        other => other?,
    };
    spans(&body).with_context(|| format!("{url} is not what is expected"))
}

/// The spans of lives in an answer: one message, or one for each chunk of a stream.
fn spans(body: &[u8]) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    for part in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
        let mut part = part?;
        let traces: TracesData = serde_json::from_value(part["result"].take())?;
        spans.extend(of_lives(traces));
    }
    Ok(spans)
}

fn configuration(otlp: &str, query: u16, query_grpc: u16) -> Value {
    json!({
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query"],
            "pipelines": {"traces": {
                "receivers": ["otlp"], "processors": ["batch"], "exporters": ["jaeger_storage_exporter"],
            }},
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
        },
        "extensions": {
            "jaeger_query": {
                "storage": {"traces": "memory"},
                "http": {"endpoint": format!("127.0.0.1:{query}")},
                "grpc": {"endpoint": format!("127.0.0.1:{query_grpc}")},
            },
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": MAX_TRACES}}}},
        },
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": otlp}}}},
        "processors": {"batch": {"timeout": "100ms"}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute;

    /// As Jaeger 2 answered.
    const ANSWER: &str = r#"{"result":{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}}]},"scopeSpans":[{"scope":{"name":"gastown.lives"},"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"polecat","kind":1,"startTimeUnixNano":"1800000000000000000","endTimeUnixNano":"1800000005000000000","attributes":[{"key":"n","value":{"intValue":"3"}}],"status":{"code":1}},{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b175","parentSpanId":"eee19b7ec3c1b174","name":"x","kind":1,"startTimeUnixNano":"1800000000000000000","endTimeUnixNano":"1800000005000000000","links":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174"}],"status":{}}]},{"scope":{"name":"gastown.work"},"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b176","name":"reconcile","status":{}}]}]}]}}"#;

    #[test]
    fn an_answer_is_read_with_every_copy_and_without_other_scopes() {
        let read = spans(format!("{ANSWER}\n{ANSWER}\n").as_bytes()).unwrap();
        let names: Vec<&str> = read.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["polecat", "x", "polecat", "x"]);
        let (root, child) = (&read[0], &read[1]);
        assert!(root.parent_span_id.is_empty() && child.parent_span_id == root.span_id);
        assert_eq!(child.links[0].span_id, root.span_id);
        assert_eq!(hex::encode(&root.trace_id), "5b8efff798038103d269b633813fc60c");
        assert_eq!(root.end_time_unix_nano - root.start_time_unix_nano, 5_000_000_000);
        assert_eq!(attribute(root, "n").as_deref(), Some("3"));
        assert!(spans(b"{\"result\":{}}").is_err() && spans(b"").unwrap().is_empty());
    }
}
