//! The crates that are compiled into our programs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

use super::Build;
use crate::util;

/// A crate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licences, as an SPDX expression; empty when it declares none.
    pub license: String,
}

/// Which crates call which, from some packages of this workspace on.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    edges: BTreeMap<Crate, BTreeSet<Crate>>,
    hashes: BTreeMap<(String, String), String>,
}

impl Graph {
    /// Reads the graph of packages: crates that are in the program, without those that only build or
    /// test it, with the features of the build, for the images' platform.
    pub fn of(packages: &BTreeSet<String>, build: Build) -> Result<Self> {
        let mut cargo = util::cargo();
        cargo.args(["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "depth"]);
        cargo.args(["--target", "x86_64-unknown-linux-gnu", "--format", "{p}\t{l}\t"]);
        match build {
            // As in the build: the whole workspace decides about features.
            Build::Dev => cargo.arg("--workspace"),
            Build::Release => cargo.args(packages.iter().flat_map(|name| ["--package", name])),
        };
        let lock = std::fs::read_to_string(util::root().join("Cargo.lock"))
            .context("reading Cargo.lock")?;
        Ok(Self { edges: edges(&util::output(&mut cargo)?)?, hashes: hashes(&lock) })
    }

    /// The crate of a package of this workspace.
    pub fn root(&self, package: &str) -> Result<&Crate> {
        let found = self.edges.keys().find(|c| c.name == package && self.hash(c).is_none());
        found.with_context(|| format!("cargo tree does not show {package}"))
    }

    /// A crate and all that is below it, with what each calls directly.
    pub fn below<'a>(&'a self, root: &'a Crate) -> BTreeMap<&'a Crate, &'a BTreeSet<Crate>> {
        let (mut seen, mut open) = (BTreeMap::new(), vec![root]);
        while let Some(one) = open.pop() {
            if let Some(called) = self.edges.get(one)
                && seen.insert(one, called).is_none()
            {
                open.extend(called);
            }
        }
        seen
    }

    /// The SHA-256 of a crate of a registry; a crate of this workspace has none.
    pub fn hash(&self, one: &Crate) -> Option<&str> {
        self.hashes.get(&(one.name.clone(), one.version.clone())).map(String::as_str)
    }
}

/// Reads `cargo tree`: each line is a depth, the crate, its licences, and `(*)` where what is below it was
/// printed before.
fn edges(tree: &str) -> Result<BTreeMap<Crate, BTreeSet<Crate>>> {
    let mut edges: BTreeMap<Crate, BTreeSet<Crate>> = BTreeMap::new();
    let mut above: Vec<Crate> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let (depth, one) = parse(line).with_context(|| format!("cargo tree printed {line:?}"))?;
        ensure!(depth <= above.len(), "cargo tree skips a depth at {line:?}");
        above.truncate(depth);
        if let Some(parent) = above.last() {
            edges.entry(parent.clone()).or_default().insert(one.clone());
        }
        edges.entry(one.clone()).or_default();
        above.push(one);
    }
    Ok(edges)
}

fn parse(line: &str) -> Result<(usize, Crate)> {
    let digits = line.find(|c: char| !c.is_ascii_digit()).context("no crate")?;
    let depth = line[..digits].parse()?;
    let mut columns = line[digits..].split('\t');
    let mut words = columns.next().context("no crate")?.split(' ');
    let name = words.next().context("no name")?.to_owned();
    let version = words.next().and_then(|v| v.strip_prefix('v')).context("no version")?;
    // An older way to write a choice.
    let license = columns.next().unwrap_or_default().replace(" / ", " OR ").replace('/', " OR ");
    Ok((depth, Crate { name, version: version.to_owned(), license }))
}

/// The hashes in a Cargo.lock, which cargo writes with one key a line.
fn hashes(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(" = \""));
        Some(line?.trim_end_matches('"').to_owned())
    };
    let one = |block: &str| {
        Some(((value(block, "name")?, value(block, "version")?), value(block, "checksum")?))
    };
    lock.split("[[package]]").filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<'a>(crates: impl IntoIterator<Item = &'a Crate>) -> Vec<&'a str> {
        crates.into_iter().map(|c| c.name.as_str()).collect()
    }

    #[test]
    fn the_tree_gives_each_crate_what_it_calls_once() {
        let tree = "0ours v0.1.0 (/work)\tApache-2.0\t\n1a v1.0.0\tMIT/Apache-2.0\t\n2b v2.0.0\tMIT\t\n1b v2.0.0\tMIT\t\n\n0other v0.1.0 (/work)\tApache-2.0\t\n1a v1.0.0\tMIT/Apache-2.0\t (*)\n";
        let graph = Graph { edges: edges(tree).unwrap(), hashes: BTreeMap::new() };
        let ours = graph.root("ours").unwrap();
        assert_eq!(names(&graph.edges[ours]), ["a", "b"]);
        let other = graph.root("other").unwrap();
        let below = graph.below(other);
        assert_eq!(names(below.keys().copied()), ["a", "b", "other"]);
        assert!(below.keys().any(|c| c.license == "MIT OR Apache-2.0"));
        assert!(graph.root("none").is_err());
    }

    #[test]
    fn hashes_are_those_of_registries() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry\"\nchecksum = \"abc\"\n\n[[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n";
        let hashes = hashes(lock);
        assert_eq!(hashes[&("a".to_owned(), "1.0.0".to_owned())], "abc");
        assert_eq!(hashes.len(), 1);
    }
}
