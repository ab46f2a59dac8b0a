//! What several tests need.

use std::path::PathBuf;

use gastown_beads::{Options, Store};
use jiff::Timestamp;

pub const BR: &str = include_str!("fixtures/br.jsonl");
pub const HYPHENATED: &str = include_str!("fixtures/hyphenated.jsonl");

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn parse(text: impl Into<Vec<u8>>) -> Store {
    Store::parse(text, &Options::default())
}

/// The stores that bd itself wrote, with what it said of them; outside the repository
/// (`GASTOWN_TEST_DATA`).
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
    assert_eq!(before.len(), after.len(), "lines were added or taken away");
    let changed: Vec<_> =
        before.into_iter().zip(after).filter(|(before, after)| before != after).collect();
    assert_eq!(changed.len(), 1, "{changed:#?}");
    changed[0]
}
