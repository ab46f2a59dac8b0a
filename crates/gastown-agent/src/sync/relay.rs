//! What `gt sync` relays between `gt run` and the witness: the agent's activity up, nudges and
//! their results down.
//!
//! `gt run` reports the activity, the git work sets the pushed commit, and the stream to the witness
//! reads both as a heartbeat. All of it is in memory, bounded, and without a clock; losing it costs
//! a heartbeat.

use std::collections::VecDeque;

use gastown_proto::v1::{CommandResult, Heartbeat, Step};
use gastown_types::{CommitId, text};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::socket::{Activity, Call, Nudge, Tool};

/// Bytes of a tool's name.
const TOOL_MAX: usize = 256;
/// Bytes of a nudge's text; as JSON it may grow sixfold and must fit into a line.
const NUDGE_MAX: usize = 4 << 10;
/// Nudges that wait for the agent.
const NUDGES_MAX: usize = 4;
/// Results that wait for the witness.
const RESULTS_MAX: usize = 32;
/// Steps that wait for the witness; further ones are left out.
const STEPS_MAX: usize = 32;
/// Bytes of a result's message.
const MESSAGE_MAX: usize = 500;

/// How soon the witness needs the next heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nothing is new.
    None,
    /// The agent is making progress in what it did before.
    Progress,
    /// The agent began something else, or a result waits.
    Change,
}

/// A nudge without a result so far.
struct PendingNudge {
    nudge: Nudge,
    /// The stream that it came from.
    stream: u64,
    /// The number of its command in that stream.
    number: u64,
}

#[derive(Default)]
struct State {
    activity: Activity,
    pushed: Option<CommitId>,
    /// When saving the end of the work began, in milliseconds since 1970.
    saving: Option<i64>,
    /// Why work is not on the remote yet; empty when all of it is.
    why_saving: String,
    nudges: VecDeque<PendingNudge>,
    results: Vec<CommandResult>,
    steps: Vec<Step>,
    /// The number of the present stream: it cannot use results for an earlier one.
    stream: u64,
    /// The number of the next nudge.
    next_nudge: u64,
}

/// What is relayed.
pub struct Relay {
    state: Mutex<State>,
    changed: Notify,
}

impl Relay {
    /// Nudges are numbered from `first`, which must grow from one run of the sidecar to the next:
    /// `gt run` outlives the sidecar and knows a nudge by its number.
    pub fn new(first: u64) -> Self {
        Self {
            state: Mutex::new(State { next_nudge: first.max(1), ..State::default() }),
            changed: Notify::new(),
        }
    }

