//! Any command as an agent: it gets the prompt on its standard input and in a file, and its exit
//! code decides. What it used is known when it prints that.

use std::path::Path;
use std::process::ExitStatus;

use gastown_core::report::{AgentExit, Usage};
use serde::Deserialize;

use super::adapter::{Adapter, AgentState, Ending, Launch, LineEffect, describe_exit};
use crate::settings::RunSettings;

/// What a line of output with the sums of everything used so far begins with. The rest is a JSON
/// object: `turns`, `inputTokens`, `outputTokens`, `cacheReadTokens`, `cacheWriteTokens`, `costUsd`
/// and `model`, each of which may be missing.
const USAGE: &[u8] = b"gastown-usage: ";

/// An agent of which only the command is known.
#[derive(Default)]
pub struct Generic {
    used: Option<Used>,
}

#[derive(Deserialize)]
struct Used {
    #[serde(flatten)]
    usage: Usage,
    model: Option<String>,
}

impl Adapter for Generic {
    fn launch(
        &self,
        settings: &RunSettings,
        command: &[String],
        prompt: &[u8],
        prompt_file: &Path,
    ) -> Launch {
        let mut command_line = command.iter().chain(&settings.agent_args).cloned();
        Launch {
            program: command_line.next().unwrap_or_default(),
            args: command_line.collect(),
            env: vec![("GASTOWN_PROMPT_FILE".into(), prompt_file.as_os_str().to_owned())],
            stdin: prompt.to_vec(),
            keep_stdin: false,
        }
    }

    fn line(&mut self, line: &[u8]) -> LineEffect {
        if let Some(used) = line.strip_prefix(USAGE) {
            match serde_json::from_slice(used) {
                Ok(used) => self.used = Some(used),
                Err(error) => tracing::warn!(%error, "a line with the agent's usage is not valid"),
            }
        }
        LineEffect::Alive
    }

    fn has_free_output(&self) -> bool {
        true
    }

    fn state(&self) -> AgentState {
        AgentState::default()
    }

    fn nudge(&mut self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn is_between_turns(&self) -> bool {
        false
    }

    fn usage(&self) -> Usage {
        self.used.as_ref().map(|used| used.usage).unwrap_or_default()
    }

    fn reports_usage(&self) -> bool {
        self.used.is_some()
    }

    fn model(&self) -> Option<String> {
        self.used.as_ref()?.model.clone()
    }

    fn ending(&self, status: ExitStatus) -> Ending {
        match status.code() {
            Some(0) => Ending::new(AgentExit::Completed, ""),
            Some(_) => Ending::new(AgentExit::Failed, describe_exit(status)),
            None => Ending::new(AgentExit::Crashed, describe_exit(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn any_command_is_started_with_its_arguments_and_the_prompt_on_its_input() {
        let settings = RunSettings { agent_args: vec!["-x".into()], ..crate::settings::test_run() };
        let launch = Generic::default().launch(
            &settings,
            &["tool".into(), "a b".into()],
            b"prompt",
            Path::new("/p.md"),
        );
        assert_eq!(
            (launch.program.as_str(), launch.args),
            ("tool", vec!["a b".to_owned(), "-x".to_owned()])
        );
        assert_eq!((launch.stdin, launch.keep_stdin), (b"prompt".to_vec(), false));
        assert_eq!(launch.env, [("GASTOWN_PROMPT_FILE".to_owned(), "/p.md".into())]);
        let from_args = Generic::default().launch(&settings, &[], b"", Path::new("/p.md"));
        assert_eq!(from_args.program, "-x");
    }

    #[test]
    fn its_exit_code_decides() {
        let cases =
            [(0, AgentExit::Completed), (1 << 8, AgentExit::Failed), (9, AgentExit::Crashed)];
        for (raw, want) in cases {
            assert_eq!(Generic::default().ending(ExitStatus::from_raw(raw)).exit, want);
        }
        let mut adapter = Generic::default();
        assert_eq!(adapter.line(br#"{"type":"result"}"#), LineEffect::Alive);
        assert_eq!(adapter.nudge("are you there?"), None, "its input is closed after the prompt");
    }

    #[test]
    fn what_it_prints_of_its_usage_is_read_and_anything_else_is_not() {
        let mut adapter = Generic::default();
        assert!(!adapter.reports_usage());
        for line in ["gastown-usage: {", "gastown-usage: [1]", "usage: {\"turns\":9}"] {
            assert_eq!(adapter.line(line.as_bytes()), LineEffect::Alive);
            assert!(!adapter.reports_usage(), "{line}");
        }
        adapter.line(br#"gastown-usage: {"turns":2,"inputTokens":10,"model":"m","more":true}"#);
        adapter.line(br#"gastown-usage: {"turns":-1}"#);
        let wanted = Usage { turns: 2, input_tokens: 10, ..Usage::default() };
        assert_eq!((adapter.usage(), adapter.model()), (wanted, Some("m".to_owned())));
        assert!(adapter.reports_usage());
    }
}
