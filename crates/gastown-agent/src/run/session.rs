//! One run of the agent's program: its process group, its streams, and what ends it.

use std::io::Write as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use gastown_types::text;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};
use tokio_stream::StreamExt as _;

use super::adapter::{Adapter, AgentState, Launch, LineEffect};
use super::input::{self, NudgeInput};
use super::lines::{Lines, lines};
use super::processes;
use super::reporter::{Observation, Reporter};
use super::workspace::Workspace;
use crate::done::Done;
use crate::paths::Paths;
use crate::settings::RunSettings;
use crate::socket::{Nudge, NudgeResult, Tool};

/// Bytes of a line of output; a longer one is not read as an event.
const LINE_MAX: usize = 8 << 20;
/// How often the clone, the drain file and the file of `gt done` are read.
const POLL: Duration = Duration::from_millis(500);
/// How long the agent may take to end after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(10);
/// How long an agent whose turn has ended may take to begin another one for a nudge, or for the end
/// of a background task. After that it will not: its version has no events for nudges, or it read the
/// nudge within the turn.
const NEXT_TURN: Duration = Duration::from_secs(10);

/// Characters of the reason in the drain file.
const DRAIN_REASON_MAX: usize = 200;

/// Why the agent stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The program ended by itself.
    Ended,
    /// The task has ended, and the agent's program still runs.
    Done,
    /// The pod must end; the reason.
    Drained(String),
    /// The attempt's deadline is near.
    Deadline,
    /// A limit of the budget is exceeded; which one.
    Budget(String),
}

/// The running agent.
pub struct Session {
    adapter: Box<dyn Adapter>,
    child: Child,
    group: Option<Pid>,
    /// `None` after the end of its output.
    output: Option<Lines<ChildStdout>>,
    /// How long it may take to end by itself after the task has ended.
    soft: Duration,
    /// Dropped, it closes the agent's standard input.
    stdin: Option<mpsc::Sender<NudgeInput>>,
    reporter: Reporter,
    observed: Observation,
    /// The id of the tool call that was reported last.
    call: Option<String>,
    /// Until when a nudged agent may begin another turn.
    next_turn_until: Option<Instant>,
}

