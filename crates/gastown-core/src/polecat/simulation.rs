//! The rules in simulated worlds where anything may happen: pods end in every way, the controller
//! is killed between actions, people change the spec, requests come back, and only the ledger is
//! kept.

mod events;
mod execute;
mod rivals;
mod world;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::fixtures::{self, UID};
use super::*;
use events::{Event, events};
use world::World;

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_work_is_lost_or_repeated_and_it_ends(
        ttl in prop::option::weighted(0.3, prop::sample::select(vec![0, 60, 1_000_000])),
        events in prop::collection::vec(events(), 0..120),
    ) {
        let mut world = World::new(ttl);
        for event in events {
            world.happen(event);
            if !world.exists { break; }
        }
        if world.exists {
            world.settle();
        }
    }

    #[test]
    fn a_ledger_that_can_be_read_survives_a_round_trip(text in ".{0,200}", json in "\\{(\"[a-z]{1,8}\":([0-9]{1,30}|\"x\"|\\[\\]|\\{\\})(,)?){0,6}\\}") {
        for text in [text, json] {
            if let Ok(ledger) = Ledger::parse(&text) {
                prop_assert_eq!(Ledger::parse(&ledger.render()).unwrap(), ledger);
            }
        }
    }

    #[test]
    fn a_pods_name_contains_its_attempt(name in "[a-z][a-z0-9-]{0,50}[a-z0-9]", attempt in 1u32..100_000) {
        let pod = pod_name(&name, UID, attempt);
        prop_assert!(pod.len() <= 8 + 52 + 7 + 5);
        prop_assert_eq!(attempt_of(&pod, &name, UID), Some(attempt));
    }
}

/// The invariants above are worth something only if the simulated worlds come to every action and
/// outcome.
#[test]
fn the_simulated_worlds_come_to_every_action_and_outcome() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for i in 0..3000 {
        let mut world = World::new((i % 4 == 0).then_some(60));
        let events = prop::collection::vec(events(), 60).new_tree(&mut runner).unwrap().current();
        for event in events {
            world.happen(event);
            if !world.exists {
                break;
            }
        }
        if world.exists {
            world.settle();
        }
        seen.extend(world.seen);
    }
    let wanted = [
        "StartPod",
        "rework",
        "DrainPod Terminated",
        "DrainPod Unhealthy",
        "RemovePodFinalizer",
        "Submit",
        "DeletePolecat",
        "delete, force true",
        "delete, force false",
        "Some(Done)",
        "Some(Stuck)",
        "Some(Waits)",
        "Some(Drained)",
        "Some(Retries)",
        "Some(Later)",
    ];
    let missing: Vec<_> = wanted.iter().filter(|w| !seen.contains(**w)).collect();
    assert!(missing.is_empty(), "never happened: {missing:?} in {seen:?}");
}

/// A world with one working pod, and one action that no plan may contain.
fn forged(action: impl FnOnce(&World) -> Action) {
    let mut world = World::new(None);
    for _ in 0..3 {
        world.reconcile(usize::MAX, true);
    }
    world.happen(Event::AgentStarts);
    let action = action(&world);
    world.execute(&action, true);
}

#[test]
#[should_panic(expected = "two live pods")]
fn the_world_refuses_a_second_pod() {
    forged(|world| {
        let (ledger, spec) = (Ledger::default(), fixtures::valid("make it so"));
        let name = pod_name("toast", UID, ledger.next_attempt());
        Action::StartPod(Box::new(PodInputs {
            name,
            attempt: 1,
            resume: false,
            rework: None,
            before: None,
            spec: world.s.spec.clone().unwrap_or(spec),
        }))
    });
}

#[test]
#[should_panic(expected = "a live pod keeps its finalizer")]
fn the_world_refuses_to_remove_the_finalizer_of_a_working_pod() {
    forged(|world| Action::RemovePodFinalizer {
        pod: world.s.pods[0].name.clone(),
        uid: world.s.pods[0].uid.clone(),
    });
}

#[test]
#[should_panic(expected = "a pod with work is drained, never deleted")]
fn the_world_refuses_to_delete_a_working_pod() {
    forged(|world| Action::DeletePod {
        pod: world.s.pods[0].name.clone(),
        uid: world.s.pods[0].uid.clone(),
        force: false,
    });
}
