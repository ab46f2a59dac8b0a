//! In which order work can go: the edges of ready work as a graph, for whoever hands it out.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use crate::{
    edges::Edges,
    issue::{Dependency, DependencyKind, Gate, Issue},
    set::IssueSet,
};

/// Which issue must wait for which. What is done neither waits nor is waited for, and is in no
/// layer.
///
/// A child waits for what its parent waits for, not for the parent. Being in a circle of parents is
/// reported as a cycle too, although it blocks nothing: `bd` refuses to make one.
#[derive(Clone, Debug)]
pub struct Graph {
    ids: Vec<String>,
    index: HashMap<String, usize>,
    /// Of the issues, and behind them of the gates: one each for all that wait for the same
    /// children, or this would grow with their product.
    needs: Vec<Vec<Need>>,
    /// The layer of each; none for what is done, and for what can never go.
    layer: Vec<Option<usize>>,
    done: Vec<bool>,
    dangling: Vec<(String, String)>,
    external: Vec<(String, String)>,
}

/// One thing that an issue waits for.
#[derive(Clone, Debug)]
enum Need {
    /// This one must be done.
    Done(usize),
    /// One of these must be done.
    AnyDone(Vec<usize>),
    /// This parent must not be blocked, or this gate must be open.
    Free(usize),
}

impl Graph {
    /// The graph in which closed and pinned issues are done.
    pub fn new<T: AsRef<IssueSet>>(issues: &T) -> Self {
        Self::with_done(issues, Issue::is_done)
    }

    /// The graph in which `done` says what is done, for a caller who knows of landed work that the
    /// store does not show yet.
    pub fn with_done<T: AsRef<IssueSet>>(issues: &T, done: impl Fn(&Issue) -> bool) -> Self {
        let edges = Edges::of(issues.as_ref());
        let mut done: Vec<bool> = edges.issues.iter().map(|issue| done(issue)).collect();
        let needs = needs(&edges, &done);
        done.resize(needs.len(), false);
        let layer = layers(&needs, &done);
        let ids: Vec<String> = edges.issues.iter().map(|issue| issue.id.clone()).collect();
        let pairs = |edges: &[&Dependency]| {
            edges.iter().map(|edge| (edge.issue_id.clone(), edge.depends_on_id.clone())).collect()
        };
        Self {
            index: ids.iter().enumerate().map(|(place, id)| (id.clone(), place)).collect(),
            dangling: pairs(&edges.dangling),
            external: pairs(&edges.external),
            ids,
            needs,
            layer,
            done,
        }
    }

    /// What can go first, what can go when that is done, and so on; in a layer in the order of the
    /// file. What is in a cycle or behind one is in none.
    pub fn layers(&self) -> Vec<Vec<&str>> {
        let mut out = Vec::new();
        for (id, layer) in self.ids.iter().zip(&self.layer) {
            let Some(layer) = *layer else { continue };
            if out.len() <= layer {
                out.resize(layer + 1, Vec::new());
            }
            out[layer].push(id.as_str());
        }
        out
    }

    /// The first cycle by the order of the file, each issue waiting for the next and the last for
    /// the first.
    pub fn cycle(&self) -> Option<Vec<&str>> {
        let mut place = (0..self.ids.len()).find(|place| self.is_stuck(*place))?;
        let mut seen = HashMap::new();
        let mut path = Vec::new();
        loop {
            if let Some(start) = seen.insert(place, path.len()) {
                return Some(
                    path.drain(start..)
                        .filter_map(|place: usize| self.ids.get(place))
                        .map(String::as_str)
                        .collect(),
                );
            }
            path.push(place);
            // Something that can never go always waits for another such thing.
            place = self.needs[place]
                .iter()
                .flat_map(Need::places)
                .find(|need| self.is_stuck(*need))?;
        }
    }

    /// What can never go: what is in a cycle, or waits for it.
    pub fn stuck(&self) -> Vec<&str> {
        (0..self.ids.len())
            .filter(|place| self.is_stuck(*place))
            .map(|place| self.ids[place].as_str())
            .collect()
    }

