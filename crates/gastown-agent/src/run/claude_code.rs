//! Claude Code: stream-json in both directions.
//!
//! Events are untrusted: unknown ones are ignored, and no number of theirs can overflow.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitStatus;

use gastown_core::report::{AgentExit, Usage};
use gastown_types::text;

use super::adapter::{Adapter, AgentState, Ending, Launch, LineEffect, describe_exit};
use super::claude_events::{Event, Tokens};
use super::turn::{Turn, user_message};
use crate::settings::RunSettings;

/// Messages whose usage is kept by id, so that parts of one message are not counted twice.
const MESSAGES_MAX: usize = 10_000;
/// Characters of an error's text.
const TEXT_MAX: usize = 600;
/// Characters of a model's name.
const MODEL_MAX: usize = 100;

/// What the stream has shown so far.
#[derive(Default)]
pub struct ClaudeCode {
    model: Option<String>,
    /// The usage of the present turn by message; the turn's result replaces it.
    messages: HashMap<String, Tokens>,
    /// The usage of the turns that have ended.
    ended: EndedTurns,
    result: Option<Outcome>,
    turn: Turn,
    /// The last error of the model's service that an event named.
    error: Option<String>,
    /// When the rate limit that refused a request ends, in seconds since 1970.
    reset_at: Option<i64>,
}

/// The sum over the turns' results.
#[derive(Clone, Copy, Default)]
struct EndedTurns {
    turns: u64,
    tokens: Tokens,
    cost: f64,
}

/// The `result` event.
struct Outcome {
    subtype: String,
    is_error: bool,
    status: Option<u16>,
    text: String,
}

impl ClaudeCode {
    fn assistant(&mut self, event: Event) {
        if let Some(error) = event.error.as_ref().and_then(serde_json::Value::as_str) {
            self.error = Some(error.to_owned());
        }
        let Some(message) = event.message else { return };
        // A synthetic message, by which the agent shows an error of the service, is not a turn.
        if message.model.as_deref() == Some("<synthetic>") {
            return;
        }
        if message.model.is_some() {
            self.model = message.model;
        }
        if self.messages.len() < MESSAGES_MAX || self.messages.contains_key(&message.id) {
            self.messages.insert(message.id, message.usage.unwrap_or_default());
        }
    }

    /// A result has the turns and tokens of its own turn, and the cost of all turns.
    fn end_turn(&mut self, turns: u64, usage: Option<Tokens>, cost: f64) {
        let messages = std::mem::take(&mut self.messages);
        let tokens = usage.unwrap_or_else(|| {
            let mut sum = Tokens::default();
            for t in messages.values() {
                sum.add(*t);
            }
            sum
        });
        self.ended.tokens.add(tokens);
        self.ended.turns = self.ended.turns.saturating_add(turns);
        if cost > self.ended.cost {
            self.ended.cost = cost;
        }
    }

    fn service_error(&self, outcome: &Outcome) -> Option<Ending> {
        let text = &outcome.text;
        let lower = text.to_ascii_lowercase();
        let named = self.error.as_deref().unwrap_or_default();
        let status = outcome.status.or_else(|| status_in(text));
        let ending = |exit| Some(Ending::new(exit, text.clone()));
        match status {
            Some(401 | 403) => return ending(AgentExit::BadCredentials),
            Some(429) => {
                return Some(Ending {
                    exit: AgentExit::RateLimited,
                    message: text.clone(),
                    reset_at: self.reset_at.or_else(|| reset_in(text)),
                });
            }
            // Overloaded: waiting helps, and the attempt is not to blame.
            Some(503 | 529) => return ending(AgentExit::RateLimited),
            Some(s) if s >= 500 => return ending(AgentExit::Crashed),
            _ => {}
        }
        // An account without credit cannot be used until a person adds some.
        if named == "authentication_failed"
            || named == "billing_error"
            || lower.contains("invalid api key")
            || lower.contains("please run /login")
        {
            return ending(AgentExit::BadCredentials);
        }
        if named == "rate_limit"
            || lower.contains("usage limit reached")
            || lower.contains("rate limit")
        {
            return Some(Ending {
                exit: AgentExit::RateLimited,
                message: text.clone(),
                reset_at: self.reset_at.or_else(|| reset_in(text)),
            });
        }
        if named == "server_error" || lower.contains("overloaded") {
            return ending(AgentExit::RateLimited);
        }
        None
    }
}

