//! What the sidecar knows of the agent for the witness, and what the witness has for the agent.
//!
//! One board a pod: `gt run` reports to it, the git work notes on it, and the stream to the witness
//! reads it. It is plain memory with bounds and no clock; losing it costs a heartbeat.

use std::collections::VecDeque;

use gastown_proto::v1::{CommandResult, Heartbeat};
use gastown_types::CommitId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::socket::{Activity, Nudge, Tool};

/// The name of a tool.
const TOOL_MAX: usize = 256;
/// The text of a nudge; as JSON it may grow sixfold and must fit a line.
const NUDGE_MAX: usize = 4 << 10;
/// Nudges that wait for the agent.
const NUDGES: usize = 4;
/// Results that wait for the witness.
const RESULTS: usize = 32;
/// The text of a result.
const MESSAGE_MAX: usize = 500;

/// How soon the witness must hear of what is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nothing is new.
    None,
    /// The agent goes on as before.
    Progress,
    /// It does something else, or an answer waits.
    Change,
}

/// A nudge on its way: from which stream it came, under which number.
struct Pending {
    nudge: Nudge,
    stream: u64,
    number: u64,
}

#[derive(Default)]
struct State {
    activity: Activity,
    pushed: Option<CommitId>,
    /// Since when the end is being saved.
    saving: Option<i64>,
    nudges: VecDeque<Pending>,
    results: Vec<CommandResult>,
    /// Which stream is the present one: answers to an older one mean nothing to it.
    stream: u64,
    next: u64,
}

/// The board.
pub struct Board {
    state: Mutex<State>,
    changed: Notify,
}

impl Board {
    /// An empty board. Nudges are numbered from `first`, which must grow from one run of the
    /// sidecar to the next: `gt run` outlives it and knows a nudge by its number.
    pub fn new(first: u64) -> Self {
        Self {
            state: Mutex::new(State { next: first.max(1), ..State::default() }),
            changed: Notify::new(),
        }
    }

    /// Ends when something is new.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn change<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let out = f(&mut self.state.lock());
        self.changed.notify_one();
        out
    }

    /// Takes in a report; the nudge that the agent should get, if one waits. It comes again until
    /// its result came.
    pub fn heard(&self, activity: Activity, now_ms: i64) -> Option<Nudge> {
        self.change(|state| {
            for result in &activity.results {
                let Some(at) = state.nudges.iter().position(|p| p.nudge.id == result.id) else {
                    continue;
                };
                let Some(done) = state.nudges.remove(at) else { continue };
                state.answer(done.stream, done.number, result.ok, &result.message);
            }
            state.activity = tame(activity, now_ms);
            state.nudges.front().map(|p| p.nudge.clone())
        })
    }

    /// A stream begins; its number.
    pub fn attached(&self) -> u64 {
        self.change(|state| {
            state.results.clear();
            state.stream += 1;
            state.stream
        })
    }

    /// The witness has text for the agent.
    pub fn nudge(&self, stream: u64, number: u64, text: &str) {
        self.change(|state| {
            let text = cut(text, NUDGE_MAX);
            if text.trim().is_empty() {
                return state.answer(stream, number, false, "a nudge without text");
            }
            if state.nudges.len() == NUDGES {
                return state.answer(
                    stream,
                    number,
                    false,
                    "the agent has not taken the nudges before this one",
                );
            }
            let id = state.next;
            state.next += 1;
            state.nudges.push_back(Pending {
                nudge: Nudge { id, text: text.to_owned() },
                stream,
                number,
            });
        });
    }

    /// A command of the stream is done with.
    pub fn answer(&self, stream: u64, number: u64, ok: bool, message: &str) {
        self.change(|state| state.answer(stream, number, ok, message));
    }

    /// What the git work came to: the commit that the remote holds, and whether the end is being
    /// saved.
    pub fn note(&self, pushed: Option<CommitId>, saving: bool, now_ms: i64) {
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

    /// What the witness should hear now; takes the results along.
    pub fn beat(&self, now_ms: i64) -> Heartbeat {
        let mut state = self.state.lock();
        let results = std::mem::take(&mut state.results);
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
            ..Heartbeat::default()
        }
    }

    /// How soon it must, after the witness heard `last`.
    pub fn urgency(&self, last: &Heartbeat) -> Urgency {
        let state = self.state.lock();
        let tool = state.tool();
        let pushed = state.pushed.as_ref().map(CommitId::as_str).unwrap_or_default();
        let since = tool.as_ref().map_or(0, |t| t.since_ms);
        if !state.results.is_empty()
            || since != last.in_tool_since_ms
            || (state.activity.waiting && state.saving.is_none()) != last.waiting_for_human
            || pushed != last.pushed_commit
        {
            Urgency::Change
        } else if state.activity.last_event_ms == last.last_event_ms {
            Urgency::None
        } else {
            Urgency::Progress
        }
    }
}

