//! Who gets a rig's free slots. A Polecat holds a slot from the creation of its pod until the pod
//! is terminal.

use std::collections::BTreeSet;

use jiff::Timestamp;

/// Somebody who wants a slot. Ordered by who comes first: priority, then age, then name.
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

/// What admission answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Slot {
    /// It was not asked.
    #[default]
    Unasked,
    /// There is a slot.
    Granted,
    /// There is none.
    AtCapacity {
        /// Slots that are held.
        used: usize,
        /// `settings.maxPolecats`.
        cap: usize,
        /// The place in the queue, from 1.
        position: usize,
    },
}

/// Answers `me`, which is among `waiting`. `holders` are the uids of Polecats with a live pod or a
/// promised one. A lowered cap drains nobody: it only leaves no room.
pub fn admit(
    cap: usize,
    holders: &BTreeSet<String>,
    waiting: &BTreeSet<Candidate>,
    me: &Candidate,
) -> Slot {
    if holders.contains(&me.uid) {
        return Slot::Granted;
    }
    let position = waiting.iter().filter(|c| *c < me && !holders.contains(&c.uid)).count() + 1;
    let free = cap.saturating_sub(holders.len());
    if position <= free {
        Slot::Granted
    } else {
        Slot::AtCapacity { used: holders.len(), cap, position: position - free }
    }
}

/// The position that is shown: a queue that moves up by one does not rewrite everyone behind it. A
/// place is shown anew when it grew or has halved, so a wait of any length costs about log2(length)
/// writes.
pub fn shown_position(shown: Option<usize>, actual: usize) -> usize {
    match shown {
        Some(old) if actual <= old && actual * 2 > old && actual > 1 => old,
        _ => actual,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, priority: u8, age: i64) -> Candidate {
        Candidate {
            priority,
            created: Timestamp::from_second(1_000_000 - age).unwrap(),
            key: format!("ns/{name}"),
            uid: name.into(),
        }
    }

    fn uids(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn free_slots_go_by_priority_then_age() {
        let waiting: BTreeSet<_> =
            [candidate("old", 2, 90), candidate("young", 2, 10), candidate("urgent", 0, 1)].into();
        let ask = |cap, name: &str| {
            admit(cap, &uids(&["busy"]), &waiting, waiting.iter().find(|c| c.uid == name).unwrap())
        };
        assert_eq!(ask(2, "urgent"), Slot::Granted);
        assert_eq!(ask(2, "old"), Slot::AtCapacity { used: 1, cap: 2, position: 1 });
        assert_eq!(ask(2, "young"), Slot::AtCapacity { used: 1, cap: 2, position: 2 });
        assert_eq!(ask(3, "old"), Slot::Granted);
    }

    #[test]
    fn a_lowered_cap_admits_nobody_and_takes_nothing_from_holders() {
        let me = candidate("me", 0, 1);
        let waiting = BTreeSet::from([me.clone()]);
        let holders = uids(&["a", "b", "c"]);
        assert_eq!(
            admit(1, &holders, &waiting, &me),
            Slot::AtCapacity { used: 3, cap: 1, position: 1 }
        );
        assert_eq!(admit(1, &holders, &waiting, &candidate("a", 4, 0)), Slot::Granted);
    }

    #[test]
    fn a_moving_queue_rewrites_a_place_only_when_it_halved() {
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
