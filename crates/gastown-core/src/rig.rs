//! What a Rig needs: its Refinery and Witness, its counts, its orderly end.
//!
//! A Refinery that a person wrote for the rig's target branch is used as it is, wherever it lives;
//! one of ours beside it withdraws. The same for the Witness. Deletion waits while a polecat has a
//! pod; it asks nothing of the polecats themselves: they finish, or somebody sets them to
//! Terminated or deletes them.

use jiff::Timestamp;

/// How many names a message lists.
const NAMED: usize = 5;

/// Namespace and name of an object, and its uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChildRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl std::fmt::Display for ChildRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Refinery or a Witness that names this rig.
#[derive(Clone, Debug)]
pub struct Child {
    /// Which one.
    pub reference: ChildRef,
    /// Made by this very rig: its owner reference has the rig's uid.
    pub ours: bool,
    /// It serves what the rig's own would: for a Refinery, the same target branch.
    pub same_duty: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// It is in the middle of something that would have to begin again elsewhere.
    pub busy: bool,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// What its own controller says of it as it is now.
    pub readiness: Readiness,
}

/// What a child's condition `Ready` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Its controller has not looked at this generation yet.
    Unknown,
    /// True.
    Ready,
    /// False.
    NotReady {
        /// The condition's reason.
        reason: String,
        /// The condition's message.
        message: String,
    },
}

/// What of a Polecat its rig needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolecatFact {
    /// Namespace and name.
    pub name: String,
    /// What it is.
    pub phase: Phase,
    /// `spec.desiredState` is Working.
    pub wanted: bool,
    /// It has a slot, or a pod: work of it may be in progress whatever its phase says.
    pub holds_slot: bool,
}

/// A Polecat's phase; without one it is Idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Without a pod.
    Idle,
    /// With a pod at work.
    Working,
    /// Finished.
    Done,
    /// Stopped, needing somebody.
    Stuck,
    /// Stopped because that was wanted.
    Terminated,
}

/// Everything that decides about one rig.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The rig's name.
    pub name: String,
    /// Where its own children go.
    pub namespace: String,
    /// It is being deleted.
    pub deleting: bool,
    /// It has our finalizer.
    pub finalizer: bool,
    /// `spec.suspend`.
    pub suspended: bool,
    /// Refineries that name it, or have the name that its own would have.
    pub refineries: Vec<Child>,
    /// The same of Witnesses.
    pub witnesses: Vec<Child>,
    /// The same of BeadStores.
    pub bead_stores: Vec<Child>,
    /// It wants a BeadStore of its own: `spec.beads`.
    pub wants_beads: bool,
    /// Polecats that name it.
    pub polecats: Vec<PolecatFact>,
}

/// What to do about one kind of child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildPlan {
    /// Somebody wrote one: use it, and take ours (if any) away.
    Use {
        /// The one that serves.
        child: ChildRef,
        /// Ours, which serves no longer.
        withdraw: Vec<ChildRef>,
    },
    /// Apply ours; `present` is what there is of it.
    Apply {
        /// The one to be changed, if it changes.
        present: Option<ChildRef>,
    },
    /// None is wanted: take ours away.
    Withdraw {
        /// Ours.
        ours: Vec<ChildRef>,
    },
    /// Ours is being deleted: it comes back when it has gone.
    AwaitDeletion,
    /// The name of ours is taken by something else.
    Blocked {
        /// By what.
        message: String,
    },
}

/// What to do about a rig.
#[derive(Clone, Debug, PartialEq, Eq)]
// One lives at a time, for one reconcile.
#[allow(clippy::large_enum_variant)]
pub enum Plan {
    /// Take the finalizer first: nothing is made that could be left behind.
    AddFinalizer,
    /// Have the children.
    Keep {
        /// The Refinery.
        refinery: ChildPlan,
        /// The Witness.
        witness: ChildPlan,
        /// The BeadStore.
        beads: ChildPlan,
    },
    /// It is being deleted, and polecats are still at work.
    AwaitPolecats {
        /// Namespaces and names.
        polecats: Vec<String>,
    },
    /// It is being deleted: take away the children that it made.
    DeleteChildren {
        /// Refineries.
        refineries: Vec<ChildRef>,
        /// Witnesses.
        witnesses: Vec<ChildRef>,
        /// BeadStores.
        bead_stores: Vec<ChildRef>,
    },
    /// Nothing of it is left: let it go.
    RemoveFinalizer,
    /// It is being deleted, and others have finalizers on it.
    Nothing,
}

/// How many polecats are in which phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub total: usize,
    /// Idle because that is wanted.
    pub idle: usize,
    /// Wanted to work, and without a pod.
    pub queued: usize,
    /// With a pod.
    pub working: usize,
    /// Finished.
    pub done: usize,
    /// Stopped, needing somebody.
    pub stuck: usize,
}

