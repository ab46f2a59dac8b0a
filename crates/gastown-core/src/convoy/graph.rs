//! What holds a bead back: its blockers, its ancestors' blockers, and the store's own answer.

use std::collections::{BTreeMap, BTreeSet};

use gastown_beads::{Beads, Edge};

use super::facts::BeadFact;

/// Why a bead cannot be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It can be started.
    Free,
    /// These beads must be done first.
    Beads(Vec<String>),
    /// The store reports it as blocked, by something that only the store sees.
    Store,
}

/// The beads of a store, and which of them are over although the store may not show it yet.
#[derive(Clone, Copy)]
struct StoreBeads<'a> {
    beads: &'a BTreeMap<String, BeadFact>,
    over: &'a BTreeSet<String>,
}

impl<'a> Beads<'a> for StoreBeads<'a> {
    fn is_done(&self, id: &str) -> bool {
        self.over.contains(id) || self.beads.get(id).is_none_or(BeadFact::blocks_nothing)
    }

    fn edges(&self, id: &str) -> impl Iterator<Item = Edge<'a>> {
        let dependencies = self.beads.get(id).map_or(&[][..], |bead| &bead.dependencies);
        dependencies.iter().filter_map(|dependency| {
            let on = dependency.on.as_str();
            if dependency.blocks() {
                Some(Edge::Blocker(on))
            } else {
                dependency.is_parent().then_some(Edge::Parent(on))
            }
        })
    }
}

/// The dependencies among the beads of a store.
pub struct Graph<'a> {
    store: StoreBeads<'a>,
    graph: gastown_beads::Graph<StoreBeads<'a>>,
}

impl<'a> Graph<'a> {
    /// The graph of these beads; those in `over` count as done.
    pub fn new(beads: &'a BTreeMap<String, BeadFact>, over: &'a BTreeSet<String>) -> Self {
        let store = StoreBeads { beads, over };
        Self { store, graph: gastown_beads::Graph::new(store) }
    }

    /// What holds this bead back.
    pub fn hold(&self, id: &str) -> Hold {
        let blockers = self.graph.blockers(id);
        if !blockers.is_empty() {
            return Hold::Beads(blockers.into_iter().map(ToOwned::to_owned).collect());
        }
        let blocked = self.store.beads.get(id).is_some_and(|bead| bead.blocked);
        if blocked && !self.store_is_late(id) { Hold::Store } else { Hold::Free }
    }

    /// A cycle among the beads that the given ones wait for, from its smallest id round to that id
    /// again.
    pub fn cycle(&self, from: &[&'a str]) -> Option<Vec<&'a str>> {
        self.graph.cycle(from)
    }

    /// Whether a bead waits, directly or not, for one of `failed`.
    pub fn depends_on(&self, id: &str, failed: &BTreeSet<String>) -> bool {
        self.graph.waits_for_any(id, failed)
    }

    /// Whether a blocker of a bead, or of an ancestor, is over while the store still shows it as
    /// open: then the store's `blocked` is out of date.
    fn store_is_late(&self, id: &str) -> bool {
        let StoreBeads { beads, over } = self.store;
        let mut seen = BTreeSet::from([id]);
        let mut pending = vec![id];
        let mut late = false;
        while let Some(next) = pending.pop() {
            for dependency in beads.get(next).map_or(&[][..], |bead| &bead.dependencies) {
                let on = dependency.on.as_str();
                // Only the store knows the children that such an edge waits for.
                if dependency.kind == "waits-for" {
                    return false;
                }
                let Some(other) = beads.get(on) else { continue };
                late |= dependency.blocks() && over.contains(on) && !other.blocks_nothing();
                if dependency.is_parent() && seen.insert(on) {
                    pending.push(on);
                }
            }
        }
        late
    }
}
