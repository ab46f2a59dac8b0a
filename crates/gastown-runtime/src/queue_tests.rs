//! The queue against random histories.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> impl Fn(Instant) -> Instant {
    move |start| start + Duration::from_secs(seconds)
}

fn mark(generation: i64) -> Mark {
    Mark { generation: Some(generation), ..Mark::default() }
}

#[test]
fn an_object_is_reconciled_once_for_all_changes_before_its_turn() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    for key in ["a", "b", "a", "a"] {
        queue.changed(&key, Mark::default, now);
    }
    assert_eq!([queue.take(now), queue.take(now), queue.take(now)], [Some("a"), Some("b"), None]);
    queue.changed(&"a", Mark::default, now);
    assert_eq!(queue.take(now), None, "it runs");
    queue.ended(&"a", Ended::Well(None), now);
    assert_eq!(queue.take(now), Some("a"), "the change came while it ran");
    queue.ended(&"a", Ended::Well(None), now);
    assert_eq!(queue.next(), None);
}

#[test]
fn a_wait_is_cut_short_by_a_change_and_a_back_off_only_by_one_of_the_object_itself() {
    let (mut queue, start) = (Queue::default(), Instant::now());
    let now = |seconds| at(seconds)(start);
    queue.changed(&"a", || mark(1), start);
    queue.take(start);
    queue.ended(&"a", Ended::Well(Some(Duration::from_secs(60))), start);
    queue.changed(&"a", || mark(1), now(1));
    assert_eq!(queue.take(now(1)), Some("a"));

    queue.ended(&"a", Ended::Failed(Duration::from_secs(60), Some(mark(1))), now(1));
    queue.changed(&"a", || mark(1), now(2));
    assert_eq!((queue.take(now(2)), queue.next()), (None, Some(now(61))));
    queue.changed(&"a", || mark(2), now(3));
    assert_eq!(queue.take(now(3)), Some("a"), "its spec has changed");
    assert_eq!(queue.failures(&"a"), 1);

    queue.ended(&"a", Ended::Failed(Duration::from_secs(60), None), now(3));
    queue.changed(&"a", || mark(2), now(4));
    assert_eq!(queue.take(now(4)), Some("a"), "what it waits for may have come");
    assert_eq!(queue.failures(&"a"), 2);
    queue.changed(&"a", || mark(2), now(5));
    queue.ended(&"a", Ended::Failed(Duration::from_secs(60), Some(mark(2))), now(5));
    assert_eq!(queue.next(), Some(now(65)), "a change while it ran does not cut it short either");
    queue.take(now(65));
    queue.changed(&"a", || mark(3), now(65));
    queue.ended(&"a", Ended::Failed(Duration::from_secs(60), Some(mark(2))), now(65));
    assert_eq!(queue.take(now(65)), Some("a"), "its spec was changed while it ran");
    queue.ended(&"a", Ended::Well(None), now(65));
    assert_eq!(queue.failures(&"a"), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Change { key: u8, generation: i64 },
    Take,
    End { nth: usize, ended: u8 },
    Forget { nth: usize },
    Pass { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u8, 0..3_i64).prop_map(|(key, generation)| Step::Change { key, generation }),
        4 => Just(Step::Take),
        4 => (any::<usize>(), 0..5_u8).prop_map(|(nth, ended)| Step::End { nth, ended }),
        1 => any::<usize>().prop_map(|nth| Step::Forget { nth }),
        2 => (0..40_u64).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// What must hold of one object.
#[derive(Default)]
struct Known {
    /// Changed, or to be looked at again, and not taken since: by this time at the latest.
    by: Option<Instant>,
    /// Not before this time, unless its generation becomes another one.
    held: Option<(Instant, i64)>,
    generation: i64,
    /// The generation when it was taken.
    taken: i64,
}

struct World {
    queue: Queue<u8>,
    now: Instant,
    known: HashMap<u8, Known>,
    running: Vec<u8>,
}

impl World {
    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Change { key, generation } => {
                let known = self.known.entry(key).or_default();
                known.generation = generation;
                known.held = known.held.filter(|(_, failed)| *failed == generation);
                let by = known.held.map_or(self.now, |(until, _)| until.max(self.now));
                known.by = Some(known.by.map_or(by, |before| before.min(by)));
                self.queue.changed(&key, || mark(generation), self.now);
            }
            Step::Take => {
                let before = self.queue.next();
                if let Some(key) = self.queue.take(self.now) {
                    prop_assert!(!self.running.contains(&key), "{key} runs already");
                    let known = self.known.entry(key).or_default();
                    prop_assert!(known.held.is_none_or(|(until, _)| until <= self.now));
                    (known.by, known.held, known.taken) = (None, None, known.generation);
                    self.running.push(key);
                } else {
                    prop_assert!(before.is_none_or(|at| at > self.now));
                }
            }
            Step::End { nth, ended } => {
                let Some(key) = pick(&mut self.running, nth) else { return Ok(()) };
                self.end(key, ended);
            }
            Step::Forget { nth } => {
                let Some(key) = pick(&mut self.running, nth) else { return Ok(()) };
                self.queue.forget(&key);
                self.known.remove(&key);
            }
            Step::Pass { seconds } => self.now += Duration::from_secs(seconds),
        }
        Ok(())
    }

    fn end(&mut self, key: u8, ended: u8) {
        let known = self.known.entry(key).or_default();
        let (after, now) = (Duration::from_secs(30), self.now);
        let failed = known.taken;
        let (ended, again, held) = match ended {
            0 => (Ended::Well(None), None, None),
            1 => (Ended::Well(Some(after)), Some(now + after), None),
            2 => (Ended::Failed(after, None), Some(now + after), None),
            _ => {
                let until = now + after;
                (Ended::Failed(after, Some(mark(failed))), Some(until), Some((until, failed)))
            }
        };
        self.queue.ended(&key, ended, now);
        known.held = held.filter(|(_, failed)| *failed == known.generation);
        let until = known.held.map(|(until, _)| until);
        let changed = known.by.map(|by| until.map_or(by, |until| by.max(until)));
        known.by = [changed, again].into_iter().flatten().min();
    }
}

fn pick(running: &mut Vec<u8>, nth: usize) -> Option<u8> {
    (!running.is_empty()).then(|| running.swap_remove(nth % running.len()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_change_is_lost_and_nothing_runs_twice_or_too_early(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World {
            queue: Queue::default(),
            now: Instant::now(),
            known: HashMap::new(),
            running: Vec::new(),
        };
        for step in &steps {
            world.run(step)?;
        }
        // Everything ends, and all that is wanted by now has its turn.
        for key in std::mem::take(&mut world.running) {
            world.end(key, 0);
        }
        world.now += Duration::from_secs(3600);
        let wanted: HashSet<u8> =
            world.known.iter().filter(|(_, k)| k.by.is_some()).map(|(key, _)| *key).collect();
        let mut taken = HashSet::new();
        while let Some(key) = world.queue.take(world.now) {
            prop_assert!(taken.insert(key), "{} is taken twice", key);
        }
        prop_assert_eq!(taken, wanted);
    }
}
