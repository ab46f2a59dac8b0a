//! A scripted model: its answer to a request of the Messages API, decided from the request alone.
//!
//! A script belongs to a key, one line of the task's text. Its attempts are lists of Bash commands for
//! the agent, one in each turn, and a last text. Nothing is remembered between requests: the step is
//! the number of tool calls that the conversation already holds, so a restarted server or a second
//! replica continues where the first one was.

use serde::{Deserialize, Serialize};
use serde_json::Value;

mod server;

pub use server::{Entry, MessagesApi, router};

/// What the model does for the task whose text holds the line `key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Script {
    /// A whole line of the task's text.
    pub key: String,
    /// The first is for a first prompt; a later one for a prompt that holds its
    /// [`Attempt::prompt_contains`].
    pub attempts: Vec<Attempt>,
}

/// What the model does in one run of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attempt {
    /// The evidence without which the model does not know what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_contains: Option<String>,
    /// The commands, in their order.
    pub steps: Vec<Step>,
    /// The text after the last command.
    pub text: String,
}

/// One command for the agent's Bash tool, or no answer at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// The command's text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bash: String,
    /// How long the tool may take, in milliseconds; the agent's own default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The tool starts the command and does not wait for its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
    /// The model never answers: the agent falls silent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hang: bool,
}

impl Step {
    /// A command.
    pub fn bash(command: impl Into<String>) -> Self {
        Self { bash: command.into(), ..Self::default() }
    }

    /// A command that runs in the background.
    pub fn background(command: impl Into<String>) -> Self {
        Self { background: true, ..Self::bash(command) }
    }

    /// No answer.
    pub fn hang() -> Self {
        Self { hang: true, ..Self::default() }
    }
}

/// The model's answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The answer to a request beside the task (a title, a summary): a short text.
    Aside,
    /// The model's turn in a scripted task.
    Turn {
        /// The script's key.
        key: String,
        /// Which of its attempts, from 1; none when the prompt held the evidence of none of them.
        attempt: Option<usize>,
        /// How many commands the conversation held already.
        step: usize,
        /// What the model does.
        action: Action,
    },
}

/// What the model does in its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Calls the Bash tool.
    Run(Step),
    /// Ends its turn with a text.
    End(String),
    /// Answers nothing.
    Hang,
}

/// Decides the answer. The task's text is the user's part of the conversation without tool results.
///
/// A command that failed ends the script: the model reports its output, as one that does not know how
/// to continue.
pub fn answer(scripts: &[Script], request: &Value) -> Answer {
    let has_tools =
        request["tools"].as_array().is_some_and(|t| t.iter().any(|tool| tool["name"] == "Bash"));
    let prompt = prompt(request);
    let script = scripts.iter().find(|s| prompt.lines().any(|line| line.trim() == s.key));
    let Some(script) = script.filter(|_| has_tools) else { return Answer::Aside };
    let calls = count_calls(request);
    let attempt = choose(script, &prompt, &interjected(request));
    let action = match (attempt, failed_result(request)) {
        (None, _) => Action::End(
            "I was asked to work on this again, but nothing in the task explains what went wrong."
                .to_owned(),
        ),
        (Some(_), Some(output)) => {
            Action::End(format!("A command failed and I do not know how to go on: {output}"))
        }
        (Some(n), None) => {
            let attempt = &script.attempts[n];
            match attempt.steps.get(calls) {
                Some(step) if step.hang => Action::Hang,
                Some(step) => Action::Run(step.clone()),
                None => Action::End(attempt.text.clone()),
            }
        }
    };
    Answer::Turn { key: script.key.clone(), attempt: attempt.map(|n| n + 1), step: calls, action }
}

/// The last attempt whose evidence the prompt holds; else the first one, if that needs none and the
/// prompt is no rework's.
fn choose(script: &Script, prompt: &str, interjected: &str) -> Option<usize> {
    let holds = |a: &Attempt| {
        a.prompt_contains
            .as_deref()
            .is_some_and(|text| prompt.contains(text) || interjected.contains(text))
    };
    let with_evidence = script.attempts.iter().rposition(holds);
    with_evidence.or_else(|| {
        script
            .attempts
            .iter()
            .position(|a| a.prompt_contains.is_none())
            .filter(|_| !is_rework(prompt))
    })
}

/// Whether the prompt describes an earlier request that the merge queue sent back.
fn is_rework(prompt: &str) -> bool {
    prompt.lines().any(|line| line.trim_start_matches(['#', ' ']).starts_with("Rework"))
}

/// The user's part of the conversation, one line for each text.
fn prompt(request: &Value) -> String {
    texts(request, "user")
}

/// Messages of the user while the agent worked: it passes them on with the next tool result, in a
/// message of the system.
fn interjected(request: &Value) -> String {
    texts(request, "system")
}

/// The texts of one role, one line for each.
fn texts(request: &Value, role: &str) -> String {
    let mut text = String::new();
    for message in messages(request).filter(|m| m["role"] == role) {
        let whole = message["content"].as_str();
        let parts =
            message["content"].as_array().into_iter().flatten().filter(|p| p["type"] == "text");
        for part in whole.into_iter().chain(parts.filter_map(|p| p["text"].as_str())) {
            text.push_str(part);
            text.push('\n');
        }
    }
    text
}

