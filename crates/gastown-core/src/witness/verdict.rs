//! The verdict about one polecat, and the next thing to try.

use gastown_api::conditions::{Status, whole_seconds};
use gastown_api::names::reason;
use gastown_api::{Activity, Severity};
use jiff::{SignedDuration, Timestamp};

use super::memory::{Memory, Order};

/// A tool call that uses no CPU, such as one that waits for a server, gets so many times the
/// threshold.
const TOOL_FACTOR: i32 = 4;
/// A checkpoint that is not answered, or fails, is asked for again after this long.
const CHECKPOINT_AGAIN: SignedDuration = SignedDuration::from_mins(2);
/// So many failed checkpoints are told to a person.
const CHECKPOINTS: u32 = 3;
/// A pod that is not heard for so long is lost to us.
const LOST_AFTER: SignedDuration = SignedDuration::from_mins(2);

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Silent for so long is Quiet, or WaitingForHuman.
    pub quiet: SignedDuration,
    /// Still for so long is Wedged.
    pub stuck: SignedDuration,
    /// Wedged for so long is nudged.
    pub nudge_after: SignedDuration,
    /// Nudged for so long without a sign of life is saved, then restarted.
    pub restart_after: SignedDuration,
    /// After our own start, and after we heard from nobody, nothing is judged for so long.
    pub grace: SignedDuration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            quiet: SignedDuration::from_mins(2),
            stuck: SignedDuration::from_mins(15),
            nudge_after: SignedDuration::ZERO,
            restart_after: SignedDuration::from_mins(5),
            grace: SignedDuration::from_mins(2),
        }
    }
}

/// All that decides about one polecat at work.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts<'a> {
    /// The uid of its pod.
    pub pod: &'a str,
    /// When the pod was there at the latest: it is not lost before it had time to be heard.
    pub since: Timestamp,
    /// What its pod reported.
    pub memory: Option<&'a Memory>,
    /// Its stream is open.
    pub attached: bool,
    /// Since when this process judges.
    pub judging: Timestamp,
    /// When any other pod was heard last, and since when without a gap longer than the grace.
    pub others: Option<(Timestamp, Timestamp)>,
    /// How long things may take.
    pub thresholds: Thresholds,
}

/// Trouble that a person is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// The last word of its cause.
    pub cause: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence.
    pub summary: String,
}

impl Alarm {
    /// The agent waits for a person.
    pub const WAITING: &'static str = "WaitingForHuman";
    /// A wedged agent's work cannot be saved.
    pub const UNSAVED: &'static str = "CannotSave";
    /// A pod is not heard from.
    pub const LOST: &'static str = "NotHeard";
    /// All of them.
    pub const ALL: [&'static str; 3] = [Self::WAITING, Self::UNSAVED, Self::LOST];
}

/// What is to be said and done about one polecat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the agent is at.
    pub activity: Activity,
    /// Whether it gets on.
    pub healthy: Status,
    /// Why.
    pub reason: &'static str,
    /// One sentence; the same again while nothing changes.
    pub message: String,
    /// What to tell its pod now.
    pub order: Option<Order>,
    /// Whom to wake.
    pub alarm: Option<Alarm>,
}

fn after(now: Timestamp, then: Timestamp, wait: SignedDuration) -> bool {
    now.duration_since(then) >= wait
}

