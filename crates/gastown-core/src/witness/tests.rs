use gastown_api::Activity;
use gastown_api::conditions::Status;
use gastown_api::names::reason;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

const MINUTE: i64 = 60;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

/// A beat at `now`, whose agent did something at `event`; the pod's clock is an hour ahead.
fn beat(now: i64, event: i64, cpu: f64) -> Beat {
    let pod = |second: i64| (1_000_000 + second + 3600) * 1000;
    Beat { now_ms: pod(now), last_event_ms: pod(event), cpu_seconds: cpu, ..Beat::default() }
}

fn in_tool(now: i64, event: i64, cpu: f64) -> Beat {
    let beat = beat(now, event, cpu);
    Beat { in_tool_since_ms: beat.last_event_ms, tool: "cargo build".into(), ..beat }
}

fn facts(memory: Option<&Memory>) -> Facts<'_> {
    Facts {
        pod: "uid-1",
        since: at(0),
        memory,
        attached: memory.is_some(),
        judging: at(-3600),
        others: None,
        thresholds: Thresholds::default(),
    }
}

fn verdict(now: i64, memory: &Memory) -> Verdict {
    judge(at(now), &facts(Some(memory))).unwrap()
}

/// What is ordered when a minute goes by after the other, up to `end`; the agent does nothing,
/// saving ends as `save` says.
fn silence(memory: &mut Memory, end: i64, save: impl Fn(u64) -> Option<bool>) -> Vec<(i64, Order)> {
    let (mut orders, mut number) = (Vec::new(), 0);
    for minute in 0..=end {
        let now = minute * MINUTE;
        memory.hear(at(now), &beat(now, 0, 0.0));
        if let Some(order) = verdict(now, memory).order {
            number += 1;
            orders.push((minute, order));
            memory.ordered(at(now), order, number);
            if let Some(ok) = save(number).filter(|_| order == Order::Checkpoint) {
                memory.answered(&Answer { number, ok, message: "wip 0123".into() });
            }
        }
    }
    orders
}

#[test]
fn a_silent_build_of_half_an_hour_raises_no_alarm() {
    let mut memory = Memory::new(at(0), &in_tool(0, 0, 0.0));
    for minute in 1..=40 {
        let now = minute * MINUTE;
        memory.hear(at(now), &in_tool(now, 0, 58.0 * minute as f64));
        let seen = verdict(now, &memory);
        assert_eq!(
            (seen.healthy, seen.order, seen.alarm),
            (Status::True, None, None),
            "minute {minute}"
        );
        assert_eq!(
            seen.activity,
            if minute < 2 { Activity::Working } else { Activity::Quiet },
            "minute {minute}"
        );
    }
    assert_eq!(
        verdict(40 * MINUTE, &memory).message,
        "the agent is inside one tool call that computes: cargo build"
    );
}

#[test]
fn a_tool_call_that_only_waits_gets_longer_and_not_for_ever() {
    let memory = Memory::new(at(0), &in_tool(0, 0, 0.0));
    assert_eq!(verdict(59 * MINUTE, &memory).activity, Activity::Quiet);
    assert_eq!(verdict(60 * MINUTE, &memory).activity, Activity::Wedged);
}

#[test]
fn a_dead_turn_is_nudged_once_then_saved_then_given_up() {
    let mut memory = Memory::new(at(0), &beat(0, 0, 0.0));
    assert_eq!(verdict(14 * MINUTE, &memory).activity, Activity::Quiet);
    let orders = silence(&mut memory, 30, |_| Some(true));
    assert_eq!(orders, [(15, Order::Nudge), (20, Order::Checkpoint)]);
    let seen = verdict(30 * MINUTE, &memory);
    assert_eq!(
        (seen.activity, seen.healthy, seen.reason),
        (Activity::Wedged, Status::False, reason::RESTART_WANTED)
    );
    assert!(
        seen.message.starts_with("pod uid-1: ") && seen.message.ends_with("wip 0123"),
        "{}",
        seen.message
    );
}

#[test]
fn an_agent_that_a_nudge_wakes_is_not_given_up_and_is_nudged_again_another_time() {
    let mut memory = Memory::new(at(0), &beat(0, 0, 0.0));
    assert_eq!(silence(&mut memory, 16, |_| Some(true)), [(15, Order::Nudge)]);
    memory.hear(at(17 * MINUTE), &beat(17 * MINUTE, 17 * MINUTE, 0.0));
    assert_eq!(verdict(17 * MINUTE, &memory).activity, Activity::Working);
    assert_eq!(verdict(33 * MINUTE, &memory).order, Some(Order::Nudge));
}