    /// What an issue itself waits for, apart from what it inherits; empty for an unknown id.
    pub fn waits_for(&self, id: &str) -> Vec<&str> {
        let needs =
            self.index.get(id).map(|place| self.needs[*place].as_slice()).unwrap_or_default();
        let gates = needs
            .iter()
            .filter_map(|need| if let Need::Free(gate) = need { Some(*gate) } else { None })
            .filter(|gate| *gate >= self.ids.len());
        let own = needs.iter().filter(|need| !matches!(need, Need::Free(_)));
        let places = own.chain(gates.flat_map(|gate| &self.needs[gate])).flat_map(Need::places);
        let mut ids: Vec<&str> =
            places.filter_map(|place| self.ids.get(place)).map(String::as_str).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Edges to ids that are not in the store, as (dependent, target); they do not block.
    pub fn dangling(&self) -> &[(String, String)] {
        &self.dangling
    }

    /// Edges to other projects, as (dependent, target); they do not block.
    pub fn external(&self) -> &[(String, String)] {
        &self.external
    }

    fn is_stuck(&self, place: usize) -> bool {
        !self.done[place] && self.layer[place].is_none()
    }
}

impl Need {
    fn places(&self) -> impl Iterator<Item = usize> {
        let (one, many) = match self {
            Self::Done(place) | Self::Free(place) => (Some(*place), [].as_slice()),
            Self::AnyDone(places) => (None, places.as_slice()),
        };
        one.into_iter().chain(many.iter().copied())
    }
}

/// What each issue waits for, and behind the issues what each gate does.
fn needs(edges: &Edges<'_>, done: &[bool]) -> Vec<Vec<Need>> {
    let mut needs: Vec<Vec<Need>> = vec![Vec::new(); done.len()];
    let mut gates: HashMap<(usize, Gate), Option<usize>> = HashMap::new();
    for place in (0..done.len()).filter(|place| !done[*place]) {
        for (edge, target) in &edges.blockers[place] {
            if edge.kind != DependencyKind::WaitsFor {
                needs[place].extend(Some(Need::Done(*target)).filter(|_| !done[*target]));
                continue;
            }
            let gate = *gates.entry((*target, edge.gate())).or_insert_with_key(|(target, gate)| {
                let awaited = edges.awaited(*target, *gate, |child| done[child]);
                let closed = !awaited.is_empty();
                closed.then(|| {
                    needs.push(if *gate == Gate::AnyChildren {
                        vec![Need::AnyDone(awaited)]
                    } else {
                        awaited.into_iter().map(Need::Done).collect()
                    });
                    needs.len() - 1
                })
            });
            needs[place].extend(gate.map(Need::Free));
        }
        needs[place].extend(
            edges.parents[place]
                .iter()
                .filter(|parent| !done[**parent])
                .map(|parent| Need::Free(*parent)),
        );
    }
    needs
}

/// Lets everything go as soon as it can, lowest layer first, so that the first child of an
/// `any-children` gate is the one that opens it.
fn layers(needs: &[Vec<Need>], done: &[bool]) -> Vec<Option<usize>> {
    let mut layer = vec![None; needs.len()];
    let mut earliest = vec![0_usize; needs.len()];
    let mut open: Vec<usize> = needs.iter().map(Vec::len).collect();
    // Of each issue: who has which need of it.
    let mut wanted: Vec<Vec<(usize, usize)>> = vec![Vec::new(); needs.len()];
    for (place, each) in needs.iter().enumerate() {
        for (number, need) in each.iter().enumerate() {
            for target in need.places() {
                wanted[target].push((place, number));
            }
        }
    }
    let mut met: Vec<Vec<bool>> = needs.iter().map(|each| vec![false; each.len()]).collect();
    let mut heap: BinaryHeap<Reverse<(usize, usize)>> = (0..needs.len())
        .filter(|place| !done[*place] && open[*place] == 0)
        .map(|place| Reverse((0, place)))
        .collect();
    while let Some(Reverse((at, place))) = heap.pop() {
        layer[place] = Some(at);
        for (dependent, number) in &wanted[place] {
            if std::mem::replace(&mut met[*dependent][*number], true) {
                continue;
            }
            let after =
                if matches!(needs[*dependent][*number], Need::Free(_)) { at } else { at + 1 };
            earliest[*dependent] = earliest[*dependent].max(after);
            open[*dependent] -= 1;
            if open[*dependent] == 0 {
                heap.push(Reverse((earliest[*dependent], *dependent)));
            }
        }
    }
    layer
}
