//! What the trace of a Polecat's life must be, once the life has ended.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::trace::v1::Span;

use crate::span::{attribute, below, between, named, seconds};

/// What clocks of different machines may differ by, in seconds.
const TOLERANCE: f64 = 1.0;

/// What is wrong with the spans of a life that has ended, as a backend that keeps every copy returns them;
/// nothing when all is well:
///
/// - all are of the one trace, and a span that came twice came with the same content;
/// - exactly one has no parent: `polecat`. The parents of all others are there;
/// - the phases below `polecat`, and the parts of each attempt and of each run of a gate, follow each other
///   with gaps and overlaps of at most one second, and add up to the whole;
/// - what follows a red run of a gate links to it, and every link within the trace leads to a run.
pub fn problems(spans: &[Span]) -> Vec<String> {
    let mut problems = Vec::new();
    let spans = unique(spans, &mut problems);
    let roots: Vec<&Span> =
        spans.iter().copied().filter(|span| span.parent_span_id.is_empty()).collect();
    match roots.as_slice() {
        [root] if root.name == "polecat" => check_phases(&spans, root, &mut problems),
        [root] => problems.push(format!("the root is {}", named(root))),
        [] => problems.push(format!("none of {} spans is a root", spans.len())),
        several => {
            let names: Vec<String> = several.iter().map(|root| named(root)).collect();
            problems.push(format!("{} roots: {}", several.len(), names.join(", ")));
        }
    }
    let is_there = |id: &[u8]| spans.iter().any(|span| span.span_id == id);
    for span in &spans {
        if !span.parent_span_id.is_empty() && !is_there(&span.parent_span_id) {
            problems.push(format!("{} is an orphan", named(span)));
        }
        if matches!(span.name.as_str(), "attempt" | "gate run") {
            let mut parts = below(&spans, span);
            // What the sidecar does meanwhile is part of no phase.
            parts.retain(|part| !matches!(part.name.as_str(), "push" | "snapshot"));
            adds_up(span, &parts, &mut problems);
        }
    }
    check_links(&spans, &mut problems);
    problems
}

/// Each span once.
fn unique<'a>(spans: &'a [Span], problems: &mut Vec<String>) -> Vec<&'a Span> {
    let mut unique: BTreeMap<&[u8], &Span> = BTreeMap::new();
    for span in spans {
        let first = *unique.entry(&span.span_id).or_insert(span);
        if first != span {
            problems
                .push(format!("{} came with two contents: {first:?} and {span:?}", named(span)));
        }
        if span.trace_id != spans[0].trace_id {
            problems.push(format!("{} is of another trace", named(span)));
        }
    }
    unique.into_values().collect()
}

fn check_phases(spans: &[&Span], root: &Span, problems: &mut Vec<String>) {
    let mut phases = below(spans, root);
    // It marks the beginning alone.
    phases.retain(|phase| phase.name != "dispatch");
    adds_up(root, &phases, problems);
}

/// The parts of a span, in the order of their times, follow each other from its begin to its end.
fn adds_up(whole: &Span, parts: &[&Span], problems: &mut Vec<String>) {
    let mut before = format!("the beginning of {}", named(whole));
    let mut at = whole.start_time_unix_nano;
    for part in parts {
        let gap = between(at, part.start_time_unix_nano);
        if gap.abs() > TOLERANCE {
            problems.push(format!("{} begins {gap} s after {before}", named(part)));
        }
        before = format!("the end of {}", named(part));
        at = part.end_time_unix_nano;
    }
    let gap = between(at, whole.end_time_unix_nano);
    if gap.abs() > TOLERANCE {
        problems.push(format!("{} ends {gap} s after {before}", named(whole)));
    }
    let sum: f64 = parts.iter().map(|part| seconds(part)).sum();
    if (sum - seconds(whole)).abs() > TOLERANCE {
        let took = seconds(whole);
        problems.push(format!("{} took {took} s, and its parts {sum} s", named(whole)));
    }
}

fn check_links(spans: &[&Span], problems: &mut Vec<String>) {
    for span in spans {
        for link in span.links.iter().filter(|link| link.trace_id == span.trace_id) {
            let target = spans.iter().find(|other| other.span_id == link.span_id);
            if target.is_none_or(|target| target.name != "gate run") {
                let target = target.map_or_else(|| "nothing".to_owned(), |target| named(target));
                problems.push(format!("{} links to {target} instead of a gate run", named(span)));
            }
        }
    }
    for verdict in spans.iter().filter(|span| span.name == "verdict") {
        check_rework(spans, verdict, problems);
    }
}

/// A verdict that sent the work back after a red run is followed by a wait that links to a red run.
fn check_rework(spans: &[&Span], verdict: &Span, problems: &mut Vec<String>) {
    let is_red = |span: &&&Span| {
        span.name == "gate run"
            && span.end_time_unix_nano <= verdict.start_time_unix_nano
            && attribute(span, "cicd.pipeline.result").as_deref() == Some("failure")
    };
    let red: Vec<&[u8]> = spans.iter().filter(is_red).map(|run| run.span_id.as_slice()).collect();
    let phase = attribute(verdict, "gastown.merge_request.phase");
    if phase.as_deref() != Some("Rework") || red.is_empty() {
        return;
    }
    // Its begin is by the clock of another controller.
    let follows = |span: &&&Span| {
        span.name == "wait.slot"
            && between(verdict.end_time_unix_nano, span.start_time_unix_nano) >= -TOLERANCE
    };
    let next = spans.iter().filter(follows).min_by_key(|span| span.start_time_unix_nano);
    match next {
        None => problems.push(format!("nothing follows {}", named(verdict))),
        Some(next) if !next.links.iter().any(|link| red.contains(&link.span_id.as_slice())) => {
            problems.push(format!(
                "{} follows {} without a link to the red gate run",
                named(next),
                named(verdict)
            ));
        }
        Some(_) => {}
    }
}
