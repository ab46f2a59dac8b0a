//! Any command as an agent: the prompt on its standard input and in a file, its exit code decides.

use std::path::Path;
use std::process::ExitStatus;

use gastown_core::report::{AgentExit, Usage};

use super::adapter::{Adapter, Ending, Launch, ended_how};
use crate::settings::Run;

/// The command is all there is.
pub struct Generic;

impl Adapter for Generic {
    fn launch(&self, settings: &Run, command: &[String], prompt: &[u8], prompt_file: &Path) -> Launch {
        let mut words = command.iter().chain(&settings.agent_args).cloned();
        Launch {
            program: words.next().unwrap_or_default(),
            args: words.collect(),
            env: vec![("GASTOWN_PROMPT_FILE".into(), prompt_file.as_os_str().to_owned())],
            stdin: prompt.to_vec(),
            keep_stdin: false,
        }
    }

    fn line(&mut self, _: &[u8]) -> bool {
        false
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn model(&self) -> Option<String> {
        None
    }

    fn ending(&self, status: ExitStatus) -> Ending {
        match status.code() {
            Some(0) => Ending::new(AgentExit::Completed, ""),
            Some(_) => Ending::new(AgentExit::Failed, ended_how(status)),
            None => Ending::new(AgentExit::Crashed, ended_how(status)),
        }
    }
}