/// What to do about the rig now.
pub fn decide(rig: &Snapshot) -> Plan {
    match (rig.deleting, rig.finalizer) {
        (true, true) => end(rig),
        (true, false) => Plan::Nothing,
        (false, false) => Plan::AddFinalizer,
        (false, true) => Plan::Keep {
            refinery: child(&rig.refineries, &rig.namespace, &format!("{}-refinery", rig.name)),
            witness: child(&rig.witnesses, &rig.namespace, &format!("{}-witness", rig.name)),
            beads: if rig.wants_beads {
                child(&rig.bead_stores, &rig.namespace, &format!("{}-beads", rig.name))
            } else {
                ChildPlan::Withdraw { ours: ours(&rig.bead_stores) }
            },
        },
    }
}

fn end(rig: &Snapshot) -> Plan {
    let mut polecats: Vec<_> = rig
        .polecats
        .iter()
        .filter(|polecat| at_work(polecat))
        .map(|polecat| polecat.name.clone())
        .collect();
    if !polecats.is_empty() {
        polecats.sort();
        return Plan::AwaitPolecats { polecats };
    }
    let (refineries, witnesses, bead_stores) =
        (ours(&rig.refineries), ours(&rig.witnesses), ours(&rig.bead_stores));
    if refineries.is_empty() && witnesses.is_empty() && bead_stores.is_empty() {
        return Plan::RemoveFinalizer;
    }
    Plan::DeleteChildren { refineries, witnesses, bead_stores }
}

/// Those that the rig made.
fn ours(children: &[Child]) -> Vec<ChildRef> {
    children.iter().filter(|child| child.ours).map(|child| child.reference.clone()).collect()
}

/// A polecat whose pod may be writing. One that only waits for a slot loses nothing when its rig
/// goes.
fn at_work(polecat: &PolecatFact) -> bool {
    match polecat.phase {
        Phase::Working => true,
        Phase::Idle => polecat.holds_slot,
        Phase::Done | Phase::Stuck | Phase::Terminated => false,
    }
}

fn child(children: &[Child], namespace: &str, name: &str) -> ChildPlan {
    let ours = children.iter().find(|child| child.ours);
    // The oldest serves where there are several; uids settle a draw.
    let foreign = children.iter().filter(|child| !child.ours && !child.deleting && child.same_duty);
    let foreign = foreign.min_by_key(|child| (child.created, &child.reference.uid));
    if let Some(foreign) = foreign {
        let withdraw = children.iter().filter(|child| child.ours && !child.deleting && !child.busy);
        return ChildPlan::Use {
            child: foreign.reference.clone(),
            withdraw: withdraw.map(|child| child.reference.clone()).collect(),
        };
    }
    match ours {
        Some(ours) if ours.deleting => ChildPlan::AwaitDeletion,
        Some(ours) => ChildPlan::Apply { present: Some(ours.reference.clone()) },
        None => {
            let taken = children.iter().find(|child| {
                child.reference.namespace == namespace && child.reference.name == name
            });
            match taken {
                Some(taken) if taken.deleting => ChildPlan::AwaitDeletion,
                Some(taken) => ChildPlan::Blocked {
                    message: format!(
                        "{} is another rig's or serves another branch: rename it, or write one for this rig",
                        taken.reference
                    ),
                },
                None => ChildPlan::Apply { present: None },
            }
        }
    }
}

/// The counts of a rig.
pub fn count(polecats: &[PolecatFact]) -> Counts {
    let mut counts = Counts { total: polecats.len(), ..Counts::default() };
    for polecat in polecats {
        match polecat.phase {
            Phase::Idle if polecat.wanted => counts.queued += 1,
            Phase::Idle => counts.idle += 1,
            Phase::Working => counts.working += 1,
            Phase::Done => counts.done += 1,
            Phase::Stuck => counts.stuck += 1,
            Phase::Terminated => {}
        }
    }
    counts
}

/// `3 polecats: a, b, c`, with at most five names.
pub fn name_some(polecats: &[String]) -> String {
    let names = polecats.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if polecats.len() > NAMED { ", …" } else { "" };
    let plural = if polecats.len() == 1 { "" } else { "s" };
    format!("{} polecat{plural}: {names}{more}", polecats.len())
}