#[test]
fn work_that_cannot_be_saved_keeps_its_pod_and_wakes_a_person() {
    let mut memory = Memory::new(at(0), &beat(0, 0, 0.0));
    let orders = silence(&mut memory, 30, |_| Some(false));
    assert_eq!(orders.iter().filter(|(_, order)| *order == Order::Checkpoint).count(), 6);
    let seen = verdict(30 * MINUTE, &memory);
    assert_eq!((seen.reason, seen.alarm.map(|a| a.cause)), ("Wedged", Some(Alarm::UNSAVED)));
    assert!(seen.message.contains("not restarted: wip 0123"), "{}", seen.message);
}

#[test]
fn a_late_answer_to_an_older_checkpoint_saves_nothing() {
    let mut memory = Memory::new(at(0), &beat(0, 0, 0.0));
    memory.ordered(at(1), Order::Checkpoint, 1);
    memory.ordered(at(2), Order::Checkpoint, 2);
    memory.answered(&Answer { number: 1, ok: true, message: String::new() });
    assert_eq!(memory.saved, None);
    memory.answered(&Answer { number: 2, ok: true, message: String::new() });
    assert!(memory.saved.is_some());
}

#[test]
fn a_checkpoint_saves_nothing_of_what_the_agent_did_since_it_was_asked_for() {
    for (event, saves) in [(99, true), (100, false), (101, false), (105, false)] {
        for heard_before_the_answer in [true, false] {
            let mut memory = Memory::new(at(0), &beat(0, 0, 0.0));
            memory.ordered(at(100), Order::Checkpoint, 1);
            let done = Answer { number: 1, ok: true, message: String::new() };
            if heard_before_the_answer {
                memory.hear(at(110), &beat(110, event, 0.0));
                memory.answered(&done);
            } else {
                memory.answered(&done);
                memory.hear(at(110), &beat(110, event, 0.0));
            }
            assert_eq!(
                memory.saved.is_some(),
                saves,
                "at {event}, heard before the answer: {heard_before_the_answer}"
            );
        }
    }
}

#[test]
fn a_turn_that_ended_waits_for_a_person() {
    let memory = Memory::new(at(0), &Beat { waiting_for_human: true, ..beat(0, 0, 0.0) });
    assert_eq!(
        verdict(10, &memory).activity,
        Activity::Working,
        "it may be about to end by itself"
    );
    let seen = verdict(3 * MINUTE, &memory);
    assert_eq!(
        (seen.activity, seen.alarm.unwrap().cause),
        (Activity::WaitingForHuman, Alarm::WAITING)
    );
}

#[test]
fn nothing_is_said_before_the_pod_was_heard_or_the_grace_is_over() {
    let young = Facts { judging: at(0), ..facts(None) };
    assert_eq!(judge(at(119), &young), None);
    let new_pod = Facts { since: at(1000), others: Some((at(1090), at(0))), ..facts(None) };
    assert_eq!(judge(at(1100), &new_pod), None);
}

#[test]
fn a_pod_is_dead_only_while_others_are_heard() {
    let nobody = judge(at(1000), &facts(None)).unwrap();
    assert_eq!((nobody.healthy, nobody.alarm), (Status::Unknown, None));
    let cut_off = Facts { others: Some((at(100), at(0))), ..facts(None) };
    assert_eq!(judge(at(1000), &cut_off).unwrap().healthy, Status::Unknown);
    let just_back = Facts { others: Some((at(999), at(990))), ..facts(None) };
    assert_eq!(judge(at(1000), &just_back).unwrap().healthy, Status::Unknown);
    let lost = judge(at(1000), &Facts { others: Some((at(999), at(0))), ..facts(None) }).unwrap();
    assert_eq!(
        (lost.activity, lost.healthy, lost.alarm.unwrap().cause),
        (Activity::Dead, Status::False, Alarm::LOST)
    );
}

#[test]
fn what_a_pod_says_of_time_and_cpu_is_bounded() {
    let mut memory = Memory::new(at(0), &beat(0, 0, 1.0));
    for (now_ms, last_event_ms) in [(i64::MIN, i64::MAX), (i64::MAX, 1), (0, 1), (-1, i64::MAX)] {
        for cpu_seconds in [f64::NAN, f64::INFINITY, -1.0, f64::MAX] {
            let tool = "x\u{0}".repeat(5000);
            memory.hear(
                at(60),
                &Beat {
                    now_ms,
                    last_event_ms,
                    in_tool_since_ms: i64::MAX,
                    cpu_seconds,
                    tool,
                    ..Beat::default()
                },
            );
            assert!(memory.active <= at(60) && memory.still() <= at(60));
        }
    }
    assert_eq!(memory.tool.len(), 256);
}

