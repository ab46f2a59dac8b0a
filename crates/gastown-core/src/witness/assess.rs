//! The assessment of one polecat at work, and the next thing to try.

use gastown_api::conditions::{Status, whole_seconds};
use gastown_api::names::reason;
use gastown_api::{Activity, Severity};
use jiff::{SignedDuration, Timestamp};

use super::activity::{Command, PodActivity};

/// A tool call that uses no CPU, such as one that waits for a server, gets this many times the
/// threshold.
const TOOL_FACTOR: i32 = 4;
/// A checkpoint that has no result, or a failed one, is asked for again after this long.
const CHECKPOINT_RETRY: SignedDuration = SignedDuration::from_mins(2);
/// After this many failed checkpoints a person is needed.
const MAX_CHECKPOINTS: u32 = 3;
/// A pod that sends no heartbeat for this long is lost.
const LOST_AFTER: SignedDuration = SignedDuration::from_mins(2);

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// An agent without an event for this long is Quiet, or WaitingForHuman.
    pub quiet: SignedDuration,
    /// An agent without an event or use of CPU for this long is Wedged.
    pub stuck: SignedDuration,
    /// How long an agent is Wedged before it is nudged.
    pub nudge_after: SignedDuration,
    /// How long after a nudge without activity its work is saved, and its pod then restarted.
    pub restart_after: SignedDuration,
    /// How long nothing is assessed after this process started, or had heartbeats from nobody.
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

/// The latest span of time in which heartbeats, of any pod, arrived without a gap longer than the
/// grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatSpan {
    /// When its first heartbeat arrived.
    pub first: Timestamp,
    /// When its last heartbeat arrived.
    pub last: Timestamp,
}

/// Everything that decides about one polecat at work.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The uid of its pod; empty while the pod has not attached.
    pub pod: String,
    /// When its pod was first seen at work: it is not lost before it had time to send a heartbeat.
    pub since: Timestamp,
    /// What its pod has reported.
    pub activity: Option<PodActivity>,
    /// Its pod's stream is open.
    pub attached: bool,
    /// Since when this process assesses the polecats of the rig.
    pub assessing_since: Timestamp,
    /// The heartbeats of all pods.
    pub heartbeats: Option<HeartbeatSpan>,
    /// How long things may take.
    pub thresholds: Thresholds,
}

/// A problem that needs a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The last part of its Escalation's cause, one of [`Problem::REASONS`].
    pub reason: &'static str,
    /// How urgent it is.
    pub severity: Severity,
    /// One sentence whose subject is the polecat.
    pub summary: String,
}

impl Problem {
    /// The agent waits for a person.
    pub const WAITING: &'static str = "WaitingForHuman";
    /// The work of a wedged agent cannot be saved.
    pub const UNSAVED: &'static str = "CannotSave";
    /// A pod sends no heartbeats.
    pub const LOST: &'static str = "NotHeard";
    /// All reasons.
    pub const REASONS: [&'static str; 3] = [Self::WAITING, Self::UNSAVED, Self::LOST];
}

/// The state of one polecat's agent, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// What the agent is doing.
    pub activity: Activity,
    /// The status of condition Healthy.
    pub healthy: Status,
    /// The condition's reason.
    pub reason: &'static str,
    /// The condition's message; it stays the same while nothing changes.
    pub message: String,
    /// The command to send to its pod now.
    pub command: Option<Command>,
    /// The problem that needs a person.
    pub problem: Option<Problem>,
}

impl Assessment {
    fn new(activity: Activity, healthy: Status, reason: &'static str, message: String) -> Self {
        Self { activity, healthy, reason, message, command: None, problem: None }
    }

    fn with_problem(self, reason: &'static str, severity: Severity) -> Self {
        let summary = self.message.clone();
        Self { problem: Some(Problem { reason, severity, summary }), ..self }
    }
}

fn is_due(now: Timestamp, then: Timestamp, wait: SignedDuration) -> bool {
    now.duration_since(then) >= wait
}

