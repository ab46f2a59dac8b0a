use std::collections::BTreeSet;

use super::decide::{Feed, Gate, Look, named};
use super::facts::{BeadFact, End, Policy, Store};
use super::graph::Graph;

/// What the status says of a convoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The convoy as a whole.
    pub phase: Phase,
    /// Each bead once, in the spec's order.
    pub lines: Vec<Line>,
    /// Beads that count, in the spec's order.
    pub completed: Vec<String>,
    /// Beads that do not.
    pub pending: Vec<String>,
    /// Beads that are set aside; they are pending too.
    pub failed: Vec<String>,
    /// Ready.
    pub ready: Said,
    /// Complete.
    pub complete: Said,
    /// Progressing.
    pub progressing: Said,
    /// Degraded.
    pub degraded: Said,
    /// Valid, of a convoy that starts Polecats.
    pub valid: Option<Said>,
}

/// A convoy as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Some beads do not count.
    InProgress,
    /// All beads count.
    Complete,
    /// Nothing can move.
    Failed,
}

/// Where one bead is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its id.
    pub id: String,
    /// Where it is.
    pub phase: BeadPhase,
    /// The Polecat that tells.
    pub polecat: Option<String>,
    /// The MergeRequest that tells.
    pub request: Option<String>,
    /// Why; may be empty.
    pub reason: String,
}

/// Where a bead is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeadPhase {
    /// Nobody could tell.
    Unknown,
    /// Nobody works on it, and the convoy does not start it as it is.
    Open,
    /// It waits for other beads.
    Blocked,
    /// Nothing blocks it.
    Ready,
    /// A Polecat has it.
    Working,
    /// Its work is finished and has not landed.
    Submitted,
    /// It counts.
    Done,
    /// It is set aside.
    Failed,
}

/// A condition: whether it holds (nothing: nobody can tell), why, and one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Whether it holds.
    pub holds: Option<bool>,
    /// `PascalCase`.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

impl Said {
    fn new(holds: impl Into<Option<bool>>, reason: &str, message: impl Into<String>) -> Self {
        Self { holds: holds.into(), reason: reason.to_owned(), message: message.into() }
    }
}

impl Verdict {
    /// Something of it is under way.
    pub fn moves(&self) -> bool {
        self.lines
            .iter()
            .any(|line| matches!(line.phase, BeadPhase::Working | BeadPhase::Submitted))
    }

    /// How it ended, if it did, in words.
    pub fn end(&self) -> Option<(End, String)> {
        match self.phase {
            Phase::InProgress => None,
            Phase::Complete => Some((End::Complete, self.complete.message.clone())),
            Phase::Failed => Some((End::Failed, self.complete.message.clone())),
        }
    }

    /// `done/total`.
    pub fn progress(&self) -> String {
        format!("{}/{}", self.completed.len(), self.lines.len())
    }
}

/// What there is to say. `gate` is why nothing is started, `feed` what is.
pub(super) fn judge(
    look: &Look<'_>,
    lines: Vec<Line>,
    gate: Option<Gate>,
    feed: &[Feed],
) -> Verdict {
    let of = |phase: &dyn Fn(BeadPhase) -> bool| -> Vec<String> {
        lines.iter().filter(|line| phase(line.phase)).map(|line| line.id.clone()).collect()
    };
    let (completed, pending) =
        (of(&|phase| phase == BeadPhase::Done), of(&|phase| phase != BeadPhase::Done));
    let failed = of(&|phase| phase == BeadPhase::Failed);
    let phase = if pending.is_empty() && !lines.is_empty() {
        Phase::Complete
    } else if feed.is_empty() && is_over(look, &lines, &failed) {
        Phase::Failed
    } else {
        Phase::InProgress
    };
    let count = format!("{} of {} beads are done", completed.len(), lines.len());
    let complete = match phase {
        Phase::Complete => {
            Said::new(true, "Complete", format!("all {} beads are done", lines.len()))
        }
        Phase::Failed => Said::new(
            false,
            "Failed",
            format!("{count}; nothing can move: {} failed", named(&failed)),
        ),
        Phase::InProgress => Said::new(false, "InProgress", count.clone()),
    };
    let degraded = if failed.is_empty() {
        Said::new(false, "Healthy", "no bead is set aside")
    } else {
        let why: Vec<String> = lines
            .iter()
            .filter(|line| line.phase == BeadPhase::Failed)
            .map(|line| format!("{} ({})", line.id, line.reason))
            .collect();
        Said::new(true, "BeadsFailed", format!("set aside: {}", named(&why)))
    };
    Verdict {
        phase,
        ready: ready(look, phase, count),
        progressing: progressing(look, phase, &lines, gate, feed),
        valid: look.s.dispatch.then(|| valid(look)),
        lines,
        completed,
        pending,
        failed,
        complete,
        degraded,
    }
}

