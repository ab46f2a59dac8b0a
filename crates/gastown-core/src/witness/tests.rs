use gastown_api::conditions::Status;
use gastown_api::names::reason;
use gastown_api::{Activity, PolecatPhase};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

const MINUTE: i64 = 60;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

/// A heartbeat at `now`, whose agent did something at `event`; the pod's clock is an hour ahead.
fn heartbeat(now: i64, event: i64, cpu: f64) -> Heartbeat {
    let pod = |second: i64| (1_000_000 + second + 3600) * 1000;
    Heartbeat {
        now_ms: pod(now),
        last_event_ms: pod(event),
        cpu_seconds: cpu,
        ..Heartbeat::default()
    }
}

fn in_tool(now: i64, event: i64, cpu: f64) -> Heartbeat {
    let heartbeat = heartbeat(now, event, cpu);
    Heartbeat { in_tool_since_ms: heartbeat.last_event_ms, tool: "cargo build".into(), ..heartbeat }
}

fn snapshot(activity: Option<&PodActivity>) -> Snapshot {
    Snapshot {
        pod: "uid-1".into(),
        since: at(0),
        activity: activity.cloned(),
        attached: activity.is_some(),
        assessing_since: at(-3600),
        heartbeats: None,
        thresholds: Thresholds::default(),
    }
}

fn assessment(now: i64, activity: &PodActivity) -> Assessment {
    assess(at(now), &snapshot(Some(activity))).unwrap()
}

/// The commands of each minute up to `end`, while the agent does nothing; a checkpoint ends as
/// `save` returns for its number, or not at all.
fn silence(
    activity: &mut PodActivity,
    end: i64,
    save: impl Fn(u64) -> Option<bool>,
) -> Vec<(i64, Command)> {
    let (mut commands, mut number) = (Vec::new(), 0);
    for minute in 0..=end {
        let now = minute * MINUTE;
        activity.heartbeat(at(now), &heartbeat(now, 0, 0.0));
        if let Some(command) = assessment(now, activity).command {
            number += 1;
            commands.push((minute, command));
            activity.command_sent(at(now), command, number);
            if let Some(ok) = save(number).filter(|_| command == Command::Checkpoint) {
                activity.command_ended(&CommandResult { number, ok, message: "wip 0123".into() });
            }
        }
    }
    commands
}

#[test]
fn an_agent_that_has_ended_is_not_wedged_however_long_its_work_cannot_be_saved() {
    let activity = PodActivity::new(at(0), &Heartbeat { ended: true, ..in_tool(0, 0, 0.0) });
    for minutes in [1, 59, 61, 24 * 60] {
        let mut heard = activity.clone();
        heard.heartbeat(at(minutes * MINUTE), &Heartbeat { ended: true, ..in_tool(0, 0, 0.0) });
        let seen = assessment(minutes * MINUTE, &heard);
        assert_eq!((seen.reason, seen.command, seen.problem), (reason::SAVING, None, None));
    }
}

