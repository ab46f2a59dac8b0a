//! What differs between agents: how one is started, how its output is read, and what its end means.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitStatus;

use gastown_core::report::{AgentExit, Usage};

use crate::settings::Run;

/// How an agent is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// The program.
    pub program: String,
    /// Its arguments; never the prompt.
    pub args: Vec<String>,
    /// Further variables.
    pub env: Vec<(String, OsString)>,
    /// What it reads first.
    pub stdin: Vec<u8>,
    /// Whether its standard input stays open after that.
    pub keep_stdin: bool,
}

/// How an agent's end is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The class.
    pub exit: AgentExit,
    /// One sentence.
    pub message: String,
    /// When a rate limit ends, in seconds since 1970.
    pub reset_at: Option<i64>,
}

impl Ending {
    /// An ending without more to say.
    pub fn new(exit: AgentExit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), reset_at: None }
    }
}

/// What an agent's stream says that it does now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doing {
    /// The tool call that it is in: what tells it from other calls, and its name.
    pub tool: Option<(String, String)>,
    /// It waits for a person.
    pub waiting: bool,
}

/// What a line of an agent's output means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nothing about the agent: an echo of what it was told.
    Nothing,
    /// It is alive.
    Alive,
    /// It has ended its task.
    Ended,
}

/// One kind of agent.
pub trait Adapter: Send {
    /// How it is started with this prompt.
    fn launch(
        &self,
        settings: &Run,
        command: &[String],
        prompt: &[u8],
        prompt_file: &Path,
    ) -> Launch;
    /// Takes in one line of its standard output.
    fn line(&mut self, line: &[u8]) -> Said;
    /// Whether bytes that are no line yet are a sign of life.
    fn has_free_output(&self) -> bool;
    /// What it does now.
    fn doing(&self) -> Doing;
    /// What it reads when it is nudged with this text; `None` when it reads nothing after its
    /// prompt. The agent has not ended its task before it has taken the text.
    fn nudge(&mut self, text: &str) -> Option<Vec<u8>>;
    /// Whether it ended its turn and nudges wait for it that it has not begun with.
    fn is_between(&self) -> bool;
    /// What it used so far.
    fn usage(&self) -> Usage;
    /// The model that answered.
    fn model(&self) -> Option<String>;
    /// What its end means, when nobody of ours ended it.
    fn ending(&self, status: ExitStatus) -> Ending;
}

/// The adapter of this name.
pub fn named(name: &str) -> Option<Box<dyn Adapter>> {
    match name {
        "claude-code" => Some(Box::new(super::claude_code::ClaudeCode::default())),
        "generic" => Some(Box::new(super::generic::Generic)),
        _ => None,
    }
}

/// How a program ended, in words.
pub fn ended_how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".into(),
    }
}
