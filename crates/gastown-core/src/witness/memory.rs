//! What is remembered of a pod. All times are this side's: a pod's clock is only believed about how
//! long ago something was.

use jiff::{SignedDuration, Timestamp};

/// A container that uses more than this of one CPU computes; an idle agent's does not.
const BUSY: f64 = 0.05;
/// Beats that are closer together say nothing about CPU.
const APART: SignedDuration = SignedDuration::from_secs(1);
/// Longest text that is kept of what a pod says.
const WORDS: usize = 256;

/// A heartbeat, as it came in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beat {
    /// The pod's clock; milliseconds.
    pub now_ms: i64,
    /// When the agent last did anything by that clock; 0 = never.
    pub last_event_ms: i64,
    /// Since when it is inside one tool call; 0 = it is in none.
    pub in_tool_since_ms: i64,
    /// Which tool.
    pub tool: String,
    /// It has ended its turn and waits.
    pub waiting_for_human: bool,
    /// CPU seconds that its container has used.
    pub cpu_seconds: f64,
    /// What the remote holds.
    pub pushed_commit: String,
}

/// An answer to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which order.
    pub number: u64,
    /// Whether it was done.
    pub ok: bool,
    /// What came out.
    pub message: String,
}

/// What a pod may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Tell the agent to go on.
    Nudge,
    /// Save its work.
    Checkpoint,
}

/// What is remembered of one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// When it was heard last.
    pub heard: Timestamp,
    /// When its agent last did anything; at first, when it was heard first.
    pub active: Timestamp,
    /// Since when it is inside one tool call.
    pub in_tool: Option<Timestamp>,
    /// Which.
    pub tool: String,
    /// It waits for a person.
    pub waiting: bool,
    /// When it last computed.
    pub busy: Option<Timestamp>,
    /// What the remote holds.
    pub pushed: String,
    /// When it was nudged.
    pub nudged: Option<Timestamp>,
    /// The checkpoint that was asked for last: its number, and when.
    pub asked: Option<(u64, Timestamp)>,
    /// When the checkpoint was asked for that saved its work, and what was said of it. Not when the
    /// answer came: what the agent did in between may be missing from it.
    pub saved: Option<(Timestamp, String)>,
    /// How often saving has failed since it fell silent, and why last.
    pub failed: Option<(u32, String)>,
    cpu: f64,
    cpu_at: Timestamp,
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS).collect()
}

/// When something was, by our clock: `then` and `at` are by the pod's. Never in the future, at most
/// a day ago.
fn ours(now: Timestamp, at: i64, then: i64) -> Timestamp {
    let ago = at.saturating_sub(then).clamp(0, 24 * 3600 * 1000);
    now.checked_sub(SignedDuration::from_millis(ago)).unwrap_or(now)
}

impl Memory {
    /// A pod that is heard for the first time.
    pub fn new(now: Timestamp, beat: &Beat) -> Self {
        let cpu = if beat.cpu_seconds.is_finite() { beat.cpu_seconds } else { 0.0 };
        let mut memory = Self {
            heard: now,
            active: if beat.last_event_ms > 0 {
                ours(now, beat.now_ms, beat.last_event_ms)
            } else {
                now
            },
            in_tool: None,
            tool: String::new(),
            waiting: false,
            busy: None,
            pushed: cut(&beat.pushed_commit),
            nudged: None,
            asked: None,
            saved: None,
            failed: None,
            cpu,
            cpu_at: now,
        };
        memory.hear(now, beat);
        memory
    }

    /// Takes a heartbeat in.
    pub fn hear(&mut self, now: Timestamp, beat: &Beat) {
        self.heard = self.heard.max(now);
        if beat.last_event_ms > 0 {
            self.act(ours(now, beat.now_ms, beat.last_event_ms));
        }
        self.in_tool =
            (beat.in_tool_since_ms > 0).then(|| ours(now, beat.now_ms, beat.in_tool_since_ms));
        self.tool = cut(&beat.tool);
        self.waiting = beat.waiting_for_human;
        let pushed = cut(&beat.pushed_commit);
        if !pushed.is_empty() && pushed != self.pushed {
            // A commit is something that the agent did, unless we asked to have its work saved.
            if self.asked.is_none() {
                self.act(now);
            }
            self.pushed = pushed;
        }
        let over = now.duration_since(self.cpu_at);
        if !beat.cpu_seconds.is_finite() || beat.cpu_seconds < self.cpu {
            // Another container, or nonsense: begin anew.
            (self.cpu, self.cpu_at) =
                (if beat.cpu_seconds.is_finite() { beat.cpu_seconds } else { 0.0 }, now);
        } else if over >= APART {
            if (beat.cpu_seconds - self.cpu) / over.as_secs_f64() >= BUSY {
                self.busy = Some(now);
            }
            (self.cpu, self.cpu_at) = (beat.cpu_seconds, now);
        }
    }

    /// The agent did something: what was tried while it was silent is over.
    fn act(&mut self, when: Timestamp) {
        if when <= self.active {
            return;
        }
        self.active = when;
        if self.nudged.is_some_and(|t| t <= when) {
            self.nudged = None;
        }
        if self.asked.is_some_and(|(_, t)| t <= when) {
            self.asked = None;
        }
        if self.saved.as_ref().is_some_and(|(t, _)| *t <= when) {
            self.saved = None;
        }
        self.failed = None;
    }

    /// An order went out.
    pub fn ordered(&mut self, now: Timestamp, order: Order, number: u64) {
        match order {
            Order::Nudge => self.nudged = Some(now),
            Order::Checkpoint => self.asked = Some((number, now)),
        }
    }

    /// An answer came in. Only one to the checkpoint that was asked for last counts.
    pub fn answered(&mut self, answer: &Answer) {
        let Some((number, asked)) = self.asked else { return };
        if number != answer.number || self.saved.is_some() {
            return;
        }
        if answer.ok {
            self.saved = Some((asked, cut(&answer.message)));
            self.failed = None;
        } else {
            let before = self.failed.as_ref().map_or(0, |(n, _)| *n);
            self.failed = Some((before.saturating_add(1), cut(&answer.message)));
        }
    }

    /// Since when nothing happens at all: neither an event nor CPU time.
    pub fn still(&self) -> Timestamp {
        self.busy.map_or(self.active, |t| t.max(self.active))
    }
}
