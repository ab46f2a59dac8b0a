//! How many objects are in each of some groups, and since when the first one is: kept while the objects
//! change, so that a look costs what the groups are, not what the objects are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

#[derive(Debug)]
struct Entries<K> {
    of: HashMap<Arc<str>, (K, Timestamp)>,
    groups: BTreeMap<K, BTreeSet<(Timestamp, Arc<str>)>>,
}

/// Objects by their uid, each in one group or in none. Clones share.
#[derive(Clone, Debug)]
pub struct Tally<K>(Arc<Mutex<Entries<K>>>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Entries { of: HashMap::new(), groups: BTreeMap::new() })))
    }
}

/// A group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// How many objects are in it.
    pub count: usize,
    /// Since when the one is that is in it longest.
    pub oldest: Timestamp,
}

impl<K: Ord + Clone> Tally<K> {
    /// The object is in this group now, since that time where it was not in it before.
    pub fn set(&self, uid: &str, group: K, since: Timestamp) {
        let mut entries = self.0.lock();
        if entries.of.get(uid).is_some_and(|(present, _)| *present == group) {
            return;
        }
        entries.remove(uid);
        let uid: Arc<str> = uid.into();
        entries.of.insert(uid.clone(), (group.clone(), since));
        entries.groups.entry(group).or_default().insert((since, uid));
    }

    /// The object is in no group any more.
    pub fn remove(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// Removes the groups that are not kept, with their objects.
    pub fn retain(&self, keep: impl Fn(&K) -> bool) {
        let mut entries = self.0.lock();
        let gone: Vec<K> = entries.groups.keys().filter(|group| !keep(group)).cloned().collect();
        for group in gone {
            for (_, uid) in entries.groups.remove(&group).unwrap_or_default() {
                entries.of.remove(&uid);
            }
        }
    }

    /// The groups that have an object.
    pub fn groups(&self) -> Vec<(K, Group)> {
        let entries = self.0.lock();
        let group = |(key, all): (&K, &BTreeSet<(Timestamp, Arc<str>)>)| {
            let (oldest, _) = all.first()?;
            Some((key.clone(), Group { count: all.len(), oldest: *oldest }))
        };
        entries.groups.iter().filter_map(group).collect()
    }
}

impl<K: Ord + Clone> Entries<K> {
    fn remove(&mut self, uid: &str) {
        let Some((uid, (group, since))) = self.of.remove_entry(uid) else { return };
        if let Some(all) = self.groups.get_mut(&group) {
            all.remove(&(since, uid));
            if all.is_empty() {
                self.groups.remove(&group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_object_is_in_one_group_since_it_came_to_it() {
        let tally = Tally::default();
        tally.set("a", "waits", at(5));
        tally.set("b", "waits", at(3));
        tally.set("b", "waits", at(9));
        assert_eq!(tally.groups(), [("waits", Group { count: 2, oldest: at(3) })]);
        tally.set("b", "works", at(10));
        tally.remove("c");
        let (waits, works) =
            (Group { count: 1, oldest: at(5) }, Group { count: 1, oldest: at(10) });
        assert_eq!(tally.groups(), [("waits", waits), ("works", works)]);
        tally.retain(|group| *group == "works");
        tally.set("a", "works", at(1));
        assert_eq!(tally.groups(), [("works", Group { count: 2, oldest: at(1) })]);
    }

    proptest! {
        #[test]
        fn groups_are_those_of_a_recount(
            steps in proptest::collection::vec((0_u8..6, proptest::option::of(0_u8..3), 0_i64..9), 0..60),
        ) {
            let (tally, mut plain) = (Tally::default(), BTreeMap::<u8, (u8, i64)>::new());
            for (who, group, since) in steps {
                if let Some(group) = group {
                    tally.set(&who.to_string(), group, at(since));
                    let entry = plain.entry(who).or_insert((group, since));
                    if entry.0 != group {
                        *entry = (group, since);
                    }
                } else {
                    tally.remove(&who.to_string());
                    plain.remove(&who);
                }
                let mut counted = BTreeMap::<u8, Group>::new();
                for (group, since) in plain.values() {
                    let counts = counted.entry(*group).or_insert(Group { count: 0, oldest: at(*since) });
                    counts.count += 1;
                    counts.oldest = counts.oldest.min(at(*since));
                }
                prop_assert_eq!(tally.groups(), counted.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