/// Assesses a polecat. None while its state is not known; what was published before then stays.
pub fn assess(now: Timestamp, snapshot: &Snapshot) -> Option<Assessment> {
    let limits = &snapshot.thresholds;
    let reported = snapshot.activity.as_ref();
    let current =
        reported.filter(|a| snapshot.attached || !is_due(now, a.last_heartbeat, LOST_AFTER));
    let Some(activity) = current else { return lost(now, snapshot) };
    if activity.ended {
        let message = "the agent has ended; its work is being saved".to_owned();
        return Some(Assessment::new(Activity::Quiet, Status::True, reason::SAVING, message));
    }
    let idle = now.duration_since(activity.idle_since());
    let silent = now.duration_since(activity.last_active);
    let stuck = match activity.in_tool {
        Some(_) => limits.stuck.checked_mul(TOOL_FACTOR).unwrap_or(SignedDuration::MAX),
        None => limits.stuck,
    };
    if activity.waiting && silent >= limits.quiet {
        let message = "its agent has ended its turn and waits for a person".to_owned();
        let assessment =
            Assessment::new(Activity::WaitingForHuman, Status::False, "WaitingForHuman", message);
        return Some(assessment.with_problem(Problem::WAITING, Severity::Medium));
    }
    if idle >= stuck {
        return Some(wedged(now, snapshot, activity, stuck));
    }
    if silent < limits.quiet {
        let message = "the agent is making progress".to_owned();
        return Some(Assessment::new(Activity::Working, Status::True, reason::HEALTHY, message));
    }
    let computes = activity.last_busy.is_some_and(|t| !is_due(now, t, limits.quiet));
    let message = match (activity.in_tool, computes) {
        (Some(_), true) => {
            format!("the agent is inside one tool call that uses CPU: {}", activity.tool)
        }
        (Some(_), false) => format!("the agent is inside one tool call: {}", activity.tool),
        (None, true) => "the agent reports no events but uses CPU".to_owned(),
        (None, false) => "the agent reports no events".to_owned(),
    };
    Some(Assessment::new(Activity::Quiet, Status::True, "Quiet", message))
}

/// Nudge once, then save the work, then ask for a restart; what was done in an earlier silence does
/// not count.
fn wedged(
    now: Timestamp,
    snapshot: &Snapshot,
    activity: &PodActivity,
    stuck: SignedDuration,
) -> Assessment {
    let limits = &snapshot.thresholds;
    let since = activity.idle_since();
    let due = since.checked_add(stuck).unwrap_or(now);
    let message = format!("the agent has shown no activity since {}", whole_seconds(since));
    if let Some((_, saved)) = activity.saved.as_ref().filter(|(t, _)| *t > since) {
        let message = format!("pod {}: {message}; its work is saved: {saved}", snapshot.pod);
        let reason = reason::RESTART_WANTED;
        return Assessment::new(Activity::Wedged, Status::False, reason, message);
    }
    let mut assessment = Assessment::new(Activity::Wedged, Status::False, "Wedged", message);
    if !snapshot.attached {
        assessment.message.push_str(
            "; its pod is not connected and cannot be asked to save the work, so it is not \
             restarted",
        );
        return assessment;
    }
    let nudged = activity.nudged.filter(|t| *t > since);
    let checkpoint = activity.checkpoint.filter(|(_, t)| *t > since);
    assessment.command = match (nudged, checkpoint) {
        (None, _) => is_due(now, due, limits.nudge_after).then_some(Command::Nudge),
        (Some(nudged), None) => {
            is_due(now, nudged, limits.restart_after).then_some(Command::Checkpoint)
        }
        (Some(_), Some((_, sent))) => {
            is_due(now, sent, CHECKPOINT_RETRY).then_some(Command::Checkpoint)
        }
    };
    if let Some((failures, why)) = &activity.failed {
        assessment.message = format!(
            "{}; saving its work failed, so it is not restarted: {why}",
            assessment.message
        );
        if *failures >= MAX_CHECKPOINTS {
            assessment.problem = Some(Problem {
                reason: Problem::UNSAVED,
                severity: Severity::High,
                summary: format!("its agent is wedged and its work cannot be saved: {why}"),
            });
        }
    }
    assessment
}

/// A pod without heartbeats: lost only while other pods' heartbeats arrive, because otherwise this
/// process may be the one that is cut off.
fn lost(now: Timestamp, snapshot: &Snapshot) -> Option<Assessment> {
    let grace = snapshot.thresholds.grace.max(LOST_AFTER);
    let reported = snapshot.activity.as_ref().map(|a| a.last_heartbeat);
    let since = reported.map_or(snapshot.since, |t| t.max(snapshot.since));
    if !is_due(now, snapshot.assessing_since, grace) || !is_due(now, since, grace) {
        return None;
    }
    let others_arrive = snapshot
        .heartbeats
        .is_some_and(|span| !is_due(now, span.last, LOST_AFTER) && is_due(now, span.first, grace));
    if !others_arrive {
        let message = "no pod sends heartbeats, so the state of this one is unknown".to_owned();
        return Some(Assessment::new(Activity::Quiet, Status::Unknown, "NotHeard", message));
    }
    let message = format!(
        "its pod has sent no heartbeat since {}, while other pods send theirs",
        whole_seconds(since)
    );
    let assessment = Assessment::new(Activity::Dead, Status::False, "NotHeard", message);
    Some(assessment.with_problem(Problem::LOST, Severity::High))
}