/// The HTTP status in a text such as `API Error: 429 …`.
fn status_in(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("API Error: ")?;
    after.get(..3)?.parse().ok()
}

/// The end of a usage limit in a text such as `…|1735689600`, in seconds since 1970.
fn reset_in(text: &str) -> Option<i64> {
    let (_, after) = text.rsplit_once('|')?;
    let digits: String = after.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|t| is_time(*t))
}

/// Whether these seconds since 1970 are a plausible time.
fn is_time(seconds: i64) -> bool {
    (1_000_000_000..100_000_000_000).contains(&seconds)
}

impl Adapter for ClaudeCode {
    fn launch(
        &self,
        settings: &RunSettings,
        command: &[String],
        prompt: &[u8],
        _: &Path,
    ) -> Launch {
        let mut command_line = command.iter().cloned();
        let program = command_line.next().unwrap_or_else(|| "claude".into());
        let mut args: Vec<String> = command_line.collect();
        let fixed = [
            "-p",
            "--input-format",
            "stream-json",
            "--output-format",
            "stream-json",
            "--verbose",
            "--dangerously-skip-permissions",
        ];
        args.extend(fixed.map(str::to_owned));
        if let Some(model) = &settings.model {
            args.extend(["--model".to_owned(), model.clone()]);
        }
        // The agent's own limits are exact; ours, from its output, are the fallback.
        if let Some(turns) = settings.budget.turns {
            args.extend(["--max-turns".to_owned(), turns.to_string()]);
        }
        if let Some(cost) = settings.budget.cost_usd {
            args.extend(["--max-budget-usd".to_owned(), cost.to_string()]);
        }
        args.extend(settings.agent_args.iter().cloned());
        let text = String::from_utf8_lossy(prompt);
        Launch {
            program,
            args,
            env: Vec::new(),
            stdin: user_message(&text, None),
            keep_stdin: true,
        }
    }

    fn line(&mut self, line: &[u8]) -> LineEffect {
        let effect = if self.turn.line(line) { LineEffect::Alive } else { LineEffect::Nothing };
        let Ok(event) = serde_json::from_slice::<Event>(line) else { return effect };
        match event.kind.as_str() {
            "system" if event.subtype.as_deref() == Some("init") => {
                self.model = self.model.take().or(event.model);
            }
            "assistant" => self.assistant(event),
            "rate_limit_event" => {
                let refused = event.rate_limit_info.filter(|i| i.status == "rejected");
                self.reset_at =
                    refused.and_then(|i| i.resets_at).filter(|t| is_time(*t)).or(self.reset_at);
            }
            "result" => {
                self.end_turn(event.num_turns, event.usage, event.total_cost_usd);
                self.result = Some(Outcome {
                    subtype: event.subtype.unwrap_or_default(),
                    is_error: event.is_error,
                    status: event.api_error_status,
                    text: text::block(&event.result.unwrap_or_default(), TEXT_MAX),
                });
                if !self.is_between_turns() && !self.has_background_work() {
                    return LineEffect::Ended;
                }
            }
            _ => {}
        }
        effect
    }

    fn has_free_output(&self) -> bool {
        false
    }

    fn state(&self) -> AgentState {
        self.turn.state()
    }

    fn nudge(&mut self, text: &str) -> Option<Vec<u8>> {
        Some(self.turn.nudge(text))
    }

    fn is_between_turns(&self) -> bool {
        self.turn.is_between_turns()
    }

