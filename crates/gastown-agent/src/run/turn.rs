//! The state of Claude Code's present turn, from its output: which tool call it is in, whether it
//! waits for a person, and which nudges it has not read.
//!
//! A text that is written to its input while it works is read between two tool calls, or begins a
//! turn of its own after the present one; `command_lifecycle` events, by the text's uuid, show when.
//! Events are untrusted: unknown ones are ignored, and everything that is kept is bounded.

use gastown_types::text;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::adapter::AgentState;

/// Tool calls that are tracked at a time.
const CALLS_MAX: usize = 64;
/// Nudges that are tracked at a time.
const NUDGES_MAX: usize = 16;
/// Bytes of a tool call's id; a call with a longer one is ignored.
const ID_MAX: usize = 128;
/// Bytes of a tool's name.
const NAME_MAX: usize = 200;
/// Tools by which it asks a person.
const QUESTIONS: [&str; 2] = ["AskUserQuestion", "ExitPlanMode"];

/// The present turn.
#[derive(Debug, Default)]
pub struct Turn {
    /// Tool calls without a result so far, in the order in which they began.
    calls: Vec<Call>,
    /// It waits for a permission.
    waits_for_permission: bool,
    /// The turn has ended, and no other one has begun.
    ended: bool,
    /// Tasks that run in the background.
    tasks: usize,
    /// The last of these ended after the turn did: another turn may begin with its result.
    tasks_ended: bool,
    /// The uuids of nudges that it has not read.
    nudges: Vec<String>,
    /// The number of nudges so far.
    nudge_count: u64,
}

#[derive(Debug)]
struct Call {
    id: String,
    name: String,
    question: bool,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    subtype: Option<String>,
    #[serde(default)]
    message: Option<Message>,
    #[serde(default)]
    command_uuid: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    tasks: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Parts(Vec<Part>),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    tool_use_id: Option<String>,
    #[serde(default)]
    input: Option<Input>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Described { description: String },
    Other(IgnoredAny),
}

impl Turn {
    /// Reads one line of the stream; `true` when it shows that the agent is alive. That a nudge was
    /// queued does not: an agent whose model does not answer queues it as well.
    pub fn line(&mut self, line: &[u8]) -> bool {
        let Ok(event) = serde_json::from_slice::<Event>(line) else { return true };
        match event.kind.as_str() {
            "assistant" | "user" => {
                self.begin();
                let parts = match event.message.and_then(|m| m.content) {
                    Some(Content::Parts(parts)) => parts,
                    Some(Content::Other(_)) | None => Vec::new(),
                };
                for part in parts {
                    self.part(part);
                }
            }
            "system" if event.subtype.as_deref() == Some("init") => self.begin(),
            "system" if event.subtype.as_deref() == Some("background_tasks_changed") => {
                let now = event.tasks.map_or(0, |tasks| tasks.len());
                self.tasks_ended |= self.ended && self.tasks > 0 && now == 0;
                self.tasks = now;
            }
            "control_request" => self.waits_for_permission = true,
            "control_cancel_request" => self.waits_for_permission = false,
            "command_lifecycle"
                if matches!(event.state.as_deref(), Some("started" | "completed")) =>
            {
                let before = self.nudges.len();
                self.nudges.retain(|uuid| Some(uuid) != event.command_uuid.as_ref());
                if self.nudges.len() < before {
                    self.begin();
                }
            }
            "result" => {
                self.calls.clear();
                (self.waits_for_permission, self.ended) = (false, true);
            }
            "command_lifecycle" | "keep_alive" => return false,
            _ => {}
        }
        true
    }

    fn begin(&mut self) {
        (self.waits_for_permission, self.ended, self.tasks_ended) = (false, false, false);
    }

    fn part(&mut self, part: Part) {
        match (part.kind.as_str(), part.id, part.tool_use_id) {
            ("tool_use", Some(id), _)
                if id.len() <= ID_MAX
                    && self.calls.len() < CALLS_MAX
                    && !self.calls.iter().any(|c| c.id == id) =>
            {
                let tool = part.name.unwrap_or_default();
                let question = QUESTIONS.contains(&tool.as_str());
                let name = match part.input {
                    Some(Input::Described { description }) => {
                        format!("{}: {description}", text::truncate(&tool, NAME_MAX))
                    }
                    Some(Input::Other(_)) | None => tool,
                };
                self.calls.push(Call {
                    id,
                    name: text::truncate(&name, NAME_MAX).to_owned(),
                    question,
                });
            }
            ("tool_result", _, Some(id)) => self.calls.retain(|c| c.id != id),
            _ => {}
        }
    }

