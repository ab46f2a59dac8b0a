//! What freed each polecat that was started, and how long it took to start it. Pure.
//!
//! A change is started when the changes that it depends on have landed and a slot is free;
//! whichever came last freed it. Slots are handed on in the order in which they became free.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// An event, and when it was seen since the observer began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A Polecat's pod was created; it takes a slot.
    Started {
        /// The Polecat's bead.
        bead: String,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// A Polecat's pod ended; its slot is free.
    Ended,
    /// The agent of an attempt has ended; its pod may still save the work.
    Exited {
        /// The Polecat's bead.
        bead: String,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// The Polecat shows that its work is done.
    Done {
        /// The Polecat's bead.
        bead: String,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// A bead's work is on the target branch.
    Landed {
        /// The bead.
        bead: String,
    },
}

/// How long starts took after what freed them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// After a landing, when a slot was free before.
    pub landing_to_start: Vec<Duration>,
    /// After the end of another pod, when all landings came before.
    pub end_to_start: Vec<Duration>,
    /// From the end of each agent whose work is done to its Polecat's phase Done.
    pub exit_to_done: Vec<Duration>,
}

/// Pairs first attempts with what freed them. `slots` are free at first; `waits` has the beads that
/// each bead waits for. A start that nothing freed, and one that was seen before the event that
/// freed it, belong to no pair.
pub fn pair(mut events: Vec<Event>, slots: usize, waits: &BTreeMap<String, Vec<String>>) -> Freed {
    events.sort_by_key(|e| e.at);
    let mut free: VecDeque<Duration> = std::iter::repeat_n(Duration::ZERO, slots).collect();
    // Starts that were seen before the ends that made room for them.
    let mut owed = 0_usize;
    let mut landed: BTreeMap<&str, Duration> = BTreeMap::new();
    let mut freed = Freed::default();
    let mut exits: BTreeMap<(&str, u32), Duration> = BTreeMap::new();
    for Event { at, what } in &events {
        match what {
            What::Landed { bead } => drop(landed.entry(bead).or_insert(*at)),
            What::Exited { bead, attempt } => drop(exits.insert((bead, *attempt), *at)),
            What::Done { bead, attempt } => {
                if let Some(exit) = exits.remove(&(bead.as_str(), *attempt)) {
                    freed.exit_to_done.push(at.saturating_sub(exit));
                }
            }
            What::Ended if owed > 0 => owed -= 1,
            What::Ended => free.push_back(*at),
            What::Started { bead, attempt } => {
                let Some(slot) = free.pop_front() else {
                    owed += 1;
                    continue;
                };
                let on = waits.get(bead).map(Vec::as_slice).unwrap_or_default();
                let landings: Option<Vec<Duration>> =
                    on.iter().map(|on| landed.get(on.as_str()).copied()).collect();
                // Without one of them it is unknown what freed it.
                let Some(landings) = landings.filter(|_| *attempt == 1) else { continue };
                match landings.into_iter().max().filter(|landing| *landing >= slot) {
                    Some(landing) => freed.landing_to_start.push(at.saturating_sub(landing)),
                    None if slot.is_zero() => {}
                    None => freed.end_to_start.push(at.saturating_sub(slot)),
                }
            }
        }
    }
    freed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64, what: What) -> Event {
        Event { at: Duration::from_millis(ms), what }
    }

    fn started(ms: u64, bead: &str) -> Event {
        at(ms, What::Started { bead: bead.to_owned(), attempt: 1 })
    }

    fn landed(ms: u64, bead: &str) -> Event {
        at(ms, What::Landed { bead: bead.to_owned() })
    }

    fn ended(ms: u64) -> Event {
        at(ms, What::Ended)
    }

    fn paired(events: Vec<Event>, slots: usize) -> (Vec<u128>, Vec<u128>) {
        let waits = BTreeMap::from([("c".to_owned(), vec!["a".to_owned(), "b".to_owned()])]);
        let Freed { landing_to_start, end_to_start, .. } = pair(events, slots, &waits);
        let ms = |all: Vec<Duration>| all.iter().map(Duration::as_millis).collect();
        (ms(landing_to_start), ms(end_to_start))
    }

    #[test]
    fn an_agent_s_exit_belongs_to_the_done_of_its_attempt() {
        let bead = || "a".to_owned();
        let events = vec![
            at(10, What::Exited { bead: bead(), attempt: 1 }),
            at(20, What::Exited { bead: bead(), attempt: 2 }),
            at(25, What::Done { bead: bead(), attempt: 2 }),
            at(30, What::Done { bead: bead(), attempt: 2 }),
        ];
        let Freed { exit_to_done, .. } = pair(events, 1, &BTreeMap::new());
        assert_eq!(exit_to_done, [Duration::from_millis(5)]);
    }

    #[test]
    fn the_last_landing_that_a_change_waited_for_freed_it() {
        let events = vec![
            started(1, "a"),
            started(2, "b"),
            ended(50),
            ended(60),
            landed(100, "b"),
            landed(200, "a"),
            started(230, "c"),
        ];
        assert_eq!(paired(events, 2), (vec![30], vec![]));
    }

    #[test]
    fn a_change_that_was_ready_is_freed_by_the_end_of_a_pod() {
        let events = vec![
            started(1, "a"),
            started(2, "b"),
            ended(50),
            started(57, "x"),
            ended(60),
            started(69, "y"),
        ];
        assert_eq!(paired(events, 2), (vec![], vec![7, 9]));
        let late = vec![
            started(1, "a"),
            started(2, "b"),
            landed(10, "a"),
            landed(20, "b"),
            ended(50),
            started(54, "c"),
        ];
        assert_eq!(paired(late, 2), (vec![], vec![4]), "the landings were long before the slot");
    }

    #[test]
    fn what_is_started_at_first_and_what_is_tried_again_is_freed_by_nothing() {
        let again = at(90, What::Started { bead: "a".to_owned(), attempt: 2 });
        let events = vec![started(1, "a"), started(2, "b"), ended(50), again, started(99, "x")];
        assert_eq!(
            paired(events, 2),
            (vec![], vec![]),
            "the second attempt took the slot, and it is unknown whose slot x has"
        );
    }

    #[test]
    fn events_may_come_out_of_order_and_an_end_may_be_seen_after_the_start_that_it_freed() {
        let events =
            vec![ended(20), started(1, "a"), started(19, "x"), ended(30), started(34, "y")];
        assert_eq!(paired(events, 1), (vec![], vec![4]));
    }

    #[test]
    fn a_landing_that_was_not_seen_makes_no_pair() {
        let events = vec![started(1, "a"), landed(5, "a"), started(9, "c")];
        assert_eq!(paired(events, 2), (vec![], vec![]));
    }
}
