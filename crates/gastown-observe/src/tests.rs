//! A life with a rework, as `gastown-trace` makes its spans, whole and broken in each way.

use gastown_trace::{
    Attempt, Beginning, End, Life, LifeFacts, Request, RequestFacts, Run, Span as Finished, Value,
};
use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::Link;

use crate::{problems, tree};

const POLECAT: &str = "11111111-0000-4000-8000-000000000000";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// As an exporter and a backend carry it.
fn carried(span: &Finished) -> Span {
    let attribute = |(key, value): &(&'static str, Value)| {
        let value = match value {
            Value::Text(text) => Any::StringValue(text.clone()),
            Value::Integer(number) => Any::IntValue(*number),
            Value::Number(number) => Any::DoubleValue(*number),
            Value::Boolean(value) => Any::BoolValue(*value),
        };
        let value = Some(AnyValue { value: Some(value) });
        KeyValue { key: (*key).to_owned(), value, ..KeyValue::default() }
    };
    let nanos = |time: Timestamp| u64::try_from(time.as_nanosecond()).unwrap();
    let link = |context: &gastown_trace::Context| Link {
        trace_id: context.trace.bytes().to_vec(),
        span_id: context.span.bytes().to_vec(),
        ..Link::default()
    };
    Span {
        trace_id: span.trace.bytes().to_vec(),
        span_id: span.id.bytes().to_vec(),
        parent_span_id: span.parent.map(|id| id.bytes().to_vec()).unwrap_or_default(),
        name: span.name.to_string(),
        start_time_unix_nano: nanos(span.begin),
        end_time_unix_nano: nanos(span.end),
        attributes: span.attributes.iter().map(attribute).collect(),
        links: span.links.iter().map(link).collect(),
        ..Span::default()
    }
}

fn attempt(number: u32, pod: &str, since: i64, beginning: &Beginning) -> Attempt {
    Attempt {
        number,
        pod_uid: pod.into(),
        beginning: Some(Beginning { since: at(since), ..*beginning }),
        created: at(since + 5),
        init: Some(at(since + 7)),
        agent: Some(at(since + 8)),
        agent_ended: Some(at(since + 20)),
        end: Some(End { at: at(since + 21), reason: "Completed".into(), ..End::default() }),
    }
}

/// A request of one run, which takes 15 seconds from its creation to its end.
fn request(uid: &str, run: &str, created: i64, result: &str, phase: &str) -> (Request, Vec<Span>) {
    let request = Request::of(uid, None, Some(POLECAT));
    let facts = RequestFacts {
        name: uid.into(),
        created: at(created),
        runs: vec![Run {
            name: run.into(),
            number: 1,
            building: Some(at(created + 2)),
            created: at(created + 3),
            started: Some(at(created + 5)),
            finished: at(created + 14),
            result: result.into(),
            ..Run::default()
        }],
        ended: Some((at(created + 15), phase.into(), "Reason".into())),
        ..RequestFacts::default()
    };
    let spans = request.spans(&facts).iter().map(carried).collect();
    (request, spans)
}

/// Two attempts, the second because the gate of the first one's work was red.
fn life() -> Vec<Span> {
    let (first, mut spans) = request("first", "run-1", 22, "Failed", "Rework");
    let (_, second) = request("second", "run-2", 59, "Passed", "Landed");
    spans.extend(second);
    let life = Life::of(POLECAT, None);
    let cause = Some(first.gate("run-1"));
    let claimed = Some(at(2));
    let facts = |submitted: (i64, &str, i64)| LifeFacts {
        name: "p".into(),
        created: at(0),
        attempts: vec![
            attempt(1, "pod-1", 0, &Beginning { claimed, ..Beginning::default() }),
            attempt(2, "pod-2", 37, &Beginning { cause, ..Beginning::default() }),
        ],
        submitted: Some((at(submitted.0), submitted.1.into(), at(submitted.2))),
        closed: Some((at(74), at(76))),
        ended: Some((at(76), "landed")),
        ..LifeFacts::default()
    };
    // The first submission was sent before the second one was known.
    let all =
        [(21, "first", 22), (58, "second", 59)].into_iter().flat_map(|s| life.spans(&facts(s)));
    spans.extend(all.map(|span| carried(&span)));
    spans
}

fn find<'a>(spans: &'a mut [Span], name: &str) -> &'a mut Span {
    spans.iter_mut().rfind(|span| span.name == name).unwrap()
}

/// The problems of the life after a change.
fn after(change: impl FnOnce(&mut Vec<Span>)) -> Vec<String> {
    let mut spans = life();
    change(&mut spans);
    problems(&spans)
}

#[test]
fn a_whole_life_has_no_problem_though_spans_came_twice() {
    let spans = life();
    assert!(spans.iter().filter(|span| span.name == "polecat").count() > 1);
    assert_eq!(problems(&spans), [""; 0], "{}", tree(&spans));
}

#[test]
fn each_way_in_which_a_trace_can_be_wrong_is_named() {
    let one = |problems: Vec<String>, with: &str| {
        assert!(problems.iter().any(|problem| problem.contains(with)), "{with}: {problems:#?}");
    };
    one(problems(&[]), "none of 0 spans is a root");
    one(after(|spans| spans.retain(|span| span.name != "polecat")), "is an orphan");
    one(after(|spans| find(spans, "land").parent_span_id.clear()), "2 roots");
    one(after(|spans| find(spans, "agent").parent_span_id = vec![9; 8]), "agent");
    one(after(|spans| find(spans, "polecat").end_time_unix_nano += 1), "came with two contents");
    one(after(|spans| spans.retain(|span| span.name != "bead.close")), "ends 2 s after");
    one(after(|spans| spans.retain(|span| span.name != "build")), "and its parts");
    one(after(|spans| find(spans, "land").trace_id = vec![9; 16]), "is of another trace");
    let second = |span: &Span| span.name == "wait.slot" && !span.links.is_empty();
    let unlinked = |spans: &mut Vec<Span>| {
        spans.iter_mut().filter(|span| second(span)).for_each(|span| span.links.clear());
    };
    one(after(unlinked), "without a link to the red gate run");
    let by_another_clock = |spans: &mut Vec<Span>| {
        let all = spans.iter_mut().filter(|span| second(span));
        all.for_each(|span| span.start_time_unix_nano -= 400_000_000);
    };
    assert_eq!(after(by_another_clock), [""; 0]);
    let astray = |spans: &mut Vec<Span>| {
        for link in spans.iter_mut().flat_map(|span| &mut span.links) {
            link.span_id = vec![9; 8];
        }
    };
    one(after(astray), "links to nothing instead of a gate run");
}

#[test]
fn a_tree_shows_each_span_once_below_its_parent_with_its_times() {
    let shown = tree(&life());
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("polecat"), "{shown}");
    assert!(lines[0].ends_with("+0 s    76 s  p, landed"), "{shown}");
    assert_eq!(lines.iter().filter(|line| line.contains("gate running")).count(), 2, "{shown}");
    let reworked = lines.iter().find(|line| line.contains("because of run-1")).unwrap();
    assert!(reworked.starts_with("├─ wait.slot"), "{shown}");
    assert!(lines.iter().any(|line| line.starts_with("│  ├─ agent")), "{shown}");
}