/// The four conditions of a rig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The children are ready, or why not.
    pub ready: (bool, &'static str, String),
    /// New work may start.
    pub available: (bool, &'static str, String),
    /// Something of it is being made or ended.
    pub progressing: (bool, &'static str, String),
    /// Something of it does not work.
    pub degraded: (bool, &'static str, String),
}

/// What became of the plan.
#[derive(Clone, Copy, Debug)]
pub enum Acted<'a> {
    /// It was carried out.
    Done,
    /// The API server refused a child.
    Refused(&'a str),
}

/// What to say of the rig, after the plan.
pub fn judge(rig: &Snapshot, plan: &Plan, result: Acted<'_>) -> Verdict {
    let ended = |reason: &'static str, message: String| Verdict {
        ready: (false, reason, message.clone()),
        available: (false, reason, message.clone()),
        progressing: (true, reason, message),
        degraded: (false, "Healthy", String::new()),
    };
    match plan {
        Plan::AwaitPolecats { polecats } => {
            return ended(
                "WaitingForPolecats",
                format!("deletion waits for {}", name_some(polecats)),
            );
        }
        Plan::DeleteChildren { .. } | Plan::RemoveFinalizer | Plan::Nothing => {
            return ended(
                "Deleting",
                "the children that this rig made are being deleted".to_owned(),
            );
        }
        Plan::AddFinalizer | Plan::Keep { .. } => {}
    }
    match trouble(rig, plan, result) {
        Ok(serving) => fine(rig, serving),
        Err(Trouble::Waits(reason, message)) => Verdict {
            ready: (false, reason, message.clone()),
            available: (false, reason, message.clone()),
            progressing: (true, reason, message),
            degraded: (false, "Healthy", String::new()),
        },
        Err(Trouble::Broken(reason, message)) => Verdict {
            ready: (false, reason, message.clone()),
            available: (false, reason, message.clone()),
            progressing: (false, reason, message.clone()),
            degraded: (true, reason, message),
        },
    }
}

const REFINERY_NOT_READY: &str = "RefineryNotReady";
const BEAD_STORE_NOT_READY: &str = "BeadStoreNotReady";

enum Trouble {
    Waits(&'static str, String),
    Broken(&'static str, String),
}

fn fine(rig: &Snapshot, serving: String) -> Verdict {
    let parked = "parked (spec.suspend): nothing new starts, running work finishes".to_owned();
    let healthy = (false, "Healthy", String::new());
    if rig.suspended {
        return Verdict {
            ready: (true, "Ready", format!("{serving}; {parked}")),
            available: (false, "RigSuspended", parked.clone()),
            progressing: (false, "RigSuspended", parked),
            degraded: healthy,
        };
    }
    Verdict {
        ready: (true, "Ready", serving.clone()),
        available: (true, "Ready", serving),
        progressing: (false, "Ready", String::new()),
        degraded: healthy,
    }
}

/// The Refinery and the BeadStore that serve, in a sentence, or what is wrong. The Witness is made,
/// but not waited for: no controller looks at it yet.
fn trouble(rig: &Snapshot, plan: &Plan, result: Acted<'_>) -> Result<String, Trouble> {
    let Plan::Keep { refinery, witness, beads } = plan else {
        return Err(Trouble::Waits(REFINERY_NOT_READY, "nothing is made yet".to_owned()));
    };
    if let Acted::Refused(message) = result {
        return Err(Trouble::Broken("ChildCreationFailed", message.to_owned()));
    }
    for (kind, child) in [("Refinery", refinery), ("Witness", witness), ("BeadStore", beads)] {
        if let ChildPlan::Blocked { message } = child {
            return Err(Trouble::Broken("ChildCreationFailed", format!("{kind} {message}")));
        }
    }
    let mut serving = serves("Refinery", REFINERY_NOT_READY, refinery, &rig.refineries)?;
    if !matches!(beads, ChildPlan::Withdraw { .. }) {
        serving = format!(
            "{serving}, {}",
            serves("BeadStore", BEAD_STORE_NOT_READY, beads, &rig.bead_stores)?
        );
    }
    Ok(serving)
}

/// The child that serves, in a sentence, or why none does.
fn serves(
    kind: &str,
    not_ready: &'static str,
    plan: &ChildPlan,
    children: &[Child],
) -> Result<String, Trouble> {
    let (ChildPlan::Use { child: serving, .. } | ChildPlan::Apply { present: Some(serving) }) =
        plan
    else {
        return Err(Trouble::Waits(not_ready, format!("the {kind} is being made")));
    };
    let readiness =
        children.iter().find(|child| child.reference == *serving).map(|child| &child.readiness);
    match readiness {
        Some(Readiness::Ready) => Ok(format!("{kind} {serving} is ready")),
        Some(Readiness::NotReady { reason, message }) => {
            Err(Trouble::Broken(not_ready, format!("{kind} {serving}: {reason}: {message}")))
        }
        Some(Readiness::Unknown) | None => {
            Err(Trouble::Waits(not_ready, format!("{kind} {serving} has not been looked at yet")))
        }
    }
}

#[cfg(test)]
#[path = "rig_tests.rs"]
mod tests;