fn messages(request: &Value) -> impl Iterator<Item = &Value> {
    request["messages"].as_array().into_iter().flatten()
}

fn parts<'a>(request: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let parts = messages(request).flat_map(|m| m["content"].as_array().into_iter().flatten());
    parts.filter(move |p| p["type"] == kind)
}

fn count_calls(request: &Value) -> usize {
    parts(request, "tool_use").count()
}

/// The output of the last command, when it failed.
fn failed_result(request: &Value) -> Option<String> {
    let last = parts(request, "tool_result").last().filter(|r| r["is_error"] == true)?;
    let text = match &last["content"] {
        Value::String(text) => text.clone(),
        other => other
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|p| p["text"].as_str())
            .collect::<Vec<_>>()
            .join("\n"),
    };
    Some(text.chars().take(2000).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn step(bash: &str) -> Step {
        Step::bash(bash)
    }

    fn scripts() -> Vec<Script> {
        let first = Attempt {
            steps: vec![step("one"), step("two")],
            text: "done".to_owned(),
            prompt_contains: None,
        };
        let second = Attempt {
            steps: vec![step("better")],
            text: "now".to_owned(),
            prompt_contains: Some("assert 3 == 2.5".to_owned()),
        };
        vec![Script { key: "Change: gt-1".to_owned(), attempts: vec![first, second] }]
    }

    fn request(text: &str, further: &[Value]) -> Value {
        let mut messages =
            vec![json!({"role": "user", "content": [{"type": "text", "text": text}]})];
        messages.extend(further.iter().cloned());
        json!({"model": "m", "tools": [{"name": "Bash"}], "messages": messages})
    }

    fn called(id: &str, failed: bool) -> [Value; 2] {
        [
            json!({"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "Bash", "input": {}}]}),
            json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "is_error": failed, "content": "boom"}]}),
        ]
    }

    fn action(request: &Value) -> (Option<usize>, Action) {
        match answer(&scripts(), request) {
            Answer::Turn { attempt, action, .. } => (attempt, action),
            Answer::Aside => panic!("an aside"),
        }
    }

    #[test]
    fn the_step_is_what_the_conversation_holds() {
        let ask = |further: &[Value]| action(&request("Do it.\nChange: gt-1\n", further));
        assert_eq!(ask(&[]), (Some(1), Action::Run(step("one"))));
        let one = called("a", false);
        assert_eq!(ask(&one), (Some(1), Action::Run(step("two"))));
        let two = [one.as_slice(), &called("b", false)].concat();
        assert_eq!(ask(&two), (Some(1), Action::End("done".to_owned())));
    }

    #[test]
    fn a_rework_needs_its_evidence_in_the_prompt() {
        let with = request("Change: gt-1\n## Rework\nE  assert 3 == 2.5", &[]);
        assert_eq!(action(&with), (Some(2), Action::Run(step("better"))));
        let (attempt, action) = action(&request("Change: gt-1\n## Rework\nit was red", &[]));
        assert_eq!(attempt, None);
        assert!(matches!(action, Action::End(_)));
    }

    #[test]
    fn evidence_in_a_tool_result_is_not_in_the_prompt() {
        let mut result = called("a", false);
        result[1]["content"][0]["content"] = json!("assert 3 == 2.5");
        assert_eq!(action(&request("Change: gt-1", &result)), (Some(1), Action::Run(step("two"))));
    }

    #[test]
    fn a_step_that_hangs_is_never_answered() {
        let script: Script = serde_json::from_value(json!({
            "key": "Change: mute", "attempts": [{"steps": [{"bash": "one"}, {"hang": true}, {"bash": "never"}], "text": "no"}]
        }))
        .unwrap();
        let asked = |further: &[Value]| match answer(
            std::slice::from_ref(&script),
            &request("Change: mute", further),
        ) {
            Answer::Turn { action, .. } => action,
            Answer::Aside => panic!("an aside"),
        };
        assert_eq!(asked(&[]), Action::Run(step("one")));
        assert_eq!(asked(&called("a", false)), Action::Hang);
        assert_eq!(script.attempts[0].steps[1], Step::hang());
    }

    #[test]
    fn a_message_while_it_works_chooses_an_attempt_and_holds_no_key() {
        let message = json!({"role": "system", "content": "The user sent a new message while you were working:\nassert 3 == 2.5\nChange: gt-9"});
        let further = [called("a", false).as_slice(), &[message]].concat();
        assert_eq!(action(&request("Change: gt-1", &further)).0, Some(2));
        assert_eq!(answer(&scripts(), &request("Change: gt-10", &further)), Answer::Aside);
    }

    #[test]
    fn a_failed_command_ends_the_script() {
        let (_, action) = action(&request("Change: gt-1", &called("a", true)));
        assert!(matches!(action, Action::End(text) if text.contains("boom")));
    }

    #[test]
    fn a_key_is_a_whole_line_and_asides_have_no_tools() {
        assert_eq!(answer(&scripts(), &request("Change: gt-10", &[])), Answer::Aside);
        let mut aside = request("Change: gt-1", &[]);
        aside["tools"] = json!([]);
        assert_eq!(answer(&scripts(), &aside), Answer::Aside);
    }
}
