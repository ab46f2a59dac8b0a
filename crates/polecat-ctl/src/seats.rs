//! One admission at a time: who holds a slot of which rig, who has been promised one, who waits.

use std::collections::{BTreeSet, HashMap};

use gastown_core::admission::{Candidate, Slot, admit, shown_position};
use parking_lot::Mutex;

/// What one Polecat has to do with its rig's slots.
#[derive(Clone, Debug, Default)]
struct Seat {
    live: bool,
    promised: bool,
    waits: Option<Candidate>,
    shown: Option<usize>,
}

#[derive(Debug, Default)]
struct Rig {
    seats: HashMap<String, Seat>,
    cap: usize,
}

impl Rig {
    fn holders(&self) -> BTreeSet<String> {
        self.seats
            .iter()
            .filter(|(_, s)| s.live || s.promised)
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    fn waiting(&self) -> BTreeSet<Candidate> {
        self.seats
            .values()
            .filter(|s| !s.live && !s.promised)
            .filter_map(|s| s.waits.clone())
            .collect()
    }
}

/// All rigs.
#[derive(Debug, Default)]
pub struct Seats(Mutex<HashMap<String, Rig>>);

impl Seats {
    /// What a look at a Polecat showed. Takes back a promise that was not kept: only one look at a
    /// Polecat happens at a time. Returns the keys of those who may now get a slot that became
    /// free.
    pub fn observe(
        &self,
        rig: &str,
        uid: &str,
        live: bool,
        waits: Option<Candidate>,
    ) -> Vec<String> {
        let mut rigs = self.0.lock();
        let rig = rigs.entry(rig.to_owned()).or_default();
        let seat = rig.seats.entry(uid.to_owned()).or_default();
        let freed = (seat.live || seat.promised) && !live;
        if waits.is_none() {
            seat.shown = None;
        }
        (seat.live, seat.promised, seat.waits) = (live, false, waits);
        if !live && seat.waits.is_none() {
            rig.seats.remove(uid);
        }
        if freed { next(rig) } else { Vec::new() }
    }

    /// Asks for a slot. A granted one is promised until the next look.
    pub fn ask(&self, rig: &str, cap: usize, me: &Candidate) -> Slot {
        let mut rigs = self.0.lock();
        let rig = rigs.entry(rig.to_owned()).or_default();
        rig.cap = cap;
        let slot = admit(cap, &rig.holders(), &rig.waiting(), me);
        let seat = rig.seats.entry(me.uid.clone()).or_default();
        match slot {
            Slot::Granted => {
                seat.promised = true;
                seat.shown = None;
                Slot::Granted
            }
            Slot::AtCapacity { used, cap, position } => {
                let shown = shown_position(seat.shown, position);
                seat.shown = Some(shown);
                Slot::AtCapacity { used, cap, position: shown }
            }
            Slot::Unasked => Slot::Unasked,
        }
    }

    /// A Polecat is gone.
    pub fn forget(&self, rig: &str, uid: &str) -> Vec<String> {
        self.observe(rig, uid, false, None)
    }

    /// Forgets everything; the caller looks at every Polecat next.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

/// The first in the queue, as many as there are free slots.
fn next(rig: &Rig) -> Vec<String> {
    let free = rig.cap.saturating_sub(rig.holders().len());
    rig.waiting().into_iter().take(free).map(|c| c.key).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn candidate(name: &str, age: i64) -> Candidate {
        Candidate {
            priority: 2,
            created: Timestamp::from_second(1000 - age).unwrap(),
            key: format!("ns/{name}"),
            uid: name.into(),
        }
    }

    #[test]
    fn promises_count_until_the_next_look_and_a_freed_slot_wakes_the_first_in_line() {
        let seats = Seats::default();
        let (a, b, c) = (candidate("a", 3), candidate("b", 2), candidate("c", 1));
        for one in [&a, &b, &c] {
            seats.observe("web", &one.uid, false, Some(one.clone()));
        }
        assert_eq!(seats.ask("web", 1, &b), Slot::AtCapacity { used: 0, cap: 1, position: 1 });
        assert_eq!(seats.ask("web", 1, &a), Slot::Granted);
        assert_eq!(seats.ask("web", 1, &b), Slot::AtCapacity { used: 1, cap: 1, position: 1 });
        assert!(seats.observe("web", "a", true, None).is_empty());
        assert_eq!(seats.observe("web", "a", false, None), ["ns/b"]);
        assert_eq!(seats.ask("web", 1, &c), Slot::AtCapacity { used: 0, cap: 1, position: 1 });
    }

    #[test]
    fn a_broken_promise_is_taken_back() {
        let seats = Seats::default();
        let (a, b) = (candidate("a", 3), candidate("b", 2));
        seats.observe("web", "a", false, Some(a.clone()));
        seats.observe("web", "b", false, Some(b.clone()));
        assert_eq!(seats.ask("web", 1, &a), Slot::Granted);
        assert_eq!(seats.observe("web", "a", false, None), ["ns/b"]);
        assert_eq!(seats.ask("web", 1, &b), Slot::Granted);
    }
}
