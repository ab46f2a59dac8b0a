//! Two Polecats with one bead, where anything may happen to both.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use gastown_api::DesiredState;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::events::{Event, events};
use super::world::{SharedBead, World};
use crate::polecat::fixtures::with_bead;
use crate::polecat::{ClaimFacts, Snapshot};

/// An event, which of the two it happens to, and whether its cache is stale by then.
type Happening = (usize, bool, Event);

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    prop::collection::vec((0usize..2, prop::bool::weighted(0.3), events()), 0..160)
}

fn rivals() -> (Rc<RefCell<SharedBead>>, [World; 2]) {
    let bead = Rc::<RefCell<SharedBead>>::default();
    let world = |uid: &str| {
        World::of(
            Snapshot { uid: uid.into(), name: uid.into(), bead_store: true, ..with_bead("web-1") },
            bead.clone(),
        )
    };
    let worlds = [world("first"), world("second")];
    (bead, worlds)
}

/// Lets it all happen; afterwards everything works, and both settle. The worlds refuse two working
/// pods at once.
fn live(happenings: &[Happening]) -> (Rc<RefCell<SharedBead>>, [World; 2]) {
    let (bead, mut worlds) = rivals();
    for (which, stale, event) in happenings {
        let world = &mut worlds[*which];
        if world.exists {
            world.stale = *stale;
            world.happen(*event);
        }
        assert!(bead.borrow().working.len() <= 1, "two polecats work on one bead");
    }
    // the other one may take what one releases
    for _ in 0..3 {
        worlds.iter_mut().filter(|w| w.exists).for_each(World::settle);
    }
    (bead, worlds)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_polecats_of_one_bead_never_both_work_and_one_continues_when_the_other_is_deleted(happenings in happenings()) {
        let (bead, mut worlds) = live(&happenings);
        let waiting = |w: &World| w.exists && matches!(w.s.claim, ClaimFacts::HeldBy { .. }) && w.s.desired == DesiredState::Working;
        prop_assert!(!worlds.iter().all(waiting), "nobody waits for one that waits");
        for i in 0..2 {
            if !waiting(&worlds[i]) { continue; }
            prop_assert!(worlds[1 - i].exists, "nobody waits for one that is gone");
            worlds[1 - i].s.deleting = true;
            worlds[1 - i].settle();
            prop_assert!(!worlds[1 - i].exists);
            // it settles with the claim, finished or stuck
            worlds[i].settle();
            prop_assert!(!waiting(&worlds[i]));
        }
        prop_assert!(bead.borrow().working.is_empty());
        for world in worlds.iter_mut().filter(|w| w.exists) {
            world.s.deleting = true;
            world.settle();
        }
        let left = bead.borrow().holder.clone();
        prop_assert!(left.is_none() || !bead.borrow().existing.contains(left.as_deref().unwrap_or_default()), "deleted, and its claim with it");
    }
}

#[test]
fn the_simulated_rivals_come_to_every_action_and_outcome() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..1000 {
        let happenings = happenings().new_tree(&mut runner).unwrap().current();
        let (_, worlds) = live(&happenings);
        seen.extend(worlds.into_iter().flat_map(|w| w.seen));
    }
    let wanted = [
        "Claim",
        "ReleaseClaim",
        "Comment",
        "StartPod",
        "rework",
        "Submit",
        "DrainPod Unhealthy",
        "DrainPod Deleted",
        "Some(Stuck)",
    ];
    let missing: Vec<_> = wanted.iter().filter(|w| !seen.contains(**w)).collect();
    assert!(missing.is_empty(), "never happened: {missing:?} in {seen:?}");
}

#[test]
#[should_panic(expected = "two polecats work on one bead")]
fn the_world_refuses_a_second_working_polecat() {
    let (bead, [mut first, mut second]) = rivals();
    for _ in 0..4 {
        first.reconcile(usize::MAX, true);
    }
    assert!(first.live().is_some(), "it claims and starts");
    // a forged claim
    bead.borrow_mut().holder = Some("second".into());
    for _ in 0..4 {
        second.reconcile(usize::MAX, true);
    }
}