impl State {
    fn answer(&mut self, stream: u64, number: u64, ok: bool, message: &str) {
        if stream == self.stream && self.results.len() < RESULTS {
            self.results.push(CommandResult {
                number,
                ok,
                message: cut(message, MESSAGE_MAX).to_owned(),
            });
        }
    }

    /// While the end is saved, the agent is gone and saving is what goes on.
    fn tool(&self) -> Option<Tool> {
        let saving =
            self.saving.map(|since_ms| Tool { name: "saving the work".to_owned(), since_ms });
        saving.or_else(|| self.activity.tool.clone())
    }
}

/// A report as a stranger's: nothing in the future, nothing long.
fn tame(activity: Activity, now_ms: i64) -> Activity {
    let tool = activity.tool.map(|tool| {
        let name: String = tool.name.chars().filter(|c| !c.is_control()).collect();
        Tool {
            name: cut(&name, TOOL_MAX).to_owned(),
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
    }
}

/// At most so many bytes of it, whole characters.
pub fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::socket::Nudged;

    const NOW: i64 = 1_800_000_000_000;

    fn working(tool: Option<(&str, i64)>) -> Activity {
        let tool = tool.map(|(name, since_ms)| Tool { name: name.to_owned(), since_ms });
        Activity { last_event_ms: NOW - 5, tool, cpu_seconds: 1.5, ..Activity::default() }
    }

    fn told(id: u64, ok: bool, message: &str) -> Activity {
        Activity { results: vec![Nudged { id, ok, message: message.to_owned() }], ..working(None) }
    }

    #[test]
    fn a_heartbeat_says_what_was_reported_last() {
        let board = Board::new(1);
        assert_eq!(board.beat(NOW).last_event_ms, 0);
        board.heard(working(Some(("Bash: make", NOW - 3))), NOW);
        let beat = board.beat(NOW);
        assert_eq!(
            (beat.last_event_ms, beat.in_tool_since_ms, beat.tool.as_str()),
            (NOW - 5, NOW - 3, "Bash: make")
        );
        assert_eq!(board.urgency(&beat), Urgency::None);
        board.heard(
            Activity { last_event_ms: NOW - 1, ..working(Some(("Bash: make", NOW - 3))) },
            NOW,
        );
        assert_eq!(board.urgency(&beat), Urgency::Progress);
        board.heard(working(None), NOW);
        assert_eq!(board.urgency(&beat), Urgency::Change);
    }

    #[test]
    fn a_nudge_comes_again_until_its_result_is_told_and_the_witness_hears_it_once() {
        let board = Board::new(7);
        let stream = board.attached();
        board.nudge(stream, 3, "are you there?");
        let nudge = board.heard(working(None), NOW).unwrap();
        assert_eq!((nudge.id, nudge.text.as_str()), (7, "are you there?"));
        assert_eq!(board.heard(working(None), NOW).unwrap().id, 7);
        assert_eq!(board.heard(told(7, true, ""), NOW), None);
        assert_eq!(
            board.beat(NOW).results,
            [CommandResult { number: 3, ok: true, message: String::new() }]
        );
        assert!(board.beat(NOW).results.is_empty());
    }

    #[test]
    fn the_agent_that_answers_for_nudges_that_nobody_sent_says_nothing() {
        let board = Board::new(1);
        board.attached();
        board.heard(told(1, true, "yes"), NOW);
        assert!(board.beat(NOW).results.is_empty());
    }

    #[test]
    fn an_answer_to_an_earlier_stream_is_not_told_to_the_next() {
        let board = Board::new(1);
        let first = board.attached();
        board.nudge(first, 1, "hello");
        board.answer(first, 2, true, "saved");
        let second = board.attached();
        assert_eq!(
            board.heard(working(None), NOW).unwrap().text,
            "hello",
            "it was said, so the agent hears it"
        );
        board.heard(told(1, true, ""), NOW);
        board.answer(first, 5, true, "late");
        assert!(board.beat(NOW).results.is_empty());
        board.answer(second, 1, false, "no");
        assert_eq!(board.beat(NOW).results.len(), 1);
    }

    #[test]
    fn nudges_and_answers_have_bounds_and_say_so() {
        let board = Board::new(1);
        let stream = board.attached();
        for number in 1..=100 {
            board.nudge(stream, number, &"é\u{1}".repeat(4000));
        }
        let results = board.beat(NOW).results;
        assert_eq!((results.len(), results[0].number, results[0].ok), (RESULTS, 5, false));
        let line = serde_json::to_string(&crate::socket::Answer {
            nudge: board.heard(working(None), NOW),
            ..Default::default()
        })
        .unwrap();
        assert!(line.len() < crate::socket::MAX_LINE);
        board.nudge(stream, 101, " \n");
        assert!(board.beat(NOW).results[0].message.contains("without text"));
    }

    #[test]
    fn while_the_end_is_saved_that_is_what_goes_on() {
        let board = Board::new(1);
        board.heard(Activity { waiting: true, ..working(None) }, NOW);
        assert!(board.beat(NOW).waiting_for_human);
        let commit: CommitId = "a".repeat(40).parse().unwrap();
        board.note(Some(commit.clone()), true, NOW);
        board.note(Some(commit.clone()), true, NOW + 9);
        let beat = board.beat(NOW + 9);
        assert_eq!(
            (beat.tool.as_str(), beat.in_tool_since_ms, beat.waiting_for_human),
            ("saving the work", NOW, false)
        );
        assert_eq!(beat.pushed_commit, commit.as_str());
        board.note(Some(commit), false, NOW + 10);
        assert_eq!(board.beat(NOW + 10).in_tool_since_ms, 0);
    }

    proptest! {
        #[test]
        fn no_report_makes_a_heartbeat_long_or_later_than_now(
            event in any::<i64>(), since in any::<i64>(), name in ".{0,600}", cpu in any::<f64>(), now in 0i64..4_000_000_000_000,
        ) {
            let board = Board::new(1);
            let tool = Some(Tool { name, since_ms: since });
            board.heard(Activity { last_event_ms: event, tool, waiting: true, cpu_seconds: cpu, results: Vec::new() }, now);
            let beat = board.beat(now);
            prop_assert!(beat.last_event_ms <= now && beat.last_event_ms >= 0);
            prop_assert!(beat.in_tool_since_ms <= now.max(1) && beat.in_tool_since_ms > 0);
            prop_assert!(beat.tool.len() <= TOOL_MAX && !beat.tool.chars().any(char::is_control));
            prop_assert!(beat.cpu_seconds.is_finite() && beat.cpu_seconds >= 0.0);
            prop_assert_eq!(board.urgency(&beat), Urgency::None);
        }
    }
}