#[test]
fn a_rig_is_counted_from_phases() {
    let one = |name: &str, state, failed, unhealthy| Counted {
        name: name.into(),
        state,
        failed,
        unhealthy,
    };
    let summary = count(&[
        one("w/a", PolecatState::Working, false, false),
        one("w/b", PolecatState::Working, false, true),
        one("w/c", PolecatState::Done, false, false),
        one("w/d", PolecatState::Stuck, true, false),
        one("w/e", PolecatState::Stuck, false, false),
        one("w/f", PolecatState::Idle, true, true),
        one("w/g", PolecatState::Terminated, false, false),
    ]);
    assert_eq!((summary.total, summary.running, summary.succeeded), (7, 2, 1));
    assert_eq!(summary.sick().unwrap(), "stuck: w/b, w/e; failed: w/d");
    assert_eq!(count(&[]).sick(), None);
    let many: Vec<_> =
        (0..12).map(|n| one(&format!("w/{n:02}"), PolecatState::Stuck, true, false)).collect();
    assert!(count(&many).sick().unwrap().ends_with("w/09 and 2 more"));
}

/// What may happen in one step of a pod's life.
#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    Beat { event: bool, tool: bool, waiting: bool, cpu: f64 },
    Answer(bool, u64),
    Detach,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_i64..1200).prop_map(Step::Wait),
        (any::<bool>(), any::<bool>(), any::<bool>(), 0.0..100.0)
            .prop_map(|(event, tool, waiting, cpu)| Step::Beat { event, tool, waiting, cpu }),
        (any::<bool>(), 0_u64..3).prop_map(|(ok, back)| Step::Answer(ok, back)),
        Just(Step::Detach),
    ]
}

proptest! {
    #[test]
    fn no_pod_is_given_up_before_its_work_was_saved_in_this_silence(steps in proptest::collection::vec(step(), 1..80)) {
        let (mut now, mut number, mut attached) = (0, 0_u64, true);
        let (mut last_event, mut asked, mut saved) = (0, None, None);
        let mut memory = Memory::new(at(0), &beat(0, 0, 0.0));
        for step in steps {
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Beat { event, tool, waiting, cpu } => {
                    attached = true;
                    if event {
                        last_event = now;
                    }
                    let made = if tool { in_tool(now, last_event, cpu) } else { beat(now, last_event, cpu) };
                    memory.hear(at(now), &Beat { waiting_for_human: waiting, ..made });
                }
                Step::Answer(ok, back) => {
                    let number = number.saturating_sub(back);
                    if let Some((_, then)) = asked.filter(|(latest, _)| ok && *latest == number) {
                        saved = Some(then);
                    }
                    memory.answered(&Answer { number, ok, message: String::new() });
                }
                Step::Detach => attached = false,
            }
            let facts = Facts { attached, ..facts(Some(&memory)) };
            let Some(seen) = judge(at(now), &facts) else { continue };
            if seen.reason == reason::RESTART_WANTED {
                prop_assert!(saved.is_some_and(|t| t > last_event), "given up at {now}, saved as of {saved:?}, active at {last_event}");
                prop_assert!(now - last_event >= 15 * MINUTE);
                prop_assert!(seen.message.starts_with("pod uid-1: "));
            }
            if let Some(order) = seen.order {
                prop_assert!(attached);
                number += 1;
                if order == Order::Checkpoint {
                    asked = Some((number, now));
                }
                memory.ordered(at(now), order, number);
            }
        }
    }

    #[test]
    fn the_threshold_is_the_one_that_is_asked_for(minutes in 3_i64..600) {
        let memory = Memory::new(at(0), &beat(0, 0, 0.0));
        let thresholds = Thresholds { stuck: SignedDuration::from_mins(minutes), ..Thresholds::default() };
        let seen = |now| judge(at(now), &Facts { thresholds, ..facts(Some(&memory)) }).unwrap().activity;
        prop_assert_eq!(seen(minutes * MINUTE - 1), Activity::Quiet);
        prop_assert_eq!(seen(minutes * MINUTE), Activity::Wedged);
    }
}
