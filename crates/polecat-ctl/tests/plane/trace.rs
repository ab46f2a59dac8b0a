//! The spans of a life, as a collector receives them: one tree, whatever became of the process that
//! exported them.

use std::collections::BTreeMap;

use gastown_api::names::{annotation, condition};
use gastown_fakes::collector::{Collector, Received};
use gastown_proto::v1::Bead;
use gastown_runtime::{RuntimeArgs, telemetry};
use gastown_trace::{Request, TraceId};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;

use crate::fixture::Fixture;
use crate::outcomes::{commit, done};

/// The present second, as objects show times.
fn second() -> String {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap().to_string()
}

fn roots(received: &Received, trace: &str) -> usize {
    received.of_trace(trace).iter().filter(|span| span.name == "polecat").count()
}

fn names(spans: &BTreeMap<Vec<u8>, Span>, parent: &[u8]) -> Vec<String> {
    let mut own: Vec<&Span> = spans.values().filter(|s| s.parent_span_id == parent).collect();
    own.sort_by_key(|s| (s.start_time_unix_nano, s.end_time_unix_nano, s.name == "submit"));
    own.iter().map(|span| span.name.clone()).collect()
}

fn traceparent(pod: &Pod) -> String {
    let claude = &pod.spec.as_ref().unwrap().containers[0];
    let variable = claude.env.iter().flatten().find(|e| e.name == "TRACEPARENT").unwrap();
    variable.value.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_is_one_trace_though_its_controller_restarts() {
    let collector = Collector::start(None).await.unwrap();
    let endpoint = format!("http://{}", collector.address);
    let variable = move |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(endpoint.clone()),
        "OTEL_BSP_SCHEDULE_DELAY" => Some("10".to_owned()),
        _ => None,
    };
    let args = RuntimeArgs::from_env().unwrap();
    let (sending, warnings) = telemetry::export_lives(&args, "polecat-ctl", &variable);
    assert_eq!(warnings, [""; 0]);
    let mut fixture = Fixture::start(3).await;
    fixture.make_bead_store().await;
    fixture.beads.put(Bead { id: "web-1".into(), title: "t".into(), ..Bead::default() }).await;

    let polecat = fixture.sling("toast", |spec| spec.bead_id = Some("web-1".into())).await;
    let uid = polecat.uid().unwrap();
    let trace = TraceId::of(&uid).to_string();
    let first = fixture.pod("polecat-toast", &[]).await;
    assert!(traceparent(&first).contains(&trace));
    fixture.kubelet.running(&first).await.unwrap();
    let working = fixture.wait_reason("toast", condition::READY, "PodRunning").await;
    assert_eq!(working.status.unwrap().trace_id.as_deref(), Some(trace.as_str()));
    fixture.stop_controller().await;
    fixture.start_controller();
    fixture.kubelet.finish(&first, &done(1)).await.unwrap();

    // It is sent back by a red run, and lands the next time.
    let sent_back = fixture.request(&commit(1)).await;
    let run = json!({
        "number": 1, "result": "Failed", "reason": "GateFailed", "job": "gate-1",
        "base": commit(0), "candidate": commit(9),
    });
    let status = json!({
        "phase": "Rework", "reason": "GateFailed", "finishedAt": second(), "attempts": [run],
    });
    fixture.request_status(&sent_back.name_any(), status).await;
    let second_pod = fixture.pod(&format!("polecat-toast-{}-2", &uid[..5]), &[]).await;
    fixture.stop_controller().await;
    fixture.kubelet.finish(&second_pod, &done(2)).await.unwrap();
    fixture.start_controller();
    let landed = fixture.request(&commit(2)).await;
    let closed = Bead {
        id: "web-1".into(),
        title: "t".into(),
        status: "closed".into(),
        closed_for: vec![landed.uid().unwrap()],
        closed_at: second(),
        ..Bead::default()
    };
    fixture.beads.put(closed).await;
    fixture.wait_reason("toast", condition::SUBMITTED, "Submitted").await;
    let status = json!({ "phase": "Landed", "landedAt": second(), "finishedAt": second() });
    fixture.request_status(&landed.name_any(), status).await;
    collector.wait(|received| roots(received, &trace) == 1).await;

    // The next process does not know what was exported: it exports the end again, and nothing else of it.
    fixture.stop_controller().await;
    fixture.start_controller();
    let received = collector.wait(|received| roots(received, &trace) == 2).await;
    let mut spans = BTreeMap::new();
    for span in received.of_trace(&trace) {
        if let Some(before) = spans.insert(span.span_id.clone(), span.clone()) {
            assert_eq!(before, span, "exported twice, and differently");
        }
    }
    let root = spans.values().find(|span| span.parent_span_id.is_empty()).unwrap().clone();
    assert_eq!(spans.values().filter(|span| span.parent_span_id.is_empty()).count(), 1);
    for span in spans.values().filter(|span| span.span_id != root.span_id) {
        assert!(spans.contains_key(&span.parent_span_id), "{} is an orphan", span.name);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
    }
    let mut phases = names(&spans, &root.span_id);
    phases.sort();
    let expected = [
        "attempt",
        "attempt",
        "bead.close",
        "dispatch",
        "submit",
        "submit",
        "wait.claim",
        "wait.slot",
        "wait.slot",
    ];
    assert_eq!(phases, expected);
    for attempt in spans.values().filter(|span| span.name == "attempt") {
        let steps = names(&spans, &attempt.span_id);
        assert!(
            steps.contains(&"pending".to_owned()) && steps.contains(&"save".to_owned()),
            "{steps:?}"
        );
    }
    let red = Request::of(&sent_back.uid().unwrap(), None, Some(&uid)).gate("gate-1");
    let linked = spans.values().filter(|span| span.name == "attempt" && !span.links.is_empty());
    let links: Vec<_> = linked.flat_map(|span| &span.links).map(|link| &link.span_id[..]).collect();
    assert_eq!(links, [&red.span.bytes()[..]], "the rework links to the run that caused it");
    let ledger = fixture.polecats().get("toast").await.unwrap();
    assert!(ledger.annotations()[annotation::LEDGER].contains("\"marks\""));
    fixture.close().await;
    sending.shutdown().await;
}
