use gastown_metrics::{page, polecat, refinery};
use gastown_trace::TraceId;

use super::*;

fn read(metrics: &Metrics) -> page::Page {
    page::read(&metrics.encode().unwrap()).unwrap()
}

#[test]
fn the_metrics_of_every_controller_are_those_of_the_catalogue() {
    let metrics = Metrics::default();
    metrics.requests.inc(["get".into(), "pods".into(), "200".into()]);
    metrics.request_seconds.observe(["get".into()], 0.1, None);
    metrics.grpc_seconds.observe(["a".into(), "b".into()], 0.1, None);
    metrics.undecodable.set(["Rig".into()], 1);
    let page = read(&metrics);
    // No controller of this name has any of its own.
    assert_eq!(page.differences("none"), [""; 0]);
    for series in ["process_cpu_seconds_total", "process_open_fds", "process_start_time_seconds"] {
        assert!(page.value(series, &[]).is_some_and(|value| value >= 0.0), "{series}");
    }
    assert!(page.value("process_resident_memory_bytes", &[]).unwrap() > 1e6);
    assert_eq!(page.value("gastown_events_dropped_total", &[]), Some(0.0));
}

#[test]
fn an_observation_leads_to_its_trace() {
    let metrics = Metrics::default();
    let merged = metrics.histogram(&refinery::TIME_TO_MERGE);
    let trace = TraceId::of("0a1b");
    merged.observe(["web".into()], 3700.0, Some(trace));
    merged.observe(["web".into()], -4.0, None);
    let page = read(&metrics);
    let of = |bound| [("rig", "web"), ("le", bound)];
    let bucket = page.sample("vcs_change_time_to_merge_seconds_bucket", &of("7200.0")).unwrap();
    assert_eq!(bucket.value.to_string(), "2");
    assert_eq!(bucket.exemplar.as_ref().unwrap()["trace_id"], trace.to_string());
    let first = page.sample("vcs_change_time_to_merge_seconds_bucket", &of("1.0")).unwrap();
    assert_eq!((first.value.to_string().as_str(), &first.exemplar), ("1", &None));
    assert_eq!(page.value("vcs_change_time_to_merge_seconds_sum", &[("rig", "web")]), Some(3700.0));
}

#[test]
fn series_go_with_their_rig() {
    let metrics = Metrics::default();
    let (merges, cost) = (metrics.counter(&refinery::MERGES), metrics.amount(&polecat::COST));
    for rig in ["web", "docs"] {
        merges.inc([rig.into(), "success".into()]);
        cost.add([rig.into(), "m".into()], 0.5);
        cost.add([rig.into(), "m".into()], f64::NAN);
    }
    metrics.keep_rigs(|rig| rig == "web");
    let page = read(&metrics);
    let landed =
        |rig| page.value("gastown_refinery_merge_total", &[("rig", rig), ("result", "success")]);
    assert_eq!((landed("web"), landed("docs")), (Some(1.0), None));
    let cost = |rig| page.value("gastown_polecat_cost_usd_total", &[("rig", rig), ("model", "m")]);
    assert_eq!((cost("web"), cost("docs")), (Some(0.5), None));
}

#[test]
fn a_view_shows_what_is_so_at_each_look() {
    let metrics = Metrics::default();
    let waits = Arc::new(Mutex::new(vec![("web", 3.0), ("docs", 1.0)]));
    let shown = waits.clone();
    metrics.view(&[&refinery::QUEUE.0], move |view| {
        for (rig, count) in shown.lock().iter() {
            view.set(&refinery::QUEUE, [(*rig).into()], *count);
        }
    });
    let length = |rig| read(&metrics).value("gastown_refinery_queue_length", &[("rig", rig)]);
    assert_eq!((length("web"), length("docs")), (Some(3.0), Some(1.0)));
    waits.lock().pop();
    assert_eq!((length("web"), length("docs")), (Some(3.0), None));
}
