//! What the status of a Rig shows: its conditions and its counts.

use gastown_api::conditions::Draft;
use gastown_api::names::{condition, reason};
use gastown_api::{PolecatCounts, PolecatPhase};

use super::decide::{ChildPlan, Plan};
use super::facts::{Child, PolecatFact, Readiness, Snapshot};

/// How many names a message lists.
const MAX_NAMES: usize = 5;

/// The conditions of a Rig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// `Ready`: the children that the Rig needs are ready.
    pub ready: Draft,
    /// `Available`: new work may start.
    pub available: Draft,
    /// `Progressing`: a child is being created or deleted, or is not ready yet.
    pub progressing: Draft,
    /// `Degraded`: a child does not work or cannot be created.
    pub degraded: Draft,
}

impl Assessment {
    /// The four conditions.
    pub fn drafts(&self) -> [Draft; 4] {
        [&self.ready, &self.available, &self.progressing, &self.degraded].map(Clone::clone)
    }
}

/// Why a Rig is not ready: a reason and a message.
enum NotReady {
    /// The controllers need more time.
    Pending(&'static str, String),
    /// A person has to act.
    Broken(&'static str, String),
}

/// The conditions after the plan was carried out. `refused` is the API server's message when it
/// refused a write of the plan.
pub fn assess(rig: &Snapshot, plan: &Plan, refused: Option<&str>) -> Assessment {
    let not_ready = match plan {
        Plan::AwaitPolecats { polecats } => NotReady::Pending(
            reason::WAITING_FOR_POLECATS,
            format!("deletion waits for {}", list_names(polecats)),
        ),
        Plan::DeleteChildren { .. } | Plan::RemoveFinalizer | Plan::Nothing => NotReady::Pending(
            reason::DELETING,
            "the children that this rig created are being deleted".to_owned(),
        ),
        Plan::AddFinalizer => NotReady::Pending(
            reason::REFINERY_NOT_READY,
            "no child has been created yet".to_owned(),
        ),
        Plan::Keep { refinery, witness, beads } => {
            match ready_children(rig, [refinery, witness, beads], refused) {
                Ok(message) => return assess_ready(rig, message),
                Err(not_ready) => not_ready,
            }
        }
    };
    assess_not_ready(not_ready)
}

fn assess_ready(rig: &Snapshot, message: String) -> Assessment {
    let degraded = Draft::new(condition::DEGRADED, false, reason::HEALTHY, "");
    if rig.suspended {
        let suspended = "spec.suspend is true: no new work starts, running work finishes";
        let draft = |kind| Draft::new(kind, false, reason::RIG_SUSPENDED, suspended);
        return Assessment {
            ready: Draft::new(
                condition::READY,
                true,
                reason::READY,
                format!("{message}; {suspended}"),
            ),
            available: draft(condition::AVAILABLE),
            progressing: draft(condition::PROGRESSING),
            degraded,
        };
    }
    Assessment {
        ready: Draft::new(condition::READY, true, reason::READY, message.clone()),
        available: Draft::new(condition::AVAILABLE, true, reason::READY, message),
        progressing: Draft::new(condition::PROGRESSING, false, reason::READY, ""),
        degraded,
    }
}

fn assess_not_ready(not_ready: NotReady) -> Assessment {
    let (is_broken, why, message) = match not_ready {
        NotReady::Pending(why, message) => (false, why, message),
        NotReady::Broken(why, message) => (true, why, message),
    };
    let draft = |kind, holds| Draft::new(kind, holds, why, message.clone());
    Assessment {
        ready: draft(condition::READY, false),
        available: draft(condition::AVAILABLE, false),
        progressing: draft(condition::PROGRESSING, !is_broken),
        degraded: if is_broken {
            draft(condition::DEGRADED, true)
        } else {
            Draft::new(condition::DEGRADED, false, reason::HEALTHY, "")
        },
    }
}

/// The Refinery, the Witness and the BeadStore that are used, as a sentence, when all are ready. A
/// Witness that reports problems of Polecats works: those are shown by it and by the Polecats.
fn ready_children(
    rig: &Snapshot,
    [refinery, witness, beads]: [&ChildPlan; 3],
    refused: Option<&str>,
) -> Result<String, NotReady> {
    let failed = |message: String| NotReady::Broken(reason::CHILD_CREATION_FAILED, message);
    if let Some(message) = refused {
        return Err(failed(message.to_owned()));
    }
    for (kind, child) in [("Refinery", refinery), ("Witness", witness), ("BeadStore", beads)] {
        if let ChildPlan::Blocked { message } = child {
            return Err(failed(format!("{kind} {message}")));
        }
    }
    let refinery = ready_child("Refinery", reason::REFINERY_NOT_READY, refinery, &rig.refineries)?;
    let witness = ready_child("Witness", reason::WITNESS_NOT_READY, witness, &rig.witnesses)?;
    if matches!(beads, ChildPlan::Withdraw { .. }) {
        return Ok(format!("{refinery}, {witness}"));
    }
    let beads = ready_child("BeadStore", reason::BEAD_STORE_NOT_READY, beads, &rig.bead_stores)?;
    Ok(format!("{refinery}, {witness}, {beads}"))
}

/// The child that is used, as a sentence, when it is ready.
fn ready_child(
    kind: &str,
    not_ready: &'static str,
    plan: &ChildPlan,
    children: &[Child],
) -> Result<String, NotReady> {
    let (ChildPlan::Use { child: used, .. } | ChildPlan::Apply { present: Some(used) }) = plan
    else {
        return Err(NotReady::Pending(not_ready, format!("the {kind} is being created")));
    };
    let readiness =
        children.iter().find(|child| child.reference == *used).map(|child| &child.readiness);
    match readiness {
        Some(Readiness::Ready) => Ok(format!("{kind} {used} is ready")),
        Some(Readiness::NotReady { reason, .. }) if reason == reason::ISSUES_DETECTED => {
            Ok(format!("{kind} {used} is ready"))
        }
        Some(Readiness::NotReady { reason, message }) => {
            Err(NotReady::Broken(not_ready, format!("{kind} {used}: {reason}: {message}")))
        }
        Some(Readiness::Unknown) | None => Err(NotReady::Pending(
            not_ready,
            format!("{kind} {used} has not reported whether it is ready"),
        )),
    }
}

/// The Rig's Polecats by phase. Idle ones that are wanted to work are queued; terminated ones,
/// and those whose phase is of a later version, are in no count.
pub fn count(polecats: &[PolecatFact]) -> PolecatCounts {
    let mut counts = PolecatCounts::default();
    for polecat in polecats {
        match polecat.phase {
            PolecatPhase::Idle if polecat.wanted => counts.queued += 1,
            PolecatPhase::Idle => counts.idle += 1,
            PolecatPhase::Working => counts.working += 1,
            PolecatPhase::Done => counts.done += 1,
            PolecatPhase::Stuck => counts.stuck += 1,
            PolecatPhase::Terminated | PolecatPhase::Unknown => {}
        }
    }
    counts
}

/// `7 polecats: a, b, c, d, e, …`, with at most five names.
fn list_names(polecats: &[String]) -> String {
    let names = polecats.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if polecats.len() > MAX_NAMES { ", …" } else { "" };
    let plural = if polecats.len() == 1 { "" } else { "s" };
    format!("{} polecat{plural}: {names}{more}", polecats.len())
}