    /// Returns when something changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn change<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let out = f(&mut self.state.lock());
        self.changed.notify_one();
        out
    }

    /// Takes a report of the agent's activity. Returns the nudge that waits for the agent, if any,
    /// again and again until a report holds its result.
    pub fn report(&self, activity: Activity, now_ms: i64) -> Option<Nudge> {
        self.change(|state| {
            for result in &activity.results {
                let Some(at) = state.nudges.iter().position(|p| p.nudge.id == result.id) else {
                    continue;
                };
                let Some(done) = state.nudges.remove(at) else { continue };
                state.add_result(done.stream, done.number, result.ok, &result.message);
            }
            for call in &activity.calls {
                state.add_step(step(call, now_ms));
            }
            state.activity = sanitize(activity, now_ms);
            state.nudges.front().map(|p| p.nudge.clone())
        })
    }

    /// Begins a stream and returns its number.
    pub fn begin_stream(&self) -> u64 {
        self.change(|state| {
            state.results.clear();
            state.stream += 1;
            state.stream
        })
    }

    /// Queues a nudge of the witness for the agent.
    pub fn nudge(&self, stream: u64, number: u64, text: &str) {
        self.change(|state| {
            let text = text::truncate(text, NUDGE_MAX);
            if text.trim().is_empty() {
                return state.add_result(stream, number, false, "a nudge without text");
            }
            if state.nudges.len() == NUDGES_MAX {
                return state.add_result(
                    stream,
                    number,
                    false,
                    "the agent has not read the nudges before this one",
                );
            }
            let id = state.next_nudge;
            state.next_nudge += 1;
            state.nudges.push_back(PendingNudge {
                nudge: Nudge { id, text: text.to_owned() },
                stream,
                number,
            });
        });
    }

    /// Adds the result of a command of the stream to the next heartbeat.
    pub fn add_result(&self, stream: u64, number: u64, ok: bool, message: &str) {
        self.change(|state| state.add_result(stream, number, ok, message));
    }

    /// Adds what the sidecar did to the next heartbeat.
    pub fn add_step(&self, step: Step) {
        self.change(|state| state.add_step(step));
    }

    /// Sets the commit that the remote holds, and whether the end of the work is being saved.
    pub fn set_git_state(&self, pushed: Option<CommitId>, saving: bool, now_ms: i64) {
        let same = {
            let state = self.state.lock();
            state.pushed == pushed && state.saving.is_some() == saving
        };
        if !same {
            self.change(|state| {
                state.pushed = pushed;
                state.saving = saving.then_some(state.saving.unwrap_or(now_ms));
            });
        }
    }

    /// Sets why work is not on the remote yet; empty when all of it is.
    pub fn set_saving(&self, why: &str) {
        if self.state.lock().why_saving != why {
            self.change(|state| state.why_saving = text::line(why, MESSAGE_MAX));
        }
    }

    /// Queues a nudge of our own for the agent. Nobody waits for its result.
    pub fn nudge_agent(&self, text: &str) {
        self.nudge(0, 0, text);
    }

    /// The heartbeat for the witness, with the results and steps so far, which are removed.
    pub fn heartbeat(&self, now_ms: i64) -> Heartbeat {
        let mut state = self.state.lock();
        let results = std::mem::take(&mut state.results);
        let steps = std::mem::take(&mut state.steps);
        let tool = state.tool();
        Heartbeat {
            now_ms,
            last_event_ms: state.activity.last_event_ms,
            in_tool_since_ms: tool.as_ref().map_or(0, |t| t.since_ms),
            tool: tool.map(|t| t.name).unwrap_or_default(),
            waiting_for_human: state.activity.waiting && state.saving.is_none(),
            cpu_seconds: state.activity.cpu_seconds,
            pushed_commit: state.pushed.as_ref().map(ToString::to_string).unwrap_or_default(),
            results,
            saving: state.why_saving.clone(),
            ended: state.saving.is_some(),
            steps,
            ..Heartbeat::default()
        }
    }

    /// How soon the next heartbeat is needed after the heartbeat `last`.
    pub fn urgency(&self, last: &Heartbeat) -> Urgency {
        let state = self.state.lock();
        let tool = state.tool();
        let pushed = state.pushed.as_ref().map(CommitId::as_str).unwrap_or_default();
        let since = tool.as_ref().map_or(0, |t| t.since_ms);
        if !state.results.is_empty()
            || since != last.in_tool_since_ms
            || (state.activity.waiting && state.saving.is_none()) != last.waiting_for_human
            || pushed != last.pushed_commit
            || state.why_saving != last.saving
            || state.saving.is_some() != last.ended
        {
            Urgency::Change
        } else if state.activity.last_event_ms == last.last_event_ms && state.steps.is_empty() {
            Urgency::None
        } else {
            Urgency::Progress
        }
    }
}

impl State {
    fn add_step(&mut self, mut step: Step) {
        if self.steps.len() < STEPS_MAX {
            step.failure.truncate(step.failure.floor_char_boundary(MESSAGE_MAX));
            self.steps.push(step);
        }
    }

    fn add_result(&mut self, stream: u64, number: u64, ok: bool, message: &str) {
        if stream == self.stream && self.results.len() < RESULTS_MAX {
            self.results.push(CommandResult {
                number,
                ok,
                message: text::truncate(message, MESSAGE_MAX).to_owned(),
            });
        }
    }

    /// The tool call. While the end of the work is saved, the agent has ended and saving is the tool.
    fn tool(&self) -> Option<Tool> {
        let saving =
            self.saving.map(|since_ms| Tool { name: "saving the work".to_owned(), since_ms });
        saving.or_else(|| self.activity.tool.clone())
    }
}

/// A tool call of the agent as a step, cut in the same way as [`sanitize`] does.
fn step(call: &Call, now_ms: i64) -> Step {
    let end_ms = call.end_ms.clamp(1, now_ms.max(1));
    let name = text::line(&call.name, TOOL_MAX);
    Step {
        kind: "tool".to_owned(),
        name: text::truncate(&name, TOOL_MAX).to_owned(),
        begin_ms: call.begin_ms.clamp(1, end_ms),
        end_ms,
        ..Step::default()
    }
}

