//! Which bead must wait for which others: blockers, and cycles among them.

use std::collections::BTreeSet;

/// The beads of a graph, wherever they come from.
pub trait Beads<'a> {
    /// Whether this bead blocks nothing: it is done, or unknown and so of another store.
    fn is_done(&self, id: &str) -> bool;

    /// The edges of this bead that order work; none for an unknown one.
    fn edges(&self, id: &str) -> impl Iterator<Item = Edge<'a>>;
}

/// An edge from a bead to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge<'a> {
    /// This bead must be done first.
    Blocker(&'a str),
    /// This bead is the parent, whose blockers block its children too.
    Parent(&'a str),
}

/// The dependencies among beads. Nothing is read before it is asked for, so a question about one
/// bead costs only the beads that it leads to.
#[derive(Clone, Debug)]
pub struct Graph<B>(B);

impl<'a, B: Beads<'a>> Graph<B> {
    /// The graph of these beads.
    pub fn new(beads: B) -> Self {
        Self(beads)
    }

    /// The beads that must be done before this one and are not: its own blockers, and those of its
    /// ancestors, each once.
    pub fn blockers(&self, id: &str) -> Vec<&'a str> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::from([id.to_owned()]);
        let mut ancestors: Vec<&str> = Vec::new();
        let mut edges: Vec<Edge<'a>> = self.0.edges(id).collect();
        loop {
            for edge in edges {
                match edge {
                    Edge::Blocker(on) if found.contains(&on) || self.0.is_done(on) => {}
                    Edge::Blocker(on) => found.push(on),
                    Edge::Parent(on) if seen.insert(on.to_owned()) => ancestors.push(on),
                    Edge::Parent(_) => {}
                }
            }
            let Some(ancestor) = ancestors.pop() else { return found };
            edges = self.0.edges(ancestor).collect();
        }
    }

    /// The first cycle among the beads that `from` wait for, from its smallest id round to that id
    /// again.
    pub fn cycle(&self, from: &[&'a str]) -> Option<Vec<&'a str>> {
        let mut finished: BTreeSet<&str> = BTreeSet::new();
        for start in from.iter().filter(|id| !self.0.is_done(id)) {
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
                    return Some(closed(cycle.collect()));
                }
                if !finished.contains(next) {
                    on_path.insert(next);
                    path.push((next, self.blockers(next)));
                }
            }
        }
        None
    }

    /// Whether a bead waits, directly or not, for one of `targets`.
    pub fn waits_for_any(&self, id: &str, targets: &BTreeSet<String>) -> bool {
        let mut seen = BTreeSet::new();
        let mut pending = self.blockers(id);
        while let Some(next) = pending.pop() {
            if targets.contains(next) {
                return true;
            }
            if seen.insert(next) {
                pending.extend(self.blockers(next));
            }
        }
        false
    }
}

/// A cycle from its smallest id, with that id at the end again.
fn closed(mut cycle: Vec<&str>) -> Vec<&str> {
    if let Some(first) = (0..cycle.len()).min_by_key(|at| cycle[*at]) {
        cycle.rotate_left(first);
    }
    cycle.extend(cycle.first().copied());
    cycle
}