    fn has_background_work(&self) -> bool {
        self.turn.has_background_tasks()
    }

    fn usage(&self) -> Usage {
        let mut sum = self.ended.tokens;
        for t in self.messages.values() {
            sum.add(*t);
        }
        let cost = self.ended.cost;
        Usage {
            turns: self.ended.turns.saturating_add(self.messages.len() as u64),
            input_tokens: sum.input,
            output_tokens: sum.output,
            cache_read_tokens: sum.cache_read,
            cache_write_tokens: sum.cache_write,
            cost_usd: if cost.is_finite() { cost.max(0.0) } else { 0.0 },
        }
    }

    fn model(&self) -> Option<String> {
        self.model.as_ref().map(|model| text::line(model, MODEL_MAX))
    }

    fn ending(&self, status: ExitStatus) -> Ending {
        let Some(outcome) = &self.result else {
            return Ending::new(
                AgentExit::Crashed,
                format!("{} before it reported a result", describe_exit(status)),
            );
        };
        if outcome.subtype == "error_max_turns" || outcome.subtype == "error_max_budget_usd" {
            return Ending::new(
                AgentExit::BudgetExceeded,
                format!("the agent stopped: {}", outcome.subtype),
            );
        }
        if outcome.subtype == "success" && !outcome.is_error {
            return Ending::new(AgentExit::Completed, "");
        }
        if let Some(ending) = self.service_error(outcome) {
            return ending;
        }
        let text = if outcome.text.is_empty() { &outcome.subtype } else { &outcome.text };
        Ending::new(AgentExit::Failed, text.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use proptest::prelude::*;

    use super::*;

    fn fed(stream: &str) -> ClaudeCode {
        let mut adapter = ClaudeCode::default();
        for line in stream.lines() {
            adapter.line(line.as_bytes());
        }
        adapter
    }

    fn ended(stream: &str) -> Ending {
        fed(stream).ending(ExitStatus::from_raw(1 << 8))
    }

    const COMPLETED: &str = include_str!("captured/completed.jsonl");

    #[test]
    fn a_captured_run_is_completed_with_its_usage() {
        let mut adapter = ClaudeCode::default();
        let ends: Vec<bool> =
            COMPLETED.lines().map(|l| adapter.line(l.as_bytes()) == LineEffect::Ended).collect();
        assert_eq!(ends.iter().filter(|e| **e).count(), 1);
        assert!(ends.last().unwrap());
        assert_eq!(adapter.ending(ExitStatus::from_raw(0)), Ending::new(AgentExit::Completed, ""));
        assert_eq!(adapter.model().as_deref(), Some("claude-opus-5-5"));
        let u = adapter.usage();
        assert_eq!(
            (u.turns, u.input_tokens, u.output_tokens, u.cache_read_tokens, u.cache_write_tokens),
            (3, 300, 49, 21, 15)
        );
        assert!(u.cost_usd > 0.002);
    }

    #[test]
    fn usage_grows_while_it_runs() {
        let half: Vec<&str> = COMPLETED.lines().take(4).collect();
        let u = fed(&half.join("\n")).usage();
        assert_eq!((u.turns, u.input_tokens), (2, 200));
        // The parts of one message are one turn.
        let twice = format!("{0}\n{0}", half[1]);
        assert_eq!(fed(&twice).usage().turns, 1);
    }

    #[test]
    fn captured_errors_of_the_service_have_their_classes() {
        let cases = [
            (include_str!("captured/status-401.jsonl"), AgentExit::BadCredentials),
            (include_str!("captured/status-403.jsonl"), AgentExit::BadCredentials),
            (include_str!("captured/no-credit.jsonl"), AgentExit::BadCredentials),
            (include_str!("captured/status-429.jsonl"), AgentExit::RateLimited),
            (include_str!("captured/status-529.jsonl"), AgentExit::RateLimited),
            (include_str!("captured/status-500.jsonl"), AgentExit::Crashed),
            (include_str!("captured/max-turns.jsonl"), AgentExit::BudgetExceeded),
        ];
        for (stream, want) in cases {
            let ending = ended(stream);
            assert_eq!(ending.exit, want, "{ending:?}");
            assert!(!ending.message.is_empty());
        }
    }

    #[test]
    fn the_end_of_a_rate_limit_is_reported_when_it_is_known() {
        let event = r#"{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":1893456000}}"#;
        let stream = format!("{event}\n{}", include_str!("captured/status-429.jsonl"));
        assert_eq!(ended(&stream).reset_at, Some(1_893_456_000));
        let old = r#"{"type":"result","subtype":"success","is_error":true,"result":"Claude AI usage limit reached|1893456000"}"#;
        assert_eq!(
            ended(old),
            Ending {
                exit: AgentExit::RateLimited,
                message: "Claude AI usage limit reached|1893456000".into(),
                reset_at: Some(1_893_456_000)
            }
        );
    }

    #[test]
    fn a_stream_without_a_result_is_a_crash() {
        assert_eq!(ended("").exit, AgentExit::Crashed);
        let half: Vec<&str> = COMPLETED.lines().take(4).collect();
        assert_eq!(fed(&half.join("\n")).ending(ExitStatus::from_raw(9)).exit, AgentExit::Crashed);
    }

    #[test]
    fn the_prompt_is_on_standard_input_only() {
        let settings = RunSettings {
            model: Some("m".into()),
            agent_args: vec!["--verbose".into()],
            ..crate::settings::test_run()
        };
        let launch =
            ClaudeCode::default().launch(&settings, &[], b"print \"hi\" $(id)", Path::new("/p"));
        assert!(launch.args.iter().all(|a| !a.contains("hi")));
        assert!(launch.args.windows(2).any(|w| w == ["--model", "m"]));
        let line: serde_json::Value = serde_json::from_slice(&launch.stdin).unwrap();
        assert_eq!(line["message"]["content"][0]["text"], "print \"hi\" $(id)");
        assert!(launch.keep_stdin && launch.stdin.ends_with(b"\n"));
    }

    #[test]
    fn the_turns_of_a_nudged_agent_are_added_up() {
        let mut adapter = ClaudeCode::default();
        let result = |turns: u64, input: u64, cost: f64| serde_json::json!({"type": "result", "subtype": "success", "num_turns": turns, "usage": {"input_tokens": input}, "total_cost_usd": cost});
        adapter.nudge("go on").unwrap();
        assert_eq!(
            adapter.line(result(2, 10, 0.1).to_string().as_bytes()),
            LineEffect::Alive,
            "the nudge is not read yet"
        );
        assert!(adapter.is_between_turns());
        let message = serde_json::json!({"type": "assistant", "message": {"id": "x", "model": "m", "usage": {"input_tokens": 5}}});
        adapter.line(message.to_string().as_bytes());
        assert_eq!((adapter.usage().turns, adapter.usage().input_tokens), (3, 15));
    }

    proptest! {
        #[test]
        fn no_line_breaks_the_adapter(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..5)) {
            let mut adapter = ClaudeCode::default();
            for line in &lines {
                adapter.line(line);
            }
            adapter.ending(ExitStatus::from_raw(0));
        }

        #[test]
        fn no_numbers_of_the_stream_overflow(a in any::<u64>(), b in any::<u64>(), turns in any::<u64>(), cost in any::<f64>()) {
            let mut adapter = ClaudeCode::default();
            for (id, n) in [("a", a), ("b", b)] {
                let event = serde_json::json!({"type": "assistant", "message": {"id": id, "model": "m", "usage": {"input_tokens": n, "output_tokens": n}}});
                adapter.line(event.to_string().as_bytes());
            }
            adapter.usage();
            adapter.line(serde_json::json!({"type": "result", "num_turns": turns, "total_cost_usd": cost}).to_string().as_bytes());
            prop_assert!(adapter.usage().cost_usd >= 0.0);
        }
    }
}
