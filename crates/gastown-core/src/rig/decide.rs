//! The rules of a Rig: which children it creates, uses and deletes, and what its deletion waits for.

use gastown_api::PolecatPhase;

use super::facts::{Child, ChildRef, PolecatFact, Snapshot};

/// What to do about a Rig.
#[derive(Clone, Debug, PartialEq, Eq)]
// One lives at a time, for one reconcile.
#[allow(clippy::large_enum_variant)]
pub enum Plan {
    /// Add the finalizer first, so that no child is created that could be left behind.
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
    /// The Rig is being deleted, and these Polecats are still at work.
    AwaitPolecats {
        /// As `namespace/name`, sorted.
        polecats: Vec<String>,
    },
    /// The Rig is being deleted: delete the children that it created.
    DeleteChildren {
        /// Refineries.
        refineries: Vec<ChildRef>,
        /// Witnesses.
        witnesses: Vec<ChildRef>,
        /// BeadStores.
        bead_stores: Vec<ChildRef>,
    },
    /// The Rig is being deleted and no child of it is left.
    RemoveFinalizer,
    /// The Rig is being deleted; only finalizers of others hold it.
    Nothing,
}

/// What to do about one kind of child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildPlan {
    /// A user created one: use it, and delete the Rig's own.
    Use {
        /// The object that is used.
        child: ChildRef,
        /// The Rig's own objects to be deleted, if any.
        withdraw: Vec<ChildRef>,
    },
    /// Apply the Rig's own.
    Apply {
        /// The object as it is; none when it is to be created.
        present: Option<ChildRef>,
    },
    /// The Rig wants none: delete its own.
    Withdraw {
        /// The Rig's own objects, if any.
        ours: Vec<ChildRef>,
    },
    /// The Rig's own is being deleted, and is created again when it has gone.
    AwaitDeletion,
    /// Another object has the name of the Rig's own.
    Blocked {
        /// Which object, and what to do about it.
        message: String,
    },
}

/// What to do about the Rig now.
pub fn decide(rig: &Snapshot) -> Plan {
    match (rig.deleting, rig.finalizer) {
        (true, true) => decide_deletion(rig),
        (true, false) => Plan::Nothing,
        (false, false) => Plan::AddFinalizer,
        (false, true) => Plan::Keep {
            refinery: decide_child(rig, &rig.refineries, "refinery"),
            witness: decide_child(rig, &rig.witnesses, "witness"),
            beads: if rig.wants_beads {
                decide_child(rig, &rig.bead_stores, "beads")
            } else {
                ChildPlan::Withdraw { ours: ours(&rig.bead_stores) }
            },
        },
    }
}

fn decide_deletion(rig: &Snapshot) -> Plan {
    let at_work = rig.polecats.iter().filter(|polecat| is_at_work(polecat));
    let mut polecats: Vec<_> = at_work.map(|polecat| polecat.name.clone()).collect();
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

/// Whether the Polecat's pod may be writing. One that only waits for a slot loses nothing when its
/// Rig goes.
fn is_at_work(polecat: &PolecatFact) -> bool {
    match polecat.phase {
        // What a later version calls its state may be work.
        PolecatPhase::Working | PolecatPhase::Unknown => true,
        PolecatPhase::Idle => polecat.holds_slot,
        PolecatPhase::Done | PolecatPhase::Stuck | PolecatPhase::Terminated => false,
    }
}

/// The children that the Rig created.
fn ours(children: &[Child]) -> Vec<ChildRef> {
    children.iter().filter(|child| child.ours).map(|child| child.reference.clone()).collect()
}

/// What to do about one kind of child; the Rig's own is named `<rig>-<suffix>`.
fn decide_child(rig: &Snapshot, children: &[Child], suffix: &str) -> ChildPlan {
    // The most senior one is used where users created several.
    let of_users =
        children.iter().filter(|child| !child.ours && !child.deleting && child.same_duty);
    if let Some(used) = of_users.min_by_key(|child| &child.seniority) {
        let withdraw = children.iter().filter(|child| child.ours && !child.deleting && !child.busy);
        return ChildPlan::Use {
            child: used.reference.clone(),
            withdraw: withdraw.map(|child| child.reference.clone()).collect(),
        };
    }
    if let Some(ours) = children.iter().find(|child| child.ours) {
        return if ours.deleting {
            ChildPlan::AwaitDeletion
        } else {
            ChildPlan::Apply { present: Some(ours.reference.clone()) }
        };
    }
    let name = format!("{}-{suffix}", rig.name);
    let has_our_name =
        |child: &&Child| child.reference.namespace == rig.namespace && child.reference.name == name;
    match children.iter().find(has_our_name) {
        Some(taken) if taken.deleting => ChildPlan::AwaitDeletion,
        Some(taken) => ChildPlan::Blocked {
            message: format!(
                "{} belongs to another rig or serves another branch: rename it, or create one for this rig",
                taken.reference
            ),
        },
        None => ChildPlan::Apply { present: None },
    }
}
