//! Shared fixtures and helpers.

use std::path::PathBuf;

use gastown_beads::{
    Beads, DependencyKind, Edge, Graph, Issue, IssueSet, Options, Store, prefix_of,
};
use jiff::Timestamp;

pub const BR: &str = include_str!("fixtures/br.jsonl");
pub const HYPHENATED: &str = include_str!("fixtures/hyphenated.jsonl");

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn parse(text: impl Into<Vec<u8>>) -> Store {
    Store::parse(text, &Options::default())
}

/// The prefix of the first issue.
pub fn prefix(store: &Store) -> Option<&str> {
    store.issues().iter().next().map(|issue| prefix_of(&issue.id))
}

/// The beads of a set as a graph reads them.
pub struct Set<'a>(&'a IssueSet);

impl<'a> Beads<'a> for Set<'a> {
    fn is_done(&self, id: &str) -> bool {
        self.0.get(id).is_none_or(|issue| issue.is_done())
    }

    fn edges(&self, id: &str) -> impl Iterator<Item = Edge<'a>> {
        let issue: Option<&'a Issue> = self.0.get(id).map(AsRef::as_ref);
        let dependencies = issue.map(|issue| issue.dependencies.as_slice()).unwrap_or_default();
        dependencies.iter().filter_map(|edge| match edge.kind {
            DependencyKind::Blocks | DependencyKind::ConditionalBlocks => {
                Some(Edge::Blocker(edge.depends_on_id.as_str()))
            }
            DependencyKind::ParentChild => Some(Edge::Parent(edge.depends_on_id.as_str())),
            DependencyKind::WaitsFor | DependencyKind::Other(_) => None,
        })
    }
}

/// The graph of a set.
pub fn graph(issues: &IssueSet) -> Graph<Set<'_>> {
    Graph::new(Set(issues))
}

/// The ids of a set, in the order of the file.
pub fn ids(issues: &IssueSet) -> Vec<&str> {
    issues.iter().map(|issue| issue.id.as_str()).collect()
}

/// The folder of a store that bd itself wrote, with bd's own answers about it; outside the
/// repository (`GASTOWN_TEST_DATA`).
pub fn outside(name: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    let folder = std::env::var_os("GASTOWN_TEST_DATA")
        .map_or_else(beside, PathBuf::from)
        .join("beads")
        .join(name);
    if !folder.is_dir() {
        println!("not run: outside data is not at {}", folder.display());
        return None;
    }
    Some(folder)
}

/// The only line in which two files differ, before and after.
pub fn changed_line<'a>(before: &'a [u8], after: &'a [u8]) -> (&'a str, &'a str) {
    let lines =
        |bytes: &'a [u8]| std::str::from_utf8(bytes).unwrap().split('\n').collect::<Vec<_>>();
    let (before, after) = (lines(before), lines(after));
    assert_eq!(before.len(), after.len(), "lines were added or removed");
    let changed: Vec<_> =
        before.into_iter().zip(after).filter(|(before, after)| before != after).collect();
    assert_eq!(changed.len(), 1, "{changed:#?}");
    changed[0]
}
