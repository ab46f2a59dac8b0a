//! Whole lives: how their spans hang together, however they went and whenever they are made.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::*;

const UID: &str = "0a1b2c3d-0000-4000-8000-000000000001";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// One attempt and what became of it: durations in seconds, as the machines involved saw them.
#[derive(Clone, Debug)]
struct Step {
    wait: i64,
    claim: Option<i64>,
    pending: i64,
    init: Option<i64>,
    agent: Option<i64>,
    save: i64,
    submit: i64,
    runs: Vec<(i64, i64, Option<i64>, i64)>,
    verdict: i64,
}

fn step() -> impl Strategy<Value = Step> {
    let seconds = || 0..500i64;
    let run = (seconds(), 0..5i64, prop::option::of(seconds()), seconds());
    (
        (seconds(), prop::option::of(seconds()), seconds(), prop::option::of(seconds())),
        (prop::option::of(seconds()), seconds(), seconds(), vec(run, 0..3), seconds()),
    )
        .prop_map(|((wait, claim, pending, init), (agent, save, submit, runs, verdict))| {
            Step { wait, claim, pending, init, agent, save, submit, runs, verdict }
        })
}

/// All that the controllers of a life know, one after the other: polecat-ctl at the end of each
/// attempt, refinery-ctl at the end of each request, polecat-ctl at the end.
fn export(creator: Option<&str>, steps: &[Step], close: Option<i64>) -> Vec<Span> {
    let life = Life::of(UID, creator);
    let mut exported = Vec::new();
    let (mut now, mut facts) =
        (0, LifeFacts { created: at(0), rig: "web".into(), ..LifeFacts::default() });
    let mut cause = None;
    for (n, step) in steps.iter().enumerate() {
        let since = now;
        now += step.wait;
        let created = now;
        let claimed = step.claim.filter(|_| n == 0).map(|after| at(since + after.min(step.wait)));
        now += step.pending;
        let init = step.init.map(|init| {
            let began = now;
            now += init;
            at(began)
        });
        let agent = step.agent.filter(|_| init.is_some()).map(|agent| {
            let began = now;
            now += agent;
            at(began)
        });
        let agent_ended = agent.map(|_| at(now));
        now += if agent.is_some() { step.save } else { 0 };
        let ended = now;
        facts.attempts = vec![Attempt {
            number: n as u32 + 1,
            pod_uid: format!("pod-{n}"),
            beginning: Some(Beginning { since: at(since), claimed, cause }),
            created: at(created),
            init,
            agent,
            agent_ended,
            end: Some(End { at: at(ended), reason: "WorkComplete".into(), ..End::default() }),
        }];
        now += step.submit;
        let submitted = now;
        facts.submitted = Some((at(ended), format!("mr-{n}"), at(submitted)));
        exported.extend(life.spans(&facts));

        let is_last = n + 1 == steps.len();
        let uid = format!("request-{n}");
        let request = Request::of(&uid, Some(&life.root().to_string()), Some(UID));
        let mut way = RequestFacts { created: at(submitted), ..RequestFacts::default() };
        for (i, (queue, build, pending, running)) in step.runs.iter().enumerate() {
            now += queue;
            let building = now;
            now += build;
            let created = now;
            let started = pending.map(|pending| {
                now += pending;
                at(now)
            });
            now += running;
            // Names follow from digests: they are in no order.
            let name = format!("gate-{n}-{}", 9 - i);
            let result = if is_last { "Passed" } else { "Failed" };
            cause = (!is_last).then(|| request.gate(&name));
            way.runs.push(Run {
                name,
                number: i as u32 + 1,
                building: Some(at(building)),
                created: at(created),
                started,
                finished: at(now),
                result: result.into(),
                ..Run::default()
            });
            exported.extend(request.spans(&way));
        }
        now += step.verdict;
        let phase = if is_last { "Landed" } else { "Rework" };
        way.ended = Some((at(now), phase.into(), phase.into()));
        exported.extend(request.spans(&way));
    }
    let landed = now;
    if let Some(close) = close {
        now += close;
        facts.closed = Some((at(landed), at(now)));
    }
    facts.ended = Some((at(now), "landed"));
    exported.extend(life.spans(&facts));
    exported
}

/// The spans by their ids; a span that was exported twice must be the same.
fn by_id(exported: Vec<Span>) -> Result<BTreeMap<SpanId, Span>, TestCaseError> {
    let mut all: BTreeMap<SpanId, Span> = BTreeMap::new();
    for span in exported {
        if let Some(before) = all.get(&span.id) {
            prop_assert_eq!(before, &span, "exported twice, and differently");
        }
        all.insert(span.id, span);
    }
    Ok(all)
}

