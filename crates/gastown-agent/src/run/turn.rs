//! What Claude Code's stream says of its present turn: which tool it is in, whether it waits, which
//! nudges it has begun with.
//!
//! A text that is written to its input while it works is taken up between two tool calls, or makes
//! a turn of its own after the present one; `command_lifecycle` events, by the text's uuid, tell
//! when. Events are a stranger's: what is unknown is passed over, and all that is kept has a bound.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::adapter::Doing;

/// Tool calls that are followed at a time.
const CALLS_MAX: usize = 64;
/// Nudges that are followed at a time.
const NUDGES_MAX: usize = 16;
/// Of an id; a longer one is nobody's.
const ID_MAX: usize = 128;
/// Of what a tool is called.
const NAME_MAX: usize = 200;
/// Tools by which it asks a person.
const QUESTIONS: [&str; 2] = ["AskUserQuestion", "ExitPlanMode"];

/// The present turn.
#[derive(Debug, Default)]
pub struct Turn {
    /// Calls without a result so far, in the order in which they began.
    calls: Vec<Call>,
    /// It asked for a permission and got no answer.
    asks: bool,
    /// The turn has ended, and no other has begun.
    ended: bool,
    /// The uuids of nudges that it has not begun with.
    nudges: Vec<String>,
    /// How many there were.
    nudged: u64,
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
    /// Takes in one line of the stream; whether it is a sign of life. That a nudge was read is
    /// none: an agent whose model is mute reads it as well.
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
            "control_request" => self.asks = true,
            "control_cancel_request" => self.asks = false,
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
                (self.asks, self.ended) = (false, true);
            }
            "command_lifecycle" | "keep_alive" => return false,
            _ => {}
        }
        true
    }

    fn begin(&mut self) {
        (self.asks, self.ended) = (false, false);
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
                        format!("{}: {description}", crate::sync::cut(&tool, NAME_MAX))
                    }
                    Some(Input::Other(_)) | None => tool,
                };
                self.calls.push(Call {
                    id,
                    name: crate::sync::cut(&name, NAME_MAX).to_owned(),
                    question,
                });
            }
            ("tool_result", _, Some(id)) => self.calls.retain(|c| c.id != id),
            _ => {}
        }
    }

    /// What it does now. Of several calls at a time, the last that began.
    pub fn doing(&self) -> Doing {
        let call = self.calls.last();
        Doing {
            tool: call.map(|c| (c.id.clone(), c.name.clone())),
            waiting: self.asks || call.is_some_and(|c| c.question),
        }
    }

    /// The line that tells it this text.
    pub fn nudge(&mut self, text: &str) -> Vec<u8> {
        self.nudged += 1;
        let uuid = format!("00000000-0000-4000-8000-{:012x}", self.nudged & 0xffff_ffff_ffff);
        let line = user_message(text, Some(&uuid));
        if self.nudges.len() == NUDGES_MAX {
            self.nudges.remove(0);
        }
        self.nudges.push(uuid);
        line
    }

    /// Whether its turn has ended and another will begin.
    pub fn is_between(&self) -> bool {
        self.ended && !self.nudges.is_empty()
    }
}

/// A line of its input: what a person says.
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
        turn.doing().tool.map(|(_, name)| name)
    }

    #[test]
    fn a_tool_is_in_use_from_its_call_to_its_result() {
        let mut turn = Turn::default();
        assert_eq!(turn.doing(), Doing::default());
        fed(&mut turn, &call("a", "Bash", &json!({"command": "make", "description": "Build it"})));
        assert_eq!(tool(&turn).as_deref(), Some("Bash: Build it"));
        fed(&mut turn, &call("b", "Read", &json!({"path": "/x"})));
        assert_eq!(tool(&turn).as_deref(), Some("Read"));
        fed(&mut turn, &result_of("b"));
        assert_eq!(tool(&turn).as_deref(), Some("Bash: Build it"));
        fed(&mut turn, &json!({"type": "result"}));
        assert_eq!(turn.doing(), Doing::default());
    }

    #[test]
    fn a_captured_run_is_in_no_tool_at_its_end_and_was_in_one_between() {
        let mut turn = Turn::default();
        let mut seen = Vec::new();
        for line in include_str!("captured/completed.jsonl").lines() {
            turn.line(line.as_bytes());
            seen.push(tool(&turn).is_some());
        }
        assert!(seen.contains(&true) && !seen.last().unwrap());
        assert!(!turn.is_between());
    }

    #[test]
    fn a_question_waits_for_a_person() {
        let mut turn = Turn::default();
        fed(&mut turn, &call("a", "AskUserQuestion", &json!({})));
        assert!(turn.doing().waiting);
        fed(&mut turn, &result_of("a"));
        assert!(!turn.doing().waiting);
        fed(&mut turn, &json!({"type": "control_request", "request": {"subtype": "can_use_tool"}}));
        assert!(turn.doing().waiting);
        fed(&mut turn, &call("b", "Bash", &json!({})));
        assert!(!turn.doing().waiting);
    }

    #[test]
    fn a_turn_that_ends_before_a_nudge_is_taken_is_not_the_last() {
        let mut turn = Turn::default();
        let line: Value = serde_json::from_slice(&turn.nudge("say \"hi\"")).unwrap();
        let uuid = line["uuid"].as_str().unwrap().to_owned();
        assert_eq!(line["message"]["content"][0]["text"], "say \"hi\"");
        assert!(
            !turn.line(lifecycle(&uuid, "queued").to_string().as_bytes()),
            "to have read it is no sign of life"
        );
        fed(&mut turn, &json!({"type": "result"}));
        assert!(turn.is_between());
        fed(&mut turn, &lifecycle(&uuid, "started"));
        assert!(!turn.is_between());
        fed(&mut turn, &json!({"type": "result"}));
        assert!(!turn.is_between());
    }

    #[test]
    fn a_nudge_that_is_taken_within_the_turn_needs_no_other() {
        let mut turn = Turn::default();
        let line: Value = serde_json::from_slice(&turn.nudge("hi")).unwrap();
        fed(&mut turn, &lifecycle("another", "started"));
        fed(&mut turn, &lifecycle(line["uuid"].as_str().unwrap(), "started"));
        fed(&mut turn, &json!({"type": "result"}));
        assert!(!turn.is_between());
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
        let word = prop_oneof![
            Just(json!("tool_use")),
            Just(json!("tool_result")),
            Just(json!("assistant")),
            Just(json!("user")),
            Just(json!("result")),
            Just(json!("a")),
            Just(json!(7)),
            Just(Value::Null)
        ];
        word.prop_recursive(4, 24, 4, |inner| {
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
            prop_assert!(!turn.is_between());
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
