//! One run of the agent's program: its process group, its streams, and what ends it.

use std::io::Write as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::BufReader;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};

use super::adapter::{Adapter, Doing, Launch, Said};
use super::input::{self, Say};
use super::lines::{self, Output};
use super::reporter::{Reporter, Seen};
use super::workspace::Workspace;
use crate::paths::Paths;
use crate::settings::Run;
use crate::socket::{Nudge, Nudged, Tool};
use crate::verdict::Verdict;

/// A longer line of output is no event.
const LINE_MAX: usize = 8 << 20;
/// How often HEAD, the drain file and the verdict are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long it may take after SIGTERM.
const HARD: Duration = Duration::from_secs(10);
/// An agent whose turn has ended and that has not begun with a nudge by then will not: its version
/// tells nothing of nudges, or took this one within the turn.
const LINGER: Duration = Duration::from_secs(10);

/// Why watching ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The program ended by itself.
    Ended,
    /// The agent said that it is done, and its program still runs.
    Done,
    /// The pod must go.
    Drained(String),
    /// The time is up.
    Deadline,
    /// A limit is reached.
    Budget(String),
}

/// The running agent.
pub struct Session {
    adapter: Box<dyn Adapter>,
    child: Child,
    group: Option<Pid>,
    output: Option<Output>,
    line: Vec<u8>,
    /// How long it may take to end by itself after it said that it is done.
    soft: Duration,
    /// Dropped, it closes the agent's standard input.
    stdin: Option<mpsc::Sender<Say>>,
    reporter: Reporter,
    seen: Seen,
    /// The tool call that was reported last.
    call: Option<String>,
    /// Until when a nudged agent may begin with another turn.
    linger: Option<Instant>,
}

