//! One pass over ten thousand requests that have landed and one that waits.
//!
//! `cargo test -p refinery-ctl --lib ten_thousand -- --nocapture` prints how long it takes.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use gastown_api::{MergePhase, MergeRequest, Refinery, RefinerySpec, Rig};
use gastown_core::train::{End, decide};
use gastown_fakes::stores::filled;
use gastown_runtime::metrics::Metrics;
use gastown_runtime::network::NetworkArgs;
use gastown_runtime::pace::Pace;
use gastown_runtime::proxy::ProxyArgs;
use gastown_runtime::shards::Shards;
use gastown_runtime::{Runtime, RuntimeArgs};
use jiff::Timestamp;
use kube::Client;
use serde_json::json;

use crate::context::{Context, Stores};
use crate::pass::Pass;
use crate::train::Train;
use crate::{RefineryArgs, context, gather, report};

const LANDED: usize = 10_000;

/// When everything was created and landed.
static BEGAN: LazyLock<Timestamp> = LazyLock::new(Timestamp::now);

/// A request; one that has landed has nothing left to be done.
fn request(n: usize, landed: bool) -> MergeRequest {
    let commit = format!("{n:040x}");
    let spec = json!({
        "rigRef": "web", "sourceBranch": format!("polecat/{n}"), "commit": commit,
        "targetBranch": "main", "attempt": 1,
    });
    let mut request = MergeRequest::new(&format!("mr-{n}"), serde_json::from_value(spec).unwrap());
    let meta = &mut request.metadata;
    (meta.namespace, meta.uid) = (Some("team".to_owned()), Some(format!("uid-{n}")));
    (meta.resource_version, meta.generation) = (Some(format!("{}", n + 1)), Some(1));
    let now = *BEGAN;
    meta.creation_timestamp = Some(gastown_api::conditions::time(now));
    if landed {
        let end = json!({
            "v": 1, "cleaned": true,
            "end": {
                "phase": "Landed", "reason": "Merged", "message": "on main", "at": now,
                "landed": commit,
            },
        });
        let key = gastown_api::names::annotation::REQUEST_RECORD.to_owned();
        request.metadata.annotations = Some([(key, end.to_string())].into());
        let status = json!({"phase": "Landed", "landedCommit": commit});
        request.status = Some(serde_json::from_value(status).unwrap());
    }
    request
}

/// A controller with these requests, whose API server takes every write.
fn controller(requests: Vec<MergeRequest>) -> Context {
    let server = tower::service_fn(|request: http::Request<kube::client::Body>| async move {
        use http_body_util::BodyExt as _;
        let path = request.uri().path().to_owned();
        let name = path.split('/').rev().nth(1).unwrap_or_default().to_owned();
        let body = request.into_body().collect().await?.to_bytes();
        let mut object: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let n: usize = name.trim_start_matches("mr-").parse().unwrap_or(0);
        let mut whole = serde_json::to_value(self::request(n, true)).unwrap_or_default();
        whole["status"] = object["status"].take();
        let answer = kube::client::Body::from(serde_json::to_vec(&whole)?);
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(http::Response::new(answer))
    });
    let client = Client::new(server, "team");
    let args = RuntimeArgs::from_env().unwrap();
    let runtime = Runtime::new("test", client, args, Metrics::default(), Shards::all());
    let rig = json!({"gitURL": "https://host/web.git", "beadsPrefix": "gt"});
    let stores = Stores {
        refineries: filled([refinery()]),
        requests: filled(requests),
        polecats: filled([]),
        rigs: filled([Rig::new("web", serde_json::from_value(rig).unwrap())]),
        gate_runs: filled([]),
        own_runs: Arc::default(),
        jobs: filled([]),
        pods: filled([]),
        policies: filled([]),
    };
    let own = RefineryArgs {
        agent_image: "agent".into(),
        agent_image_file: None,
        agent_pull_policy: "IfNotPresent".into(),
        git_endpoint: "https://localhost:1".into(),
        git_addr: "127.0.0.1:0".parse().unwrap(),
        witness_endpoint: None,
        data_dir: "/nonexistent".into(),
        gate_seconds: 600,
        git_memory_mib: 512,
        build_memory_mib: 512,
        build_seconds: 600,
        platform_ids: false,
        builder: None,
        proxy: ProxyArgs::default(),
        network: NetworkArgs::default(),
    };
    // Every status is written at once.
    let request_pace = Pace::new(Duration::ZERO, Duration::ZERO);
    Context { request_pace, ..context(&runtime, own, stores).unwrap() }
}

fn refinery() -> Refinery {
    let mut refinery = Refinery::new("web", RefinerySpec::of_rig("web"));
    let meta = &mut refinery.metadata;
    (meta.namespace, meta.uid) = (Some("team".to_owned()), Some("uid-web".to_owned()));
    meta.resource_version = Some("1".to_owned());
    refinery
}