/// Whether nothing can move although not everything is done: each bead that is left failed, waits
/// for one that did, or is not to be started after a failure.
fn is_over(look: &Look<'_>, lines: &[Line], failed: &[String]) -> bool {
    let s = look.s;
    let Some(beads) =
        look.store().filter(|_| s.dispatch && !s.suspended && !s.deleting && !failed.is_empty())
    else {
        return false;
    };
    if look.invalid().is_some() {
        return false;
    }
    let failed: BTreeSet<String> = failed.iter().cloned().collect();
    let graph = Graph::new(beads, &look.over);
    lines.iter().all(|line| match line.phase {
        BeadPhase::Done | BeadPhase::Failed => true,
        BeadPhase::Working | BeadPhase::Submitted | BeadPhase::Unknown => false,
        BeadPhase::Blocked => s.policy == Policy::Stop || graph.depends_on(&line.id, &failed),
        BeadPhase::Open | BeadPhase::Ready => s.policy == Policy::Stop,
    })
}

fn ready(look: &Look<'_>, phase: Phase, count: String) -> Said {
    if phase == Phase::Complete {
        return Said::new(true, "Synced", count);
    }
    if let Store::Unavailable(why) = &look.s.store {
        return Said::new(false, "BeadStoreUnavailable", why.clone());
    }
    match look.invalid().filter(|_| look.s.dispatch) {
        Some((reason, message)) => Said::new(false, reason, message),
        None => Said::new(true, "Synced", count),
    }
}

fn progressing(
    look: &Look<'_>,
    phase: Phase,
    lines: &[Line],
    gate: Option<Gate>,
    feed: &[Feed],
) -> Said {
    let count = |phase: BeadPhase| lines.iter().filter(|line| line.phase == phase).count();
    let (working, submitted) =
        (count(BeadPhase::Working) + feed.len(), count(BeadPhase::Submitted));
    let waiting = count(BeadPhase::Ready).saturating_sub(feed.len());
    let moves = working + submitted > 0;
    match phase {
        Phase::Complete => return Said::new(false, "Complete", "nothing is left to do"),
        Phase::Failed => return Said::new(false, "Failed", "nothing can move any more"),
        Phase::InProgress => {}
    }
    if let Store::Unavailable(why) = &look.s.store {
        return Said::new(moves, "BeadStoreUnavailable", why.clone());
    }
    if let Some((reason, message)) = gate {
        return Said::new(moves || !look.s.dispatch, reason, message);
    }
    let (own, rigs) = look.room();
    if waiting > 0 && rigs <= own {
        let (name, most) = look.rig().map_or(("", 0), |rig| (rig.name.as_str(), rig.most));
        return Said::new(
            moves,
            "AtCapacity",
            format!("{waiting} ready beads wait for one of the {most} polecats of rig {name}"),
        );
    }
    if waiting > 0 {
        let most = look.s.parallelism.unwrap_or_default();
        return Said::new(
            moves,
            "ParallelismReached",
            format!("{waiting} ready beads wait: spec.parallelism is {most}"),
        );
    }
    if working > 0 {
        return Said::new(
            true,
            "Working",
            format!("{working} beads are worked on, {submitted} wait to land"),
        );
    }
    if submitted > 0 {
        return Said::new(true, "WaitingForLanding", format!("{submitted} beads wait to land"));
    }
    let held: Vec<String> = lines
        .iter()
        .filter(|line| {
            matches!(line.phase, BeadPhase::Open | BeadPhase::Blocked | BeadPhase::Unknown)
        })
        .map(|line| format!("{} ({})", line.id, line.reason))
        .collect();
    Said::new(false, "WaitingForBeads", format!("nothing can be started yet: {}", named(&held)))
}

fn valid(look: &Look<'_>) -> Said {
    match look.invalid() {
        Some((reason @ "BeadStoreUnavailable", message)) => {
            return Said::new(None, reason, message);
        }
        Some((reason, message)) => return Said::new(false, reason, message),
        None => {}
    }
    let s = look.s;
    let nobodys = |id: &&str| !s.polecats.contains_key(*id) && !s.requests.contains_key(*id);
    let is_closed =
        |id: &&str| look.store().and_then(|beads| beads.get(*id)).is_some_and(BeadFact::is_closed);
    let closed: Vec<&str> =
        look.tracked.iter().copied().filter(is_closed).filter(nobodys).collect();
    if closed.is_empty() {
        Said::new(true, "Valid", "the beads can be done in the order of their dependencies")
    } else {
        let message = format!(
            "closed in the store: {}; closed beads count as done, nothing is started for them",
            named(&closed)
        );
        Said::new(true, "ClosedBeads", message)
    }
}