/// A report from the agent's side is untrusted: times in the future and long texts are cut.
fn sanitize(activity: Activity, now_ms: i64) -> Activity {
    let tool = activity.tool.map(|tool| {
        let name = text::line(&tool.name, TOOL_MAX);
        Tool {
            name: text::truncate(&name, TOOL_MAX).to_owned(),
            since_ms: tool.since_ms.clamp(1, now_ms.max(1)),
        }
    });
    Activity {
        last_event_ms: activity.last_event_ms.clamp(0, now_ms.max(0)),
        tool,
        waiting: activity.waiting,
        cpu_seconds: if activity.cpu_seconds.is_finite() {
            activity.cpu_seconds.max(0.0)
        } else {
            0.0
        },
        results: Vec::new(),
        calls: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::socket::NudgeResult;

    const NOW: i64 = 1_800_000_000_000;

    fn working(tool: Option<(&str, i64)>) -> Activity {
        let tool = tool.map(|(name, since_ms)| Tool { name: name.to_owned(), since_ms });
        Activity { last_event_ms: NOW - 5, tool, cpu_seconds: 1.5, ..Activity::default() }
    }

    fn with_result(id: u64, ok: bool, message: &str) -> Activity {
        Activity {
            results: vec![NudgeResult { id, ok, message: message.to_owned() }],
            ..working(None)
        }
    }

    #[test]
    fn a_heartbeat_has_the_activity_that_was_reported_last() {
        let relay = Relay::new(1);
        assert_eq!(relay.heartbeat(NOW).last_event_ms, 0);
        relay.report(working(Some(("Bash: make", NOW - 3))), NOW);
        let heartbeat = relay.heartbeat(NOW);
        assert_eq!(
            (heartbeat.last_event_ms, heartbeat.in_tool_since_ms, heartbeat.tool.as_str()),
            (NOW - 5, NOW - 3, "Bash: make")
        );
        assert_eq!(relay.urgency(&heartbeat), Urgency::None);
        relay.report(
            Activity { last_event_ms: NOW - 1, ..working(Some(("Bash: make", NOW - 3))) },
            NOW,
        );
        assert_eq!(relay.urgency(&heartbeat), Urgency::Progress);
        relay.report(working(None), NOW);
        assert_eq!(relay.urgency(&heartbeat), Urgency::Change);
    }

    #[test]
    fn a_nudge_is_sent_again_until_it_has_a_result_and_the_witness_gets_the_result_once() {
        let relay = Relay::new(7);
        let stream = relay.begin_stream();
        relay.nudge(stream, 3, "are you there?");
        let nudge = relay.report(working(None), NOW).unwrap();
        assert_eq!((nudge.id, nudge.text.as_str()), (7, "are you there?"));
        assert_eq!(relay.report(working(None), NOW).unwrap().id, 7);
        assert_eq!(relay.report(with_result(7, true, ""), NOW), None);
        assert_eq!(
            relay.heartbeat(NOW).results,
            [CommandResult { number: 3, ok: true, message: String::new() }]
        );
        assert!(relay.heartbeat(NOW).results.is_empty());
    }

    #[test]
    fn a_result_for_a_nudge_that_was_not_sent_is_ignored() {
        let relay = Relay::new(1);
        relay.begin_stream();
        relay.report(with_result(1, true, "yes"), NOW);
        assert!(relay.heartbeat(NOW).results.is_empty());
    }

    #[test]
    fn a_result_for_an_earlier_stream_is_not_sent_in_the_next_one() {
        let relay = Relay::new(1);
        let first = relay.begin_stream();
        relay.nudge(first, 1, "hello");
        relay.add_result(first, 2, true, "saved");
        let second = relay.begin_stream();
        assert_eq!(
            relay.report(working(None), NOW).unwrap().text,
            "hello",
            "the nudge was accepted, so the agent gets it"
        );
        relay.report(with_result(1, true, ""), NOW);
        relay.add_result(first, 5, true, "late");
        assert!(relay.heartbeat(NOW).results.is_empty());
        relay.add_result(second, 1, false, "no");
        assert_eq!(relay.heartbeat(NOW).results.len(), 1);
    }

    #[test]
    fn nudges_and_results_are_bounded_and_a_refused_nudge_has_a_reason() {
        let relay = Relay::new(1);
        let stream = relay.begin_stream();
        for number in 1..=100 {
            relay.nudge(stream, number, &"é\u{1}".repeat(4000));
        }
        let results = relay.heartbeat(NOW).results;
        assert_eq!((results.len(), results[0].number, results[0].ok), (RESULTS_MAX, 5, false));
        let line = serde_json::to_string(&crate::socket::Answer {
            nudge: relay.report(working(None), NOW),
            ..Default::default()
        })
        .unwrap();
        assert!(line.len() < crate::socket::MAX_LINE);
        relay.nudge(stream, 101, " \n");
        assert!(relay.heartbeat(NOW).results[0].message.contains("without text"));
    }

    #[test]
    fn while_the_end_of_the_work_is_saved_the_heartbeat_shows_that_as_the_tool() {
        let relay = Relay::new(1);
        relay.report(Activity { waiting: true, ..working(None) }, NOW);
        assert!(relay.heartbeat(NOW).waiting_for_human);
        let commit: CommitId = "a".repeat(40).parse().unwrap();
        relay.set_git_state(Some(commit.clone()), true, NOW);
        relay.set_git_state(Some(commit.clone()), true, NOW + 9);
        let heartbeat = relay.heartbeat(NOW + 9);
        assert_eq!(
            (heartbeat.tool.as_str(), heartbeat.in_tool_since_ms, heartbeat.waiting_for_human),
            ("saving the work", NOW, false)
        );
        assert_eq!(heartbeat.pushed_commit, commit.as_str());
        relay.set_git_state(Some(commit), false, NOW + 10);
        assert_eq!(relay.heartbeat(NOW + 10).in_tool_since_ms, 0);
    }

    #[test]
    fn what_ended_is_in_one_heartbeat_and_hurries_none() {
        let relay = Relay::new(1);
        let first = relay.heartbeat(NOW);
        let call = Call { name: "Bash".into(), begin_ms: NOW - 9, end_ms: NOW - 2 };
        relay.report(Activity { calls: vec![call], ..Activity::default() }, NOW);
        relay.add_step(Step { kind: "push".into(), ..Step::default() });
        assert_eq!(relay.urgency(&first), Urgency::Progress);
        let steps = relay.heartbeat(NOW).steps;
        let shown: Vec<(&str, &str)> =
            steps.iter().map(|step| (step.kind.as_str(), step.name.as_str())).collect();
        assert_eq!(shown, [("tool", "Bash"), ("push", "")]);
        assert_eq!((steps[0].begin_ms, steps[0].end_ms), (NOW - 9, NOW - 2));
        assert!(relay.heartbeat(NOW).steps.is_empty());
    }

    proptest! {
        #[test]
        fn no_report_makes_a_heartbeat_long_or_later_than_now(
            event in any::<i64>(), since in any::<i64>(), name in ".{0,600}", cpu in any::<f64>(), now in 0i64..4_000_000_000_000,
        ) {
            let relay = Relay::new(1);
            let tool = Some(Tool { name, since_ms: since });
            let calls = vec![Call { name: tool.as_ref().map(|t| t.name.clone()).unwrap_or_default(), begin_ms: since, end_ms: event }; 50];
            relay.report(Activity { last_event_ms: event, tool, waiting: true, cpu_seconds: cpu, calls, ..Activity::default() }, now);
            let heartbeat = relay.heartbeat(now);
            prop_assert_eq!(heartbeat.steps.len(), STEPS_MAX);
            for step in &heartbeat.steps {
                prop_assert!(step.begin_ms <= step.end_ms && step.end_ms <= now.max(1));
                prop_assert!(step.name.len() <= TOOL_MAX && !step.name.chars().any(char::is_control));
            }
            prop_assert!(heartbeat.last_event_ms <= now && heartbeat.last_event_ms >= 0);
            prop_assert!(heartbeat.in_tool_since_ms <= now.max(1) && heartbeat.in_tool_since_ms > 0);
            prop_assert!(heartbeat.tool.len() <= TOOL_MAX && !heartbeat.tool.chars().any(char::is_control));
            prop_assert!(heartbeat.cpu_seconds.is_finite() && heartbeat.cpu_seconds >= 0.0);
            prop_assert_eq!(relay.urgency(&heartbeat), Urgency::None);
        }
    }
}