    /// What the agent is doing. Of several tool calls at a time, the one that began last.
    pub fn state(&self) -> AgentState {
        let call = self.calls.last();
        AgentState {
            tool: call.map(|c| (c.id.clone(), c.name.clone())),
            waiting: self.waits_for_permission || call.is_some_and(|c| c.question),
        }
    }

    /// The line of input for a nudge with this text.
    pub fn nudge(&mut self, text: &str) -> Vec<u8> {
        self.nudge_count += 1;
        let uuid = format!("00000000-0000-4000-8000-{:012x}", self.nudge_count & 0xffff_ffff_ffff);
        let line = user_message(text, Some(&uuid));
        if self.nudges.len() == NUDGES_MAX {
            self.nudges.remove(0);
        }
        self.nudges.push(uuid);
        line
    }

    /// Whether the turn has ended, and a nudge or the end of a background task will begin another one.
    pub fn is_between_turns(&self) -> bool {
        self.ended && (self.tasks_ended || !self.nudges.is_empty())
    }

    /// Whether the turn has ended and tasks of it still run in the background.
    pub fn has_background_tasks(&self) -> bool {
        self.ended && self.tasks > 0
    }
}

/// A line of input with a person's text.
pub fn user_message(text: &str, uuid: Option<&str>) -> Vec<u8> {
    let mut message = serde_json::json!({"type": "user", "message": {"role": "user", "content": [{"type": "text", "text": text}]}});
    if let Some(uuid) = uuid {
        message["uuid"] = uuid.into();
    }
    format!("{message}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn fed(turn: &mut Turn, event: &Value) {
        turn.line(event.to_string().as_bytes());
    }

    fn call(id: &str, name: &str, input: &Value) -> Value {
        json!({"type": "assistant", "message": {"content": [{"type": "tool_use", "id": id, "name": name, "input": input}]}})
    }

    fn result_of(id: &str) -> Value {
        json!({"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": id, "content": "x"}]}})
    }

    fn lifecycle(uuid: &str, state: &str) -> Value {
        json!({"type": "command_lifecycle", "command_uuid": uuid, "state": state})
    }

    fn tool(turn: &Turn) -> Option<String> {
        turn.state().tool.map(|(_, name)| name)
    }

    #[test]
    fn the_end_of_a_turn_is_not_the_end_while_tasks_run_in_the_background() {
        let mut turn = Turn::default();
        let tasks = |n: usize| {
            serde_json::json!({
                "type": "system",
                "subtype": "background_tasks_changed",
                "tasks": vec![serde_json::json!({"task_id": "t"}); n],
            })
            .to_string()
        };
        turn.line(tasks(2).as_bytes());
        assert!(!turn.has_background_tasks(), "the turn goes on");
        turn.line(br#"{"type":"result"}"#);
        assert!(turn.has_background_tasks() && !turn.is_between_turns());
        turn.line(tasks(1).as_bytes());
        assert!(turn.has_background_tasks());
        turn.line(tasks(0).as_bytes());
        assert!(!turn.has_background_tasks() && turn.is_between_turns());
        turn.line(br#"{"type":"assistant","message":{"content":[]}}"#);
        turn.line(br#"{"type":"result"}"#);
        assert!(!turn.has_background_tasks() && !turn.is_between_turns());
    }

    #[test]
    fn a_tool_is_in_use_from_its_call_to_its_result() {
        let mut turn = Turn::default();
        assert_eq!(turn.state(), AgentState::default());
        fed(&mut turn, &call("a", "Bash", &json!({"command": "make", "description": "Build it"})));
        assert_eq!(tool(&turn).as_deref(), Some("Bash: Build it"));
        fed(&mut turn, &call("b", "Read", &json!({"path": "/x"})));
        assert_eq!(tool(&turn).as_deref(), Some("Read"));
        fed(&mut turn, &result_of("b"));
        assert_eq!(tool(&turn).as_deref(), Some("Bash: Build it"));
        fed(&mut turn, &json!({"type": "result"}));
        assert_eq!(turn.state(), AgentState::default());
    }

    #[test]
    fn a_captured_run_has_tool_calls_and_none_at_its_end() {
        let mut turn = Turn::default();
        let mut seen = Vec::new();
        for line in include_str!("captured/completed.jsonl").lines() {
            turn.line(line.as_bytes());
            seen.push(tool(&turn).is_some());
        }
        assert!(seen.contains(&true) && !seen.last().unwrap());
        assert!(!turn.is_between_turns());
    }

    #[test]
    fn a_question_waits_for_a_person() {
        let mut turn = Turn::default();
        fed(&mut turn, &call("a", "AskUserQuestion", &json!({})));
        assert!(turn.state().waiting);
        fed(&mut turn, &result_of("a"));
        assert!(!turn.state().waiting);
        fed(&mut turn, &json!({"type": "control_request", "request": {"subtype": "can_use_tool"}}));
        assert!(turn.state().waiting);
        fed(&mut turn, &call("b", "Bash", &json!({})));
        assert!(!turn.state().waiting);
    }

    #[test]
    fn a_turn_that_ends_before_a_nudge_is_read_is_not_the_last_one() {
        let mut turn = Turn::default();
        let line: Value = serde_json::from_slice(&turn.nudge("print \"hi\"")).unwrap();
        let uuid = line["uuid"].as_str().unwrap().to_owned();
        assert_eq!(line["message"]["content"][0]["text"], "print \"hi\"");
        assert!(
            !turn.line(lifecycle(&uuid, "queued").to_string().as_bytes()),
            "a queued nudge does not show that the agent is alive"
        );
        fed(&mut turn, &json!({"type": "result"}));
        assert!(turn.is_between_turns());
        fed(&mut turn, &lifecycle(&uuid, "started"));
        assert!(!turn.is_between_turns());
        fed(&mut turn, &json!({"type": "result"}));
        assert!(!turn.is_between_turns());
    }

    #[test]
    fn a_nudge_that_is_read_within_the_turn_needs_no_other_turn() {
        let mut turn = Turn::default();
        let line: Value = serde_json::from_slice(&turn.nudge("hi")).unwrap();
        fed(&mut turn, &lifecycle("another", "started"));
        fed(&mut turn, &lifecycle(line["uuid"].as_str().unwrap(), "started"));
        fed(&mut turn, &json!({"type": "result"}));
        assert!(!turn.is_between_turns());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut turn = Turn::default();
        for n in 0..1000 {
            fed(
                &mut turn,
                &call(
                    &format!("{n}{}", "i".repeat(n % 300)),
                    &"n".repeat(900),
                    &json!({"description": "é".repeat(900)}),
                ),
            );
            turn.nudge("x");
        }
        assert_eq!((turn.calls.len(), turn.nudges.len()), (CALLS_MAX, NUDGES_MAX));
        assert!(turn.calls.iter().all(|c| c.id.len() <= ID_MAX && c.name.len() <= NAME_MAX));
    }

    fn piece() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!("tool_use")),
            Just(json!("tool_result")),
            Just(json!("assistant")),
            Just(json!("user")),
            Just(json!("result")),
            Just(json!("a")),
            Just(json!(7)),
            Just(Value::Null)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let key = prop_oneof![
                Just("type"),
                Just("message"),
                Just("content"),
                Just("id"),
                Just("name"),
                Just("tool_use_id"),
                Just("input"),
                Just("description")
            ];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::vec((key, inner), 0..6).prop_map(|pairs| Value::Object(
                    pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
                ))
            ]
        })
    }

    proptest! {
        #[test]
        fn no_line_breaks_it(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..5)) {
            let mut turn = Turn::default();
            for line in &lines {
                turn.line(line);
            }
            prop_assert!(!turn.is_between_turns());
        }

        #[test]
        fn no_event_breaks_it(events in proptest::collection::vec(piece(), 0..20)) {
            let mut turn = Turn::default();
            for event in &events {
                fed(&mut turn, event);
            }
            prop_assert!(turn.calls.len() <= CALLS_MAX);
        }
    }
}
