//! The rules in simulated worlds where anything may happen: pods end in every way, the controller
//! is killed between actions, people change the spec, requests come back, and only the ledger is
//! kept.

mod events;
mod execute;
mod remote;
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
        "delete, grace None",
        "delete, grace Some(0)",
        "delete, grace Some(60)",
        "DrainPod Deadline",
        "DrainPod SpecChanged",
        "DrainPod StartTimeout",
        "a pod waits for the remote",
        "lost, reported",
        "lost, unknown",
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

/// A controller that believes drained pods to be saved after a time loses work in some world: the
/// invariants would see it.
#[test]
fn the_worlds_find_a_controller_that_deletes_unsaved_work() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let loses = (0..2000).any(|_| {
        let events = prop::collection::vec(events(), 80).new_tree(&mut runner).unwrap().current();
        let lived = std::panic::catch_unwind(|| {
            let mut world = World::new(None);
            world.reckless = true;
            for event in events {
                world.happen(event);
                if !world.exists {
                    break;
                }
            }
        });
        let stated = lived.err().and_then(|e| e.downcast_ref::<&str>().map(ToString::to_string));
        stated.is_some_and(|text| text.contains("work that is nowhere else"))
    });
    assert!(loses, "no world has a pod with unsaved work");
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
            restore: false,
            saved: Vec::new(),
            begin: Begin::default(),
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
#[should_panic(expected = "a pod with work that is nowhere else is never deleted")]
fn the_world_refuses_to_delete_a_pod_with_unsaved_work() {
    let mut world = World::new(None);
    for _ in 0..3 {
        world.reconcile(usize::MAX, true);
    }
    world.happen(Event::AgentStarts);
    world.happen(Event::Commits);
    let (pod, uid) = (world.s.pods[0].name.clone(), world.s.pods[0].uid.clone());
    world.execute(&Action::DeletePod { pod, uid, grace: Some(60) }, true);
}

#[test]
#[should_panic(expected = "a pod with work is drained, never deleted")]
fn the_world_refuses_to_delete_a_working_pod() {
    forged(|world| Action::DeletePod {
        pod: world.s.pods[0].name.clone(),
        uid: world.s.pods[0].uid.clone(),
        grace: None,
    });
}