#[test]
fn a_silent_build_of_half_an_hour_is_not_a_problem() {
    let mut activity = PodActivity::new(at(0), &in_tool(0, 0, 0.0));
    for minute in 1..=40 {
        let now = minute * MINUTE;
        activity.heartbeat(at(now), &in_tool(now, 0, 58.0 * minute as f64));
        let seen = assessment(now, &activity);
        assert_eq!(
            (seen.healthy, seen.command, seen.problem),
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
        assessment(40 * MINUTE, &activity).message,
        "the agent is inside one tool call that uses CPU: cargo build"
    );
}

#[test]
fn a_tool_call_that_only_waits_gets_more_time_and_not_forever() {
    let activity = PodActivity::new(at(0), &in_tool(0, 0, 0.0));
    assert_eq!(assessment(59 * MINUTE, &activity).activity, Activity::Quiet);
    assert_eq!(assessment(60 * MINUTE, &activity).activity, Activity::Wedged);
}

#[test]
fn a_dead_turn_is_nudged_once_then_saved_then_restarted() {
    let mut activity = PodActivity::new(at(0), &heartbeat(0, 0, 0.0));
    assert_eq!(assessment(14 * MINUTE, &activity).activity, Activity::Quiet);
    let commands = silence(&mut activity, 30, |_| Some(true));
    assert_eq!(commands, [(15, Command::Nudge), (20, Command::Checkpoint)]);
    let seen = assessment(30 * MINUTE, &activity);
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
fn an_agent_that_a_nudge_wakes_is_not_restarted_and_is_nudged_again_another_time() {
    let mut activity = PodActivity::new(at(0), &heartbeat(0, 0, 0.0));
    assert_eq!(silence(&mut activity, 16, |_| Some(true)), [(15, Command::Nudge)]);
    activity.heartbeat(at(17 * MINUTE), &heartbeat(17 * MINUTE, 17 * MINUTE, 0.0));
    assert_eq!(assessment(17 * MINUTE, &activity).activity, Activity::Working);
    assert_eq!(assessment(33 * MINUTE, &activity).command, Some(Command::Nudge));
}

#[test]
fn work_that_cannot_be_saved_keeps_its_pod_and_needs_a_person() {
    let mut activity = PodActivity::new(at(0), &heartbeat(0, 0, 0.0));
    let commands = silence(&mut activity, 30, |_| Some(false));
    assert_eq!(commands.iter().filter(|(_, command)| *command == Command::Checkpoint).count(), 6);
    let seen = assessment(30 * MINUTE, &activity);
    assert_eq!((seen.reason, seen.problem.map(|p| p.reason)), ("Wedged", Some(Problem::UNSAVED)));
    assert!(seen.message.contains("not restarted: wip 0123"), "{}", seen.message);
}

#[test]
fn a_late_result_of_an_older_checkpoint_does_not_count() {
    let mut activity = PodActivity::new(at(0), &heartbeat(0, 0, 0.0));
    activity.command_sent(at(1), Command::Checkpoint, 1);
    activity.command_sent(at(2), Command::Checkpoint, 2);
    activity.command_ended(&CommandResult { number: 1, ok: true, message: String::new() });
    assert_eq!(activity.saved, None);
    activity.command_ended(&CommandResult { number: 2, ok: true, message: String::new() });
    assert!(activity.saved.is_some());
}

#[test]
fn a_checkpoint_does_not_cover_what_the_agent_did_after_it_was_sent() {
    for (event, saves) in [(99, true), (100, false), (101, false), (105, false)] {
        for heartbeat_first in [true, false] {
            let mut activity = PodActivity::new(at(0), &heartbeat(0, 0, 0.0));
            activity.command_sent(at(100), Command::Checkpoint, 1);
            let done = CommandResult { number: 1, ok: true, message: String::new() };
            if heartbeat_first {
                activity.heartbeat(at(110), &heartbeat(110, event, 0.0));
                activity.command_ended(&done);
            } else {
                activity.command_ended(&done);
                activity.heartbeat(at(110), &heartbeat(110, event, 0.0));
            }
            assert_eq!(
                activity.saved.is_some(),
                saves,
                "at {event}, heartbeat before the result: {heartbeat_first}"
            );
        }
    }
}

#[test]
fn a_turn_that_ended_waits_for_a_person() {
    let activity =
        PodActivity::new(at(0), &Heartbeat { waiting_for_human: true, ..heartbeat(0, 0, 0.0) });
    assert_eq!(
        assessment(10, &activity).activity,
        Activity::Working,
        "it may be about to end by itself"
    );
    let seen = assessment(3 * MINUTE, &activity);
    assert_eq!(
        (seen.activity, seen.problem.unwrap().reason),
        (Activity::WaitingForHuman, Problem::WAITING)
    );
}

#[test]
fn nothing_is_known_before_the_first_heartbeat_or_the_end_of_the_grace_period() {
    let young = Snapshot { assessing_since: at(0), ..snapshot(None) };
    assert_eq!(assess(at(119), &young), None);
    let new_pod = Snapshot {
        since: at(1000),
        heartbeats: Some(HeartbeatSpan { first: at(0), last: at(1090) }),
        ..snapshot(None)
    };
    assert_eq!(assess(at(1100), &new_pod), None);
}

#[test]
fn a_pod_is_dead_only_while_heartbeats_of_others_arrive() {
    let nobody = assess(at(1000), &snapshot(None)).unwrap();
    assert_eq!((nobody.healthy, nobody.problem), (Status::Unknown, None));
    let cut_off = Snapshot {
        heartbeats: Some(HeartbeatSpan { first: at(0), last: at(100) }),
        ..snapshot(None)
    };
    assert_eq!(assess(at(1000), &cut_off).unwrap().healthy, Status::Unknown);
    let just_back = Snapshot {
        heartbeats: Some(HeartbeatSpan { first: at(990), last: at(999) }),
        ..snapshot(None)
    };
    assert_eq!(assess(at(1000), &just_back).unwrap().healthy, Status::Unknown);
    let lost = assess(
        at(1000),
        &Snapshot {
            heartbeats: Some(HeartbeatSpan { first: at(0), last: at(999) }),
            ..snapshot(None)
        },
    )
    .unwrap();
    assert_eq!(
        (lost.activity, lost.healthy, lost.problem.unwrap().reason),
        (Activity::Dead, Status::False, Problem::LOST)
    );
}

#[test]
fn times_cpu_and_texts_of_a_pod_are_bounded() {
    let mut activity = PodActivity::new(at(0), &heartbeat(0, 0, 1.0));
    for (now_ms, last_event_ms) in [(i64::MIN, i64::MAX), (i64::MAX, 1), (0, 1), (-1, i64::MAX)] {
        for cpu_seconds in [f64::NAN, f64::INFINITY, -1.0, f64::MAX] {
            let tool = "x\u{0}".repeat(5000);
            activity.heartbeat(
                at(60),
                &Heartbeat {
                    now_ms,
                    last_event_ms,
                    in_tool_since_ms: i64::MAX,
                    cpu_seconds,
                    tool,
                    ..Heartbeat::default()
                },
            );
            assert!(activity.last_active <= at(60) && activity.idle_since() <= at(60));
        }
    }
    assert_eq!(activity.tool.chars().count(), 256);
}

#[test]
fn polecats_are_counted_by_phase() {
    let one = |name: &str, phase, failed, unhealthy| PolecatHealth {
        name: name.into(),
        phase: Some(phase),
        failed,
        unhealthy,
    };
    let summary = count(&[
        one("w/a", PolecatPhase::Working, false, false),
        one("w/b", PolecatPhase::Working, false, true),
        one("w/c", PolecatPhase::Done, false, false),
        one("w/d", PolecatPhase::Stuck, true, false),
        one("w/e", PolecatPhase::Stuck, false, false),
        one("w/f", PolecatPhase::Idle, true, true),
        one("w/g", PolecatPhase::Terminated, false, false),
    ]);
    assert_eq!((summary.total, summary.running, summary.succeeded), (7, 2, 1));
    assert_eq!(summary.issues().unwrap(), "stuck: w/b, w/e; failed: w/d");
    assert_eq!(count(&[]).issues(), None);
    let many: Vec<_> =
        (0..12).map(|n| one(&format!("w/{n:02}"), PolecatPhase::Stuck, true, false)).collect();
    assert!(count(&many).issues().unwrap().ends_with("w/09 and 2 more"));
}

/// What may happen in one step of a pod's life.
#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    Heartbeat { event: bool, tool: bool, waiting: bool, cpu: f64 },
    Result(bool, u64),
    Detach,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_i64..1200).prop_map(Step::Wait),
        (any::<bool>(), any::<bool>(), any::<bool>(), 0.0..100.0)
            .prop_map(|(event, tool, waiting, cpu)| Step::Heartbeat { event, tool, waiting, cpu }),
        (any::<bool>(), 0_u64..3).prop_map(|(ok, back)| Step::Result(ok, back)),
        Just(Step::Detach),
    ]
}

