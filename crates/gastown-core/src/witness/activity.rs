//! What the heartbeats of a pod have reported. All times are by this process's clock: a pod's clock
//! is only believed about how long ago something was.

use gastown_types::text;
use jiff::{SignedDuration, Timestamp};

/// A container that uses more than this share of one CPU is computing; an idle agent's uses less.
const BUSY: f64 = 0.05;
/// Heartbeats closer together than this are not compared for their CPU time.
const MIN_CPU_SPAN: SignedDuration = SignedDuration::from_secs(1);
/// A pod's clock is not believed about anything longer ago than this, in milliseconds.
const MAX_AGE_MS: i64 = 24 * 3600 * 1000;
/// The longest text that is kept of what a pod sends, in characters.
const MAX_TEXT: usize = 256;

/// A heartbeat of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heartbeat {
    /// The pod's clock; milliseconds since 1970.
    pub now_ms: i64,
    /// When the agent last did anything, by that clock; 0 = nothing yet.
    pub last_event_ms: i64,
    /// Since when the agent is inside one tool call, by that clock; 0 = it is in none.
    pub in_tool_since_ms: i64,
    /// The tool's name.
    pub tool: String,
    /// The agent has ended its turn and waits for a person.
    pub waiting_for_human: bool,
    /// CPU seconds that the agent's container has used.
    pub cpu_seconds: f64,
    /// The commit that the remote holds; empty when there is none.
    pub pushed_commit: String,
    /// Why work of the pod is not on the remote yet; empty when all of it is saved.
    pub saving: String,
    /// The agent has ended, and the pod saves the end of its work.
    pub ended: bool,
}

/// A command to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send the agent a message that asks it to go on.
    Nudge,
    /// Save the agent's work.
    Checkpoint,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandResult {
    /// The command's number.
    pub number: u64,
    /// Whether it succeeded.
    pub ok: bool,
    /// For a checkpoint what the remote holds; for a failure the error.
    pub message: String,
}

/// The activity of one pod, by its heartbeats and the commands that it got.
#[derive(Clone, Debug, PartialEq)]
pub struct PodActivity {
    /// When its last heartbeat arrived.
    pub last_heartbeat: Timestamp,
    /// When its agent last did anything; before its first event, when the first heartbeat arrived.
    pub last_active: Timestamp,
    /// Since when the agent is inside one tool call.
    pub in_tool: Option<Timestamp>,
    /// The tool's name.
    pub tool: String,
    /// The agent has ended its turn and waits for a person.
    pub waiting: bool,
    /// When its container last used CPU.
    pub last_busy: Option<Timestamp>,
    /// The commit that the remote holds.
    pub pushed: String,
    /// Why work of the pod is not on the remote yet; empty when all of it is saved.
    pub saving: String,
    /// The agent has ended, and the pod saves the end of its work.
    pub ended: bool,
    /// When it was nudged.
    pub nudged: Option<Timestamp>,
    /// The last checkpoint command: its number, and when it was sent.
    pub checkpoint: Option<(u64, Timestamp)>,
    /// When the checkpoint that saved the work was sent, and its result's message. Not when the
    /// result arrived: what the agent did in between may be missing from it.
    pub saved: Option<(Timestamp, String)>,
    /// How many checkpoints have failed since the agent fell silent, and the last error.
    pub failed: Option<(u32, String)>,
    cpu_seconds: f64,
    cpu_at: Timestamp,
}

/// The longest sentence that is kept of what a pod sends, in characters.
const MAX_SENTENCE: usize = 1000;

fn clean(text: &str) -> String {
    text::line(text, MAX_TEXT)
}

/// A time of the pod's clock (`then`) by our clock, when the pod's clock shows `at`. Never in the
/// future, at most a day ago.
fn by_our_clock(now: Timestamp, at: i64, then: i64) -> Timestamp {
    let ago = at.saturating_sub(then).clamp(0, MAX_AGE_MS);
    now.checked_sub(SignedDuration::from_millis(ago)).unwrap_or(now)
}

