//! What differs between kinds of agents: how one is started, how its output is read, and what its
//! end means. The adapters are in `registry.rs`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitStatus;

use gastown_core::report::{AgentExit, Usage};

use crate::settings::RunSettings;

/// How an agent is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// The program.
    pub program: String,
    /// Its arguments; never the prompt.
    pub args: Vec<String>,
    /// Further variables.
    pub env: Vec<(String, OsString)>,
    /// What is written to its standard input first.
    pub stdin: Vec<u8>,
    /// Whether its standard input stays open after [`Launch::stdin`].
    pub keep_stdin: bool,
}

/// How an agent ended, for the termination message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The class of the end.
    pub exit: AgentExit,
    /// One sentence.
    pub message: String,
    /// When a rate limit ends, in seconds since 1970.
    pub reset_at: Option<i64>,
}

impl Ending {
    /// An ending without the end of a rate limit.
    pub fn new(exit: AgentExit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), reset_at: None }
    }
}

/// What an agent is doing, as far as its output shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentState {
    /// The tool call that it is in: the call's id, and its name.
    pub tool: Option<(String, String)>,
    /// It waits for a person.
    pub waiting: bool,
}

/// What a line of an agent's output shows about the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEffect {
    /// Nothing: the line is an echo of the agent's input.
    Nothing,
    /// It is alive.
    Alive,
    /// It has ended its task.
    Ended,
}

/// One kind of agent.
pub trait Adapter: Send {
    /// How the agent is started with this prompt.
    fn launch(
        &self,
        settings: &RunSettings,
        command: &[String],
        prompt: &[u8],
        prompt_file: &Path,
    ) -> Launch;
    /// Reads one line of its standard output.
    fn line(&mut self, line: &[u8]) -> LineEffect;
    /// Whether bytes that are not a whole line yet show that the agent is alive.
    fn has_free_output(&self) -> bool;
    /// What the agent is doing.
    fn state(&self) -> AgentState;
    /// The bytes that are written to its standard input for a nudge with this text; `None` when it
    /// reads nothing after its prompt. The task has not ended before the agent has read the nudge.
    fn nudge(&mut self, text: &str) -> Option<Vec<u8>>;
    /// Whether its turn has ended, and a nudge or the end of a background task will begin another one.
    fn is_between_turns(&self) -> bool;
    /// Whether its turn has ended and it states that tasks of it still run: only the deadline bounds
    /// them.
    fn has_background_work(&self) -> bool {
        false
    }
    /// The tokens and the money that it used so far.
    fn usage(&self) -> Usage;
    /// Whether [`Adapter::usage`] is what the agent itself reported.
    fn reports_usage(&self) -> bool {
        true
    }
    /// The model that answered.
    fn model(&self) -> Option<String>;
    /// What its end means, when we did not end it.
    fn ending(&self, status: ExitStatus) -> Ending;
}

/// A description of how a program ended.
pub fn describe_exit(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".into(),
    }
}