proptest! {
    #[test]
    fn a_life_is_one_tree_whose_phases_add_up(steps in vec(step(), 1..5), close in prop::option::of(0..60i64)) {
        let all = by_id(export(None, &steps, close))?;
        let roots: Vec<&Span> = all.values().filter(|span| span.parent.is_none()).collect();
        prop_assert_eq!(roots.len(), 1, "one root");
        let root = roots[0];
        prop_assert_eq!(&*root.name, "polecat");
        for span in all.values() {
            prop_assert_eq!(span.trace, TraceId::of(UID));
            if let Some(parent) = span.parent {
                let parent = &all[&parent];
                prop_assert!(parent.begin <= span.begin && span.end <= parent.end, "{:?} is not within {:?}", span, parent);
            }
        }
        // The phases follow each other without a gap, and so do the parts of attempts and runs.
        let mut parents: Vec<&Span> = vec![root];
        parents.extend(all.values().filter(|span| span.name == "attempt" || span.name == "gate run"));
        for parent in parents {
            let mut parts: Vec<&Span> = all.values().filter(|span| span.parent == Some(parent.id)).collect();
            parts.sort_by_key(|span| (span.begin, span.end));
            let mut reached = parent.begin;
            for part in parts {
                prop_assert_eq!(part.begin, reached, "a gap before {:?}", part);
                reached = part.end;
            }
            prop_assert_eq!(reached, parent.end, "a gap at the end of {:?}", parent);
        }
    }

    #[test]
    fn a_life_with_a_creator_is_in_the_creator_s_trace(steps in vec(step(), 1..3)) {
        let creator = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let all = by_id(export(Some(creator), &steps, None))?;
        let context: Context = creator.parse().unwrap();
        let traces: BTreeSet<TraceId> = all.values().map(|span| span.trace).collect();
        prop_assert_eq!(traces, BTreeSet::from([context.trace]));
        let of_creator: Vec<&Span> = all.values().filter(|span| span.parent == Some(context.span)).collect();
        prop_assert!(of_creator.len() == 1 && of_creator[0].remote_parent && &*of_creator[0].name == "polecat");
    }

    #[test]
    fn clocks_that_differ_make_no_span_that_ends_before_it_begins(times in vec(-500..500i64, 12), known in vec(any::<bool>(), 6)) {
        let time = |i: usize| at(times[i]);
        let maybe = |i: usize| known[i].then(|| time(i));
        let attempt = Attempt {
            number: 1,
            pod_uid: "pod".into(),
            beginning: known[0].then(|| Beginning { since: time(6), claimed: maybe(1), cause: None }),
            created: time(7),
            init: maybe(2),
            agent: maybe(3),
            agent_ended: maybe(4),
            end: Some(End { at: time(8), ..End::default() }),
        };
        let facts = LifeFacts { created: time(9), attempts: vec![attempt], ended: Some((time(10), "landed")), ..LifeFacts::default() };
        let run = Run { name: "r".into(), building: maybe(5), created: time(0), started: maybe(1), finished: time(2), ..Run::default() };
        let way = RequestFacts { created: time(11), runs: vec![run], ended: Some((time(3), "Landed".into(), String::new())), ..RequestFacts::default() };
        let spans = [Life::of(UID, None).spans(&facts), Request::of("r", None, None).spans(&way)].concat();
        for span in &spans {
            prop_assert!(span.begin <= span.end, "{:?}", span);
        }
        let ids: BTreeSet<SpanId> = spans.iter().map(|span| span.id).collect();
        prop_assert_eq!(ids.len(), spans.len(), "no id twice");
    }
}

#[test]
fn a_rework_links_to_the_red_run_that_caused_it() {
    let step = Step {
        wait: 1,
        claim: None,
        pending: 1,
        init: Some(1),
        agent: Some(9),
        save: 1,
        submit: 1,
        runs: vec![(1, 1, Some(1), 5)],
        verdict: 1,
    };
    let exported = export(None, &[step.clone(), step], None);
    let red = exported
        .iter()
        .find(|s| {
            s.name == "gate run" && s.attribute("cicd.pipeline.result") == Some(&"failure".into())
        })
        .unwrap();
    assert_eq!(red.status, Status::Error("Failed".into()));
    let again = exported
        .iter()
        .find(|s| {
            s.name == "attempt" && s.attribute("gastown.attempt.number") == Some(&2u32.into())
        })
        .unwrap();
    assert_eq!(again.links, [red.context()]);
    let first = exported.iter().find(|s| s.name == "attempt").unwrap();
    assert_eq!(first.links, []);
}

#[test]
fn a_request_of_a_person_is_a_trace_of_its_own() {
    let request = Request::of("r", None, None);
    let facts = RequestFacts {
        created: at(0),
        ended: Some((at(9), "Rejected".into(), "Rejected".into())),
        ..RequestFacts::default()
    };
    let spans = request.spans(&facts);
    let roots: Vec<&Span> = spans.iter().filter(|span| span.parent.is_none()).collect();
    assert_eq!(roots.len(), 1);
    assert_eq!((&*roots[0].name, roots[0].trace), ("merge request", TraceId::of("r")));
    assert_eq!(roots[0].status, Status::Error("Rejected".into()));
}

#[test]
fn a_convoy_links_to_the_lives_that_it_made() {
    let lives = vec![Life::of("b", None).root(), Life::of("a", None).root()];
    let facts = ConvoyFacts {
        created: at(0),
        ended: at(5),
        beads: 2,
        phase: "Complete".into(),
        lives: lives.clone(),
        ..ConvoyFacts::default()
    };
    let span = Convoy::of("convoy", None).span(&facts);
    assert_eq!(
        (span.trace, span.parent, span.status.clone()),
        (TraceId::of("convoy"), None, Status::Ok)
    );
    assert_eq!(span.links.iter().collect::<BTreeSet<_>>(), lives.iter().collect());
}
