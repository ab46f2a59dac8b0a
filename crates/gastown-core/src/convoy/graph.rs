//! What holds a bead: its blockers, its parents' blockers, the store's own word; and cycles among
//! them.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::BeadFact;

/// Why a bead cannot be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nothing holds it.
    Free,
    /// These beads come first.
    Beads(Vec<String>),
    /// The store says that it is blocked, by something that only the store sees.
    Store,
}

/// The beads of a store, and which of them are over although the store may not say so yet.
pub struct Graph<'a> {
    beads: &'a BTreeMap<String, BeadFact>,
    over: &'a BTreeSet<String>,
}

impl<'a> Graph<'a> {
    /// `over`: beads that count.
    pub fn new(beads: &'a BTreeMap<String, BeadFact>, over: &'a BTreeSet<String>) -> Self {
        Self { beads, over }
    }

    /// Whether this bead blocks nothing. One that the store does not hold does not block either: it
    /// is another store's.
    fn is_over(&self, id: &str) -> bool {
        self.over.contains(id) || self.beads.get(id).is_none_or(BeadFact::blocks_nothing)
    }

    /// The beads that must be over before this one: its blockers, and those of its parents.
    fn blockers(&self, id: &str) -> Vec<&'a str> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::from([id]);
        let mut line = vec![id];
        while let Some(next) = line.pop() {
            for dependency in self.beads.get(next).map_or(&[][..], |bead| &bead.dependencies) {
                let on = dependency.on.as_str();
                if dependency.blocks() && !self.is_over(on) && !found.contains(&on) {
                    found.push(on);
                } else if dependency.is_parent() && self.beads.contains_key(on) && seen.insert(on) {
                    line.push(on);
                }
            }
        }
        found
    }

    /// Whether a blocker of it, or of a parent, counts while the store still has it open: then the
    /// store's `blocked` is old.
    fn waits_for_the_store(&self, id: &str) -> bool {
        let mut seen = BTreeSet::from([id]);
        let mut line = vec![id];
        let mut late = false;
        while let Some(next) = line.pop() {
            for dependency in self.beads.get(next).map_or(&[][..], |bead| &bead.dependencies) {
                let on = dependency.on.as_str();
                // Only the store knows the children that such an edge waits for.
                if dependency.kind == "waits-for" {
                    return false;
                }
                let Some(other) = self.beads.get(on) else { continue };
                late |= dependency.blocks() && self.over.contains(on) && !other.blocks_nothing();
                if dependency.is_parent() && seen.insert(on) {
                    line.push(on);
                }
            }
        }
        late
    }

    /// What holds this bead.
    pub fn hold(&self, id: &str) -> Hold {
        let blockers = self.blockers(id);
        if !blockers.is_empty() {
            return Hold::Beads(blockers.into_iter().map(ToOwned::to_owned).collect());
        }
        let blocked = self.beads.get(id).is_some_and(|bead| bead.blocked);
        if blocked && !self.waits_for_the_store(id) { Hold::Store } else { Hold::Free }
    }

    /// A cycle among what the given beads wait for, from its smallest id round to it again.
    pub fn cycle(&self, from: &[&'a str]) -> Option<Vec<String>> {
        let mut finished: BTreeSet<&str> = BTreeSet::new();
        for start in from.iter().filter(|id| !self.is_over(id)) {
            let mut path: Vec<(&str, Vec<&str>)> = vec![(start, self.blockers(start))];
            let mut on_path = BTreeSet::from([*start]);
            while let Some((id, rest)) = path.last_mut() {
                let Some(next) = rest.pop() else {
                    finished.insert(id);
                    on_path.remove(*id);
                    path.pop();
                    continue;
                };
                if on_path.contains(next) {
                    let cycle = path.iter().map(|(on, _)| *on).skip_while(|on| *on != next);
                    return Some(round(cycle.map(ToOwned::to_owned).collect()));
                }
                if !finished.contains(next) {
                    on_path.insert(next);
                    path.push((next, self.blockers(next)));
                }
            }
        }
        None
    }

    /// Whether it waits, directly or not, for one of `failed`.
    pub fn depends_on(&self, id: &str, failed: &BTreeSet<String>) -> bool {
        let mut seen = BTreeSet::new();
        let mut line = self.blockers(id);
        while let Some(next) = line.pop() {
            if failed.contains(next) {
                return true;
            }
            if seen.insert(next) {
                line.extend(self.blockers(next));
            }
        }
        false
    }
}

/// The same cycle from its smallest id, with that at the end again.
fn round(mut cycle: Vec<String>) -> Vec<String> {
    if let Some(first) = (0..cycle.len()).min_by_key(|at| &cycle[*at]) {
        cycle.rotate_left(first);
    }
    cycle.extend(cycle.first().cloned());
    cycle
}