impl PodActivity {
    /// The activity of a pod that has sent its first heartbeat.
    pub fn new(now: Timestamp, first: &Heartbeat) -> Self {
        let cpu_seconds = if first.cpu_seconds.is_finite() { first.cpu_seconds } else { 0.0 };
        let mut activity = Self {
            last_heartbeat: now,
            last_active: if first.last_event_ms > 0 {
                by_our_clock(now, first.now_ms, first.last_event_ms)
            } else {
                now
            },
            in_tool: None,
            tool: String::new(),
            waiting: false,
            last_busy: None,
            pushed: clean(&first.pushed_commit),
            saving: String::new(),
            ended: false,
            nudged: None,
            checkpoint: None,
            saved: None,
            failed: None,
            cpu_seconds,
            cpu_at: now,
        };
        activity.heartbeat(now, first);
        activity
    }

    /// Takes a heartbeat in.
    pub fn heartbeat(&mut self, now: Timestamp, heartbeat: &Heartbeat) {
        self.last_heartbeat = self.last_heartbeat.max(now);
        if heartbeat.last_event_ms > 0 {
            self.active(by_our_clock(now, heartbeat.now_ms, heartbeat.last_event_ms));
        }
        self.in_tool = (heartbeat.in_tool_since_ms > 0)
            .then(|| by_our_clock(now, heartbeat.now_ms, heartbeat.in_tool_since_ms));
        self.tool = clean(&heartbeat.tool);
        self.waiting = heartbeat.waiting_for_human;
        self.ended = heartbeat.ended;
        self.saving = text::line(&heartbeat.saving, MAX_SENTENCE);
        let pushed = clean(&heartbeat.pushed_commit);
        if !pushed.is_empty() && pushed != self.pushed {
            // A commit is the agent's doing, unless a checkpoint was asked for.
            if self.checkpoint.is_none() {
                self.active(now);
            }
            self.pushed = pushed;
        }
        self.cpu(now, heartbeat.cpu_seconds);
    }

    fn cpu(&mut self, now: Timestamp, seconds: f64) {
        let span = now.duration_since(self.cpu_at);
        if !seconds.is_finite() || seconds < self.cpu_seconds {
            // Another container, or not a number: start over.
            self.cpu_seconds = if seconds.is_finite() { seconds } else { 0.0 };
            self.cpu_at = now;
        } else if span >= MIN_CPU_SPAN {
            if (seconds - self.cpu_seconds) / span.as_secs_f64() >= BUSY {
                self.last_busy = Some(now);
            }
            (self.cpu_seconds, self.cpu_at) = (seconds, now);
        }
    }

    /// The agent did something: what was tried while it was silent no longer counts.
    fn active(&mut self, when: Timestamp) {
        if when <= self.last_active {
            return;
        }
        self.last_active = when;
        if self.nudged.is_some_and(|t| t <= when) {
            self.nudged = None;
        }
        if self.checkpoint.is_some_and(|(_, t)| t <= when) {
            self.checkpoint = None;
        }
        if self.saved.as_ref().is_some_and(|(t, _)| *t <= when) {
            self.saved = None;
        }
        self.failed = None;
    }

    /// Records that a command was sent.
    pub fn command_sent(&mut self, now: Timestamp, command: Command, number: u64) {
        match command {
            Command::Nudge => self.nudged = Some(now),
            Command::Checkpoint => self.checkpoint = Some((number, now)),
        }
    }

    /// Records how a command ended. Only the last checkpoint's result counts.
    pub fn command_ended(&mut self, result: &CommandResult) {
        let Some((number, sent)) = self.checkpoint else { return };
        if number != result.number || self.saved.is_some() {
            return;
        }
        if result.ok {
            self.saved = Some((sent, clean(&result.message)));
            self.failed = None;
        } else {
            let before = self.failed.as_ref().map_or(0, |(n, _)| *n);
            self.failed = Some((before.saturating_add(1), clean(&result.message)));
        }
    }

    /// Since when nothing has happened at all: neither an event nor use of CPU.
    pub fn idle_since(&self) -> Timestamp {
        self.last_busy.map_or(self.last_active, |t| t.max(self.last_active))
    }
}