fn page(ctx: &Context) -> gastown_metrics::page::Page {
    gastown_metrics::page::read(&ctx.runtime.metrics.encode().unwrap()).unwrap()
}

#[tokio::test]
async fn ends_are_counted_by_what_they_are_and_a_landing_that_was_not_tested_is_seen() {
    let ctx = controller(vec![]);
    let (metrics, commit) = (&ctx.metrics, |n: u8| format!("{n:040x}").parse().unwrap());
    metrics.begin("web");
    let end = |phase, reason: &str, tested: Option<u8>, landed: Option<u8>| End {
        phase,
        reason: reason.to_owned(),
        message: String::new(),
        at: *BEGAN,
        tested: tested.map(commit),
        landed: landed.map(commit),
    };
    metrics.ended("web", &end(MergePhase::Landed, "Merged", Some(1), Some(1)));
    metrics.ended("web", &end(MergePhase::Landed, "FoundInTarget", None, Some(2)));
    metrics.ended("web", &end(MergePhase::Rework, "GateFailed", None, None));
    metrics.ended("web", &end(MergePhase::Superseded, "Superseded", None, None));
    let value = |series: &str, labels: &[(&str, &str)]| {
        let labels = [&[("rig", "web")], labels].concat();
        page(&ctx).value(series, &labels)
    };
    let merges = |result| value("gastown_refinery_merge_total", &[("result", result)]);
    assert_eq!((merges("success"), merges("error")), (Some(2.0), Some(1.0)));
    let ended = |phase, reason| {
        value("gastown_refinery_ended_total", &[("phase", phase), ("reason", reason)])
    };
    assert_eq!(ended("Rework", "GateFailed"), Some(1.0));
    assert_eq!(ended("Superseded", "Superseded"), Some(1.0));
    let untested = || value("gastown_refinery_untested_landings_total", &[]);
    assert_eq!(untested(), Some(0.0));
    metrics.ended("web", &end(MergePhase::Landed, "Merged", Some(1), Some(3)));
    assert_eq!(untested(), Some(1.0));
    // Of a rig that does not exist any more nothing is shown.
    metrics.begin("gone");
    let gone = [("rig", "gone"), ("result", "success")];
    assert_eq!(page(&ctx).value("gastown_refinery_merge_total", &gone), None);
}

#[tokio::test]
async fn a_gate_run_is_observed_by_its_states_with_its_trace() {
    let ctx = controller(vec![]);
    let trace = gastown_trace::TraceId::of("uid-1");
    ctx.metrics.gate_ran("web", "failure", (Some(4), Some(90)), Some(trace));
    ctx.metrics.gate_ran("web", "error", (Some(700), None), None);
    let page = page(&ctx);
    let of = |state, result| {
        let labels =
            [("rig", "web"), ("cicd_pipeline_run_state", state), ("cicd_pipeline_result", result)];
        page.value("cicd_pipeline_run_duration_seconds_sum", &labels)
    };
    assert_eq!(of("pending", "failure"), Some(4.0));
    assert_eq!(of("executing", "failure"), Some(90.0));
    assert_eq!((of("pending", "error"), of("executing", "error")), (Some(700.0), None));
    let text = ctx.runtime.metrics.encode().unwrap();
    assert!(text.contains(&format!("# {{trace_id=\"{trace}\"}} 90.0")), "{text}");
}

#[tokio::test]
async fn a_pass_over_ten_thousand_landed_requests_writes_and_decides_nothing_about_them() {
    let requests = (0..LANDED).map(|n| request(n, true)).chain([request(LANDED, false)]);
    let ctx = controller(requests.collect());
    let pass = Pass {
        ctx: &ctx,
        refinery: Arc::new(refinery()),
        rig: ctx.rig("web").unwrap(),
        url: "https://host/web.git".parse().unwrap(),
        target: "main".parse().unwrap(),
        committing: gastown_git::Committing::default(),
        gates: ctx.gates(),
    };
    let mut train = Train::default();
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let snapshot = gather::snapshot(&pass, &mut train);
        let step = decide(&snapshot);
        assert!(format!("{step:?}").starts_with("Fetch"), "{step:?}");
        report::publish(&pass, &mut train, &snapshot).await.unwrap();
        fastest = fastest.min(began.elapsed());
    }
    let open = train.entries.values().filter(|e| !e.is_settled()).count();
    println!("a pass over {LANDED} landed requests: {fastest:?}");
    assert_eq!(open, 1, "those that have landed are not looked at again");
    let page = page(&ctx);
    let rig = [("rig", "web")];
    assert_eq!(page.value("gastown_refinery_queue_length", &rig), Some(1.0));
    assert!(page.value("gastown_refinery_queue_oldest_seconds", &rig).is_some());
    assert_eq!(page.differences("refinery-ctl"), [""; 0]);
    ctx.metrics.forget(&pass.refinery);
    assert_eq!(self::page(&ctx).value("gastown_refinery_queue_length", &rig), None);
}
