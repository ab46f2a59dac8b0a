//! The committed table of what one life asks of the API server, and whether it has grown. Counts do
//! not depend on the machine as times do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::report::{Measured, all};
use crate::util;

/// The table's file, below the workspace's folder.
const FILE: &str = "crates/gastown-dev/src/bench/fleet/counts.json";
/// A count may be larger than the committed one by this share of it, and by [`SLACK`]: statuses that
/// count others are written as often as there is time.
const SHARE: f64 = 0.1;
/// How many requests a life a count may be larger.
const SLACK: f64 = 0.15;

/// Requests of one life by writer, verb and resource, and answers of 404 and 409 by writer.
type Counts = BTreeMap<String, f64>;

/// The table.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Table {
    /// A life without a convoy.
    alone: Option<Life>,
    /// A life with a convoy of its own.
    convoy: Option<Life>,
}

/// A life, and how many there were when it was measured.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Life {
    polecats: u32,
    rigs: u32,
    /// All requests together.
    all: f64,
    counts: Counts,
}

/// Fails when a life has more requests of a kind than in the table.
pub fn check(measured: &Measured) -> Result<()> {
    let committed = if measured.convoys { read()?.convoy } else { read()?.alone };
    let committed = committed.context("the table has no such life; --write-counts adds it")?;
    ensure!(!measured.life.is_empty(), "{NEEDS}");
    ensure!(
        (committed.polecats, committed.rigs) == (measured.polecats, measured.rigs),
        "the table is of --polecats {} --rigs {}: check with the same",
        committed.polecats,
        committed.rigs
    );
    let mut grown = grown(&committed.counts, &measured.life);
    grown.extend(more("all", committed.all, all(&measured.life)));
    ensure!(
        grown.is_empty(),
        "a life has more requests than in {FILE} (by more than {:.0} % and {SLACK}):\n{}",
        SHARE * 100.0,
        grown.join("\n")
    );
    println!("fleet: a life has no more requests than in {FILE}");
    Ok(())
}

/// Writes what was measured into the table.
pub fn write(measured: &Measured) -> Result<()> {
    ensure!(!measured.life.is_empty(), "{NEEDS}");
    let round = |count: f64| (count * 100.0).round() / 100.0;
    let rounded = measured.life.iter().map(|(kind, count)| (kind.clone(), round(*count)));
    let life = Some(Life {
        polecats: measured.polecats,
        rigs: measured.rigs,
        all: round(all(&measured.life)),
        counts: rounded.filter(|(_, count)| *count > 0.0).collect(),
    });
    let mut table = if path().exists() { read()? } else { Table::default() };
    *(if measured.convoys { &mut table.convoy } else { &mut table.alone }) = life;
    let text = format!("{:#}\n", serde_json::to_value(&table)?);
    std::fs::write(path(), text).with_context(|| format!("writing {FILE}"))
}

const NEEDS: &str = "the requests of a life need the phases burst, ends and delete";

fn path() -> PathBuf {
    util::root().join(FILE)
}

fn read() -> Result<Table> {
    let text = std::fs::read_to_string(path()).with_context(|| format!("reading {FILE}"))?;
    serde_json::from_str(&text).with_context(|| format!("{FILE} is not the table of counts"))
}

/// What has grown, one line each.
fn grown(committed: &Counts, measured: &Counts) -> Vec<String> {
    let before = |kind: &String| committed.get(kind).copied().unwrap_or_default();
    measured.iter().filter_map(|(kind, count)| more(kind, before(kind), *count)).collect()
}

fn more(kind: &str, before: f64, now: f64) -> Option<String> {
    let limit = before * (1.0 + SHARE) + SLACK;
    (now > limit).then(|| format!("  {kind}: {now:.2}, in the table {before:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(all: &[(&str, f64)]) -> Counts {
        all.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
    }

    #[test]
    fn growth_within_the_tolerance_is_no_growth() {
        let before = counts(&[("polecat-ctl create pods", 1.0)]);
        assert!(grown(&before, &counts(&[("polecat-ctl create pods", 1.25)])).is_empty());
        assert!(grown(&before, &counts(&[])).is_empty());
        assert_eq!(
            grown(&before, &counts(&[("polecat-ctl create pods", 1.26)])),
            ["  polecat-ctl create pods: 1.26, in the table 1.00"]
        );
    }

    #[test]
    fn a_request_that_the_table_does_not_have_is_growth() {
        let new = counts(&[("polecat-ctl answered 409", 0.2)]);
        assert_eq!(grown(&counts(&[]), &new).len(), 1);
    }

    #[test]
    fn answers_are_counted_with_their_requests_alone() {
        let life = counts(&[("a patch polecats", 2.0), ("a answered 404", 1.0)]);
        assert_eq!(all(&life).to_string(), "2");
    }

    #[test]
    fn the_committed_table_can_be_read() {
        assert!(read().unwrap().alone.is_some());
    }
}