proptest! {
    #[test]
    fn no_pod_is_restarted_before_its_work_was_saved_in_this_silence(steps in proptest::collection::vec(step(), 1..80)) {
        let (mut now, mut number, mut attached) = (0, 0_u64, true);
        let (mut last_event, mut checkpoint, mut saved) = (0, None, None);
        let mut activity = PodActivity::new(at(0), &heartbeat(0, 0, 0.0));
        for step in steps {
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Heartbeat { event, tool, waiting, cpu } => {
                    attached = true;
                    if event {
                        last_event = now;
                    }
                    let made = if tool { in_tool(now, last_event, cpu) } else { heartbeat(now, last_event, cpu) };
                    activity.heartbeat(at(now), &Heartbeat { waiting_for_human: waiting, ..made });
                }
                Step::Result(ok, back) => {
                    let number = number.saturating_sub(back);
                    if let Some((_, then)) = checkpoint.filter(|(latest, _)| ok && *latest == number) {
                        saved = Some(then);
                    }
                    activity.command_ended(&CommandResult { number, ok, message: String::new() });
                }
                Step::Detach => attached = false,
            }
            let snapshot = Snapshot { attached, ..snapshot(Some(&activity)) };
            let Some(seen) = assess(at(now), &snapshot) else { continue };
            if seen.reason == reason::RESTART_WANTED {
                prop_assert!(saved.is_some_and(|t| t > last_event), "restarted at {now}, saved as of {saved:?}, active at {last_event}");
                prop_assert!(now - last_event >= 15 * MINUTE);
                prop_assert!(seen.message.starts_with("pod uid-1: "));
            }
            if let Some(command) = seen.command {
                prop_assert!(attached);
                number += 1;
                if command == Command::Checkpoint {
                    checkpoint = Some((number, now));
                }
                activity.command_sent(at(now), command, number);
            }
        }
    }

    #[test]
    fn the_configured_threshold_applies(minutes in 3_i64..600) {
        let activity = PodActivity::new(at(0), &heartbeat(0, 0, 0.0));
        let thresholds = Thresholds { stuck: SignedDuration::from_mins(minutes), ..Thresholds::default() };
        let seen = |now| assess(at(now), &Snapshot { thresholds, ..snapshot(Some(&activity)) }).unwrap().activity;
        prop_assert_eq!(seen(minutes * MINUTE - 1), Activity::Quiet);
        prop_assert_eq!(seen(minutes * MINUTE), Activity::Wedged);
    }
}