impl Session {
    /// Starts the agent in the clone, in a process group of its own.
    pub fn start(
        adapter: Box<dyn Adapter>,
        launch: &Launch,
        paths: &Paths,
        soft: Duration,
        reporter: Reporter,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(&launch.program);
        command
            .args(&launch.args)
            .env_remove("GASTOWN_INNER")
            .envs(launch.env.iter().map(|(k, v)| (k, v)))
            .current_dir(paths.worktree());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|e| anyhow::anyhow!("start {}: {e}", launch.program))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let output = child.stdout.take().map(|output| lines(output, LINE_MAX));
        let stdin =
            child.stdin.take().map(|pipe| input::write_input(pipe, launch, reporter.results()));
        tracing::info!(program = launch.program, "the agent is running");
        let observed = Observation { last_event_ms: crate::now_ms(), ..Observation::default() };
        reporter.observe(observed.clone());
        Ok(Self {
            adapter,
            child,
            group,
            output,
            soft,
            stdin,
            reporter,
            observed,
            call: None,
            next_turn_until: None,
        })
    }

    /// The adapter, with what it has read.
    pub fn adapter(&self) -> &dyn Adapter {
        self.adapter.as_ref()
    }

    /// Watches the agent until its program ends or must end.
    pub async fn watch(
        &mut self,
        settings: &RunSettings,
        paths: &Paths,
        workspace: &mut Workspace,
        term: &mut tokio::signal::unix::Signal,
        started: Instant,
    ) -> Stop {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stop_at = settings
            .deadline
            .map(|d| started + d.saturating_sub((d / 10).min(Duration::from_mins(2))));
        loop {
            tokio::select! {
                line = next_line(&mut self.output) => {
                    if let Some(stop) = self.handle_line(line, settings) {
                        return stop;
                    }
                }
                status = self.child.wait() => {
                    tracing::debug!(?status, "the agent's program ended");
                    self.drain_output().await;
                    return Stop::Ended;
                }
                _ = term.recv() => return Stop::Drained("the pod is being terminated".into()),
                () = until(stop_at) => return Stop::Deadline,
                () = until(self.next_turn_until) => return Stop::Done,
                Some(nudge) = self.reporter.nudge() => self.nudge(&nudge),
                _ = poll.tick() => {
                    self.observe_output();
                    if let Some(reason) = drain_reason(paths) {
                        return Stop::Drained(reason);
                    }
                    if Done::read(paths).is_some() {
                        return Stop::Done;
                    }
                    workspace.fetch_target().await;
                    workspace.push_settled().await;
                }
            }
        }
    }

    /// Handles a line of output, or its end (`None`). Returns a reason to stop, if there is one.
    fn handle_line(&mut self, line: Option<Bytes>, settings: &RunSettings) -> Option<Stop> {
        let effect = self.read_line(line)?;
        self.observe(effect);
        if effect == LineEffect::Ended {
            return Some(Stop::Done);
        }
        let between = self.adapter.is_between_turns() && !self.adapter.has_background_work();
        self.next_turn_until = between.then(|| Instant::now() + NEXT_TURN);
        over_budget(settings, self.adapter.as_ref()).map(Stop::Budget)
    }

    /// Logs a line of output and has the adapter read it; at the end of the output, closes it.
    fn read_line(&mut self, line: Option<Bytes>) -> Option<LineEffect> {
        let Some(line) = line else {
            // What it means is known when the program ends.
            self.output = None;
            return None;
        };
        log_line(&line);
        Some(self.adapter.line(&line))
    }

    /// Reports the agent's state after a line with this effect.
    fn observe(&mut self, effect: LineEffect) {
        let AgentState { tool, waiting } = self.adapter.state();
        let now = crate::now_ms();
        let same = tool.as_ref().map(|(id, _)| id) == self.call.as_ref();
        if !same {
            self.observed.tool =
                tool.as_ref().map(|(_, name)| Tool { name: name.clone(), since_ms: now });
            self.call = tool.map(|(id, _)| id);
        }
        if effect != LineEffect::Nothing {
            self.observed.last_event_ms = now;
        }
        self.observed.waiting = waiting;
        self.reporter.observe(self.observed.clone());
    }

    /// Where lines mean nothing, output without a line's end shows as well that the agent is alive.
    fn observe_output(&mut self) {
        if self.adapter.has_free_output()
            && self.output.as_mut().is_some_and(|o| o.get_mut().has_grown())
        {
            self.observed.last_event_ms = crate::now_ms();
            self.reporter.observe(self.observed.clone());
        }
    }

    /// Writes a nudge to the agent's input, or reports why it cannot.
    fn nudge(&mut self, nudge: &Nudge) {
        let room = self.stdin.as_ref().map(mpsc::Sender::try_reserve);
        let refused = match room {
            Some(Ok(room)) => match self.adapter.nudge(&nudge.text) {
                Some(bytes) => {
                    tracing::info!(id = nudge.id, "nudging the agent");
                    room.send(NudgeInput { id: nudge.id, bytes });
                    return;
                }
                None => "this agent takes no nudges: its input is closed after the prompt",
            },
            Some(Err(mpsc::error::TrySendError::Full(()))) => "the agent does not read its input",
            // A generic agent's input is closed after its prompt.
            Some(Err(mpsc::error::TrySendError::Closed(()))) | None => {
                "this agent takes no nudges: its input is closed"
            }
        };
        // Full when the sidecar is gone, and with it the stream that the nudge came from.
        let _ = self.reporter.results().try_send(NudgeResult {
            id: nudge.id,
            ok: false,
            message: refused.to_owned(),
        });
    }

    /// Reads what the program wrote before it ended.
    async fn drain_output(&mut self) {
        // A process that it started may hold the pipe open, hence the timeout.
        let rest = async {
            while self.output.is_some() {
                let line = next_line(&mut self.output).await;
                self.read_line(line);
            }
        };
        let _ = timeout(Duration::from_secs(5), rest).await;
    }

    /// Ends the program and all that it started, and returns its exit status.
    pub async fn end(&mut self, stop: &Stop) -> Option<ExitStatus> {
        let status = self.end_program(stop).await;
        processes::end_left_behind().await;
        status
    }

    /// Reports what the agent did last. It must have ended.
    pub async fn finish(self) {
        self.reporter.finish().await;
    }

    /// Ends the program and its process group, with as much time as the reason allows.
    async fn end_program(&mut self, stop: &Stop) -> Option<ExitStatus> {
        self.stdin = None;
        self.reporter.close();
        if matches!(stop, Stop::Done)
            && let Ok(status) = timeout(self.soft, self.drain_to_end()).await
        {
            self.signal(Signal::KILL);
            return status;
        }
        if !matches!(stop, Stop::Ended) {
            self.signal(Signal::TERM);
            if timeout(TERM_GRACE, self.drain_to_end()).await.is_err() {
                tracing::warn!("the agent did not end after SIGTERM");
            }
        }
        self.signal(Signal::KILL);
        self.child.wait().await.ok()
    }

    async fn drain_to_end(&mut self) -> Option<ExitStatus> {
        loop {
            tokio::select! {
                line = next_line(&mut self.output) => {
                    self.read_line(line);
                }
                status = self.child.wait() => {
                    self.drain_output().await;
                    return status.ok();
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It fails when the group has ended already.
            let _ = kill_process_group(group, signal);
        }
    }
}

/// The next line; `None` at the end of the output, or when it cannot be read. Pending when the output
/// has ended already.
async fn next_line(output: &mut Option<Lines<ChildStdout>>) -> Option<Bytes> {
    match output {
        Some(output) => output.next().await.and_then(Result::ok),
        None => std::future::pending().await,
    }
}

/// The agent's output is the container's log.
fn log_line(line: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Why the pod must end; `None` while it may run.
fn drain_reason(paths: &Paths) -> Option<String> {
    let reason = std::fs::read_to_string(paths.drain()).ok()?;
    let reason = text::line(&reason, DRAIN_REASON_MAX);
    (!reason.is_empty()).then_some(reason)
}

/// The limit of the budget that the agent exceeds, if any.
fn over_budget(settings: &RunSettings, adapter: &dyn Adapter) -> Option<String> {
    let (budget, used) = (settings.budget, adapter.usage());
    if budget.turns.is_some_and(|max| used.turns > max) {
        return Some(format!("more than {} turns", budget.turns.unwrap_or_default()));
    }
    // Cache reads do not count: they are most of the tokens and little of the cost.
    let tokens = used
        .input_tokens
        .saturating_add(used.output_tokens)
        .saturating_add(used.cache_write_tokens);
    if budget.tokens.is_some_and(|max| tokens > max) {
        return Some(format!("more than {} tokens", budget.tokens.unwrap_or_default()));
    }
    if budget.cost_usd.is_some_and(|max| used.cost_usd > max) {
        return Some(format!("more than {} US dollars", budget.cost_usd.unwrap_or_default()));
    }
    None
}
