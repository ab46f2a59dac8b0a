//! Two machines that want one bead, in a world that does anything to both.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::fixtures::with_bead;
use super::machine::{Desk, Event, World, events};
use super::*;

/// What happens to which of the two, and whether its cache shows the claim by then.
type Happening = (usize, bool, Event);

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    prop::collection::vec((0usize..2, prop::bool::weighted(0.3), events()), 0..160)
}

fn rivals() -> (Rc<RefCell<Desk>>, [World; 2]) {
    let desk = Rc::<RefCell<Desk>>::default();
    let world = |uid: &str| {
        World::of(
            Snapshot { uid: uid.into(), name: uid.into(), bead_store: true, ..with_bead("web-1") },
            desk.clone(),
        )
    };
    let worlds = [world("first"), world("second")];
    (desk, worlds)
}

/// Lets it all happen; afterwards everything works, and both come to rest. Starts of two at once
/// are refused by the worlds.
fn live(happenings: &[Happening]) -> (Rc<RefCell<Desk>>, [World; 2]) {
    let (desk, mut worlds) = rivals();
    for (which, blind, event) in happenings {
        let world = &mut worlds[*which];
        if world.exists {
            world.blind = *blind;
            world.happen(*event);
        }
        assert!(desk.borrow().working.len() <= 1, "two polecats at work on one bead");
    }
    // what one gives back is the other's to take
    for _ in 0..3 {
        worlds.iter_mut().filter(|w| w.exists).for_each(World::settles);
    }
    (desk, worlds)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_polecats_on_one_bead_never_both_work_and_who_waits_goes_on_when_the_other_goes(happenings in happenings()) {
        let (desk, mut worlds) = live(&happenings);
        let waiting = |w: &World| w.exists && matches!(w.s.claim, ClaimFacts::HeldBy { .. }) && w.s.desired == Desired::Working;
        prop_assert!(!worlds.iter().all(waiting), "nobody waits for one who waits");
        for i in 0..2 {
            if !waiting(&worlds[i]) { continue; }
            prop_assert!(worlds[1 - i].exists, "nobody waits for one who is gone");
            worlds[1 - i].s.deleting = true;
            worlds[1 - i].settles();
            prop_assert!(!worlds[1 - i].exists);
            // comes to rest with the claim, finished or stuck
            worlds[i].settles();
            prop_assert!(!waiting(&worlds[i]));
        }
        prop_assert!(desk.borrow().working.is_empty());
        for world in worlds.iter_mut().filter(|w| w.exists) {
            world.s.deleting = true;
            world.settles();
        }
        let left = desk.borrow().holder.clone();
        prop_assert!(left.is_none() || !desk.borrow().there.contains(left.as_deref().unwrap_or_default()), "deleted, and its claim with it");
    }
}

#[test]
fn the_rivals_of_chance_live_through_everything() {
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
        "Start",
        "rework",
        "Submit",
        "Drain Unhealthy",
        "Drain Deleted",
        "Some(Stuck)",
    ];
    let missing: Vec<_> = wanted.iter().filter(|w| !seen.contains(**w)).collect();
    assert!(missing.is_empty(), "never happened: {missing:?} in {seen:?}");
}

#[test]
#[should_panic(expected = "two polecats at work on one bead")]
fn the_world_refuses_a_second_polecat_at_work() {
    let (desk, [mut first, mut second]) = rivals();
    for _ in 0..4 {
        first.reconcile(usize::MAX, true);
    }
    assert!(first.live().is_some(), "it claims and starts");
    // a forged claim
    desk.borrow_mut().holder = Some("second".into());
    for _ in 0..4 {
        second.reconcile(usize::MAX, true);
    }
}