/// The verdict; nothing while nothing can be said, and then what was said before stays.
pub fn judge(now: Timestamp, facts: &Facts) -> Option<Verdict> {
    let limits = &facts.thresholds;
    let Some(memory) = facts.memory.filter(|m| facts.attached || !after(now, m.heard, LOST_AFTER))
    else {
        return lost(now, facts);
    };
    let still = now.duration_since(memory.still());
    let silent = now.duration_since(memory.active);
    let computes = memory.busy.is_some_and(|t| !after(now, t, limits.quiet));
    let stuck = match memory.in_tool {
        Some(_) => limits.stuck.checked_mul(TOOL_FACTOR).unwrap_or(SignedDuration::MAX),
        None => limits.stuck,
    };
    if memory.waiting && silent >= limits.quiet {
        let summary = "its agent has ended its turn and waits for a person".to_owned();
        let alarm =
            Alarm { cause: Alarm::WAITING, severity: Severity::Medium, summary: summary.clone() };
        let verdict = verdict(Activity::WaitingForHuman, Status::False, "WaitingForHuman", summary);
        return Some(Verdict { alarm: Some(alarm), ..verdict });
    }
    if still >= stuck {
        return Some(wedged(now, facts, memory, stuck));
    }
    if silent < limits.quiet {
        return Some(verdict(
            Activity::Working,
            Status::True,
            reason::HEALTHY,
            "the agent gets on".to_owned(),
        ));
    }
    let what = match (memory.in_tool, computes) {
        (Some(_), true) => {
            format!("the agent is inside one tool call that computes: {}", memory.tool)
        }
        (Some(_), false) => format!("the agent is inside one tool call: {}", memory.tool),
        (None, true) => "the agent says nothing and computes".to_owned(),
        (None, false) => "the agent says nothing".to_owned(),
    };
    Some(verdict(Activity::Quiet, Status::True, "Quiet", what))
}

fn verdict(activity: Activity, healthy: Status, reason: &'static str, message: String) -> Verdict {
    Verdict { activity, healthy, reason, message, order: None, alarm: None }
}

/// Nudged once, then saved, then given up; each only in the silence that it is about.
fn wedged(now: Timestamp, facts: &Facts, memory: &Memory, stuck: SignedDuration) -> Verdict {
    let limits = &facts.thresholds;
    let since = memory.still();
    let due = since.checked_add(stuck).unwrap_or(now);
    let mut said = verdict(
        Activity::Wedged,
        Status::False,
        "Wedged",
        format!("the agent does nothing since {}", whole_seconds(since)),
    );
    let saved = memory.saved.as_ref().filter(|(t, _)| *t > since);
    if let Some((_, what)) = saved {
        said.reason = reason::RESTART_WANTED;
        said.message = format!(
            "pod {}: the agent does nothing since {}; its work is saved: {what}",
            facts.pod,
            whole_seconds(since)
        );
        return said;
    }
    if !facts.attached {
        said.message
            .push_str("; its pod cannot be told to save the work, so that it is not restarted");
        return said;
    }
    let nudged = memory.nudged.filter(|t| *t > since);
    let asked = memory.asked.filter(|(_, t)| *t > since);
    match (nudged, asked) {
        (None, _) => said.order = after(now, due, limits.nudge_after).then_some(Order::Nudge),
        (Some(nudged), None) => {
            said.order = after(now, nudged, limits.restart_after).then_some(Order::Checkpoint)
        }
        (Some(_), Some((_, asked))) => {
            said.order = after(now, asked, CHECKPOINT_AGAIN).then_some(Order::Checkpoint)
        }
    }
    if let Some((tries, why)) = &memory.failed {
        said.message =
            format!("{}; saving its work failed, so that it is not restarted: {why}", said.message);
        if *tries >= CHECKPOINTS {
            let summary = format!("its agent is wedged and its work cannot be saved: {why}");
            said.alarm = Some(Alarm { cause: Alarm::UNSAVED, severity: Severity::High, summary });
        }
    }
    said
}

/// A pod that is not heard: lost only when we are not the ones who are deaf.
fn lost(now: Timestamp, facts: &Facts) -> Option<Verdict> {
    let grace = facts.thresholds.grace.max(LOST_AFTER);
    let heard = facts.memory.map_or(facts.since, |m| m.heard.max(facts.since));
    let hearing = facts
        .others
        .is_some_and(|(last, since)| !after(now, last, LOST_AFTER) && after(now, since, grace));
    if !after(now, facts.judging, grace) || !after(now, heard, grace) {
        return None;
    }
    if !hearing {
        let message = "nobody is heard from, so that nothing can be said of this one".to_owned();
        return Some(verdict(Activity::Quiet, Status::Unknown, "NotHeard", message));
    }
    let summary =
        format!("its pod is not heard from since {}, though others are", whole_seconds(heard));
    let alarm = Alarm { cause: Alarm::LOST, severity: Severity::High, summary: summary.clone() };
    Some(Verdict {
        alarm: Some(alarm),
        ..verdict(Activity::Dead, Status::False, "NotHeard", summary)
    })
}
