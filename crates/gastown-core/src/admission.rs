//! Which Polecats get a rig's free slots. A Polecat holds a slot from the creation of its pod until
//! the pod is terminal.

use jiff::Timestamp;

/// A Polecat that wants a slot. Ordered by who comes first: priority, then age, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// 0 (first) to 4.
    pub priority: u8,
    /// When the Polecat was created; retries and reworks keep their place.
    pub created: Timestamp,
    /// `namespace/name`.
    pub key: String,
    /// The Polecat's uid.
    pub uid: String,
}

/// The answer to a Polecat that wants a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Decision {
    /// No slot was asked for.
    #[default]
    NotAsked,
    /// It has a slot.
    Granted,
    /// The rig has no free slot for it.
    AtCapacity {
        /// Slots that are held.
        used: usize,
        /// `settings.maxPolecats`.
        cap: usize,
        /// The place in the queue, from 1.
        position: usize,
    },
}

/// Answers one that `holds` a slot or waits for one. `used`: how many Polecats hold one, by a live pod
/// or by having been granted it; `ahead`: how many that hold none come before it. A lowered cap drains
/// no pod: it only leaves no room.
pub fn admit(cap: usize, used: usize, holds: bool, ahead: usize) -> Decision {
    let free = cap.saturating_sub(used);
    if holds || ahead < free {
        Decision::Granted
    } else {
        Decision::AtCapacity { used, cap, position: ahead + 1 - free }
    }
}

/// The position to show: a queue that moves up by one does not cost a write for everyone behind. A
/// position is shown anew when it grew or has halved, so a wait of any length costs about
/// log2(length) writes.
pub fn shown_position(shown: Option<usize>, actual: usize) -> usize {
    match shown {
        Some(old) if actual <= old && actual * 2 > old && actual > 1 => old,
        _ => actual,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn candidate(name: &str, priority: u8, age: i64) -> Candidate {
        Candidate {
            priority,
            created: Timestamp::from_second(1_000_000 - age).unwrap(),
            key: format!("ns/{name}"),
            uid: name.into(),
        }
    }

    #[test]
    fn free_slots_go_by_priority_then_age() {
        let waiting: BTreeSet<_> =
            [candidate("old", 2, 90), candidate("young", 2, 10), candidate("urgent", 0, 1)].into();
        let ask = |cap, name: &str| {
            let ahead = waiting.iter().take_while(|c| c.uid != name).count();
            admit(cap, 1, false, ahead)
        };
        assert_eq!(ask(2, "urgent"), Decision::Granted);
        assert_eq!(ask(2, "old"), Decision::AtCapacity { used: 1, cap: 2, position: 1 });
        assert_eq!(ask(2, "young"), Decision::AtCapacity { used: 1, cap: 2, position: 2 });
        assert_eq!(ask(3, "old"), Decision::Granted);
    }

    #[test]
    fn a_lowered_cap_admits_no_candidate_and_takes_no_slot_away() {
        let waits = admit(1, 3, false, 0);
        assert_eq!(waits, Decision::AtCapacity { used: 3, cap: 1, position: 1 });
        assert_eq!(admit(1, 3, true, 0), Decision::Granted);
    }

    #[test]
    fn a_moving_queue_writes_a_position_only_when_it_halved() {
        let mut shown = None;
        let mut writes = 0;
        for actual in (1..=1000).rev() {
            let now = shown_position(shown, actual);
            writes += usize::from(shown != Some(now));
            shown = Some(now);
        }
        assert!(writes <= 12, "{writes}");
        assert_eq!(shown, Some(1));
    }
}