impl Session {
    /// Starts it in the clone, in a process group of its own.
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
        let output =
            child.stdout.take().map(|o| BufReader::with_capacity(64 << 10, lines::Counted::new(o)));
        let stdin = child.stdin.take().map(|pipe| input::feed(pipe, launch, reporter.results()));
        tracing::info!(program = launch.program, "the agent runs");
        let (seen, call, linger) =
            (Seen { last_event_ms: crate::now_ms(), ..Seen::default() }, None, None);
        reporter.see(seen.clone());
        Ok(Self {
            adapter,
            child,
            group,
            output,
            line: Vec::new(),
            soft,
            stdin,
            reporter,
            seen,
            call,
            linger,
        })
    }

    /// What the stream told.
    pub fn adapter(&self) -> &dyn Adapter {
        self.adapter.as_ref()
    }

    /// Watches until the program ends or must end.
    pub async fn watch(
        &mut self,
        settings: &Run,
        paths: &Paths,
        workspace: &mut Workspace,
        term: &mut tokio::signal::unix::Signal,
        started: Instant,
    ) -> Stop {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stop_at = settings
            .deadline
            .map(|d| started + d.saturating_sub((d / 10).min(Duration::from_secs(120))));
        loop {
            tokio::select! {
                more = read(&mut self.output, &mut self.line) => {
                    if let Some(stop) = self.took(&more, settings) {
                        return stop;
                    }
                }
                status = self.child.wait() => {
                    tracing::debug!(?status, "the agent's program ended");
                    self.drain_output().await;
                    return Stop::Ended;
                }
                _ = term.recv() => return Stop::Drained("the pod was told to end".into()),
                () = until(stop_at) => return Stop::Deadline,
                () = until(self.linger) => return Stop::Done,
                Some(nudge) = self.reporter.nudge() => self.nudge(&nudge),
                _ = look.tick() => {
                    self.notice();
                    if let Some(why) = drain(paths) {
                        return Stop::Drained(why);
                    }
                    if Verdict::read(paths).is_some() {
                        return Stop::Done;
                    }
                    workspace.refresh().await;
                    workspace.push_settled().await;
                }
            }
        }
    }

    /// Takes in what was read; a reason to stop, if it holds one.
    fn took(&mut self, more: &std::io::Result<Option<()>>, settings: &Run) -> Option<Stop> {
        if !matches!(more, Ok(Some(()))) {
            // The stream's end: the program's end tells what it means.
            self.output = None;
            return None;
        }
        let line = std::mem::take(&mut self.line);
        tell(&line);
        let said = self.adapter.line(&line);
        self.see(said);
        if said == Said::Ended {
            return Some(Stop::Done);
        }
        self.linger = self.adapter.is_between().then(|| Instant::now() + LINGER);
        over_budget(settings, self.adapter.as_ref()).map(Stop::Budget)
    }

    /// Reports what the stream told.
    fn see(&mut self, said: Said) {
        let Doing { tool, waiting } = self.adapter.doing();
        let now = crate::now_ms();
        let same = tool.as_ref().map(|(id, _)| id) == self.call.as_ref();
        if !same {
            self.seen.tool =
                tool.as_ref().map(|(_, name)| Tool { name: name.clone(), since_ms: now });
            self.call = tool.map(|(id, _)| id);
        }
        if said != Said::Nothing {
            self.seen.last_event_ms = now;
        }
        self.seen.waiting = waiting;
        self.reporter.see(self.seen.clone());
    }

    /// Bytes without a line's end are a sign of life too, where lines mean nothing.
    fn notice(&mut self) {
        if self.adapter.has_free_output()
            && self.output.as_mut().is_some_and(|o| o.get_mut().has_grown())
        {
            self.seen.last_event_ms = crate::now_ms();
            self.reporter.see(self.seen.clone());
        }
    }

    /// Says it to the agent, or says why not.
    fn nudge(&mut self, nudge: &Nudge) {
        let room = self.stdin.as_ref().map(mpsc::Sender::try_reserve);
        let refused = match room {
            Some(Ok(room)) => match self.adapter.nudge(&nudge.text) {
                Some(bytes) => {
                    tracing::info!(id = nudge.id, "the agent is nudged");
                    room.send(Say { id: nudge.id, bytes });
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
        // Full of results that nobody took: the sidecar is gone, and with it who asked.
        let _ = self.reporter.results().try_send(Nudged {
            id: nudge.id,
            ok: false,
            message: refused.to_owned(),
        });
    }

    /// What the program wrote before it ended.
    async fn drain_output(&mut self) {
        // A grandchild may hold the pipe open: what comes is what there is.
        let rest = async {
            while self.output.is_some() {
                let more = read(&mut self.output, &mut self.line).await;
                if !matches!(more, Ok(Some(()))) {
                    return;
                }
                let line = std::mem::take(&mut self.line);
                tell(&line);
                self.adapter.line(&line);
            }
        };
        let _ = timeout(Duration::from_secs(5), rest).await;
    }

    /// Ends the program as softly as the reason allows; how it ended.
    pub async fn end(&mut self, stop: &Stop) -> Option<ExitStatus> {
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
            if timeout(HARD, self.drain_to_end()).await.is_err() {
                tracing::warn!("the agent did not end by SIGTERM");
            }
        }
        // Whatever it left in its group must not change the tree while it is saved.
        self.signal(Signal::KILL);
        self.child.wait().await.ok()
    }

    async fn drain_to_end(&mut self) -> Option<ExitStatus> {
        loop {
            tokio::select! {
                more = read(&mut self.output, &mut self.line) => {
                    if matches!(more, Ok(Some(()))) {
                        let line = std::mem::take(&mut self.line);
                        tell(&line);
                        self.adapter.line(&line);
                    } else {
                        self.output = None;
                    }
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
            // A group that is gone is what we want.
            let _ = kill_process_group(group, signal);
        }
    }
}

async fn read(output: &mut Option<Output>, line: &mut Vec<u8>) -> std::io::Result<Option<()>> {
    match output {
        Some(output) => lines::next(output, LINE_MAX, line).await,
        None => std::future::pending().await,
    }
}

/// The agent's output is the container's log.
fn tell(line: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Why the pod must go, if it must.
fn drain(paths: &Paths) -> Option<String> {
    let text = std::fs::read_to_string(paths.drain()).ok()?;
    let text: String = text.trim().chars().take(200).collect();
    (!text.is_empty()).then_some(text)
}

fn over_budget(settings: &Run, adapter: &dyn Adapter) -> Option<String> {
    let (budget, used) = (settings.budget, adapter.usage());
    if budget.turns.is_some_and(|max| used.turns > max) {
        return Some(format!("more than {} turns", budget.turns.unwrap_or_default()));
    }
    // Cache reads are counted by nobody's limit: they are most of the tokens and little of the
    // cost.
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
