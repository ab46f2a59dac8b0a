//! The programs of an earlier release, for tests of two versions at once. They are compiled from the commit
//! that the baseline names, in the user's cache folder, and kept there: a second build takes no time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use gastown_cluster::baselines::Baseline;
use gastown_toolchain::cache;

use super::programs::{Build, stripped};
use crate::util;

/// The programs of a baseline without symbols: those that were kept, or compiled now.
pub fn programs(baseline: &Baseline, wanted: &BTreeSet<&str>) -> Result<BTreeMap<String, PathBuf>> {
    let commit = baseline.commit()?;
    let folder = cache::dir()?.join("baselines").join(&commit);
    let kept = folder.join("bin");
    std::fs::create_dir_all(&kept).with_context(|| format!("creating {}", kept.display()))?;
    let _lock = cache::lock(&folder.join("lock"))?;
    let path = |name: &&str| ((*name).to_owned(), kept.join(name));
    let programs: BTreeMap<String, PathBuf> = wanted.iter().map(path).collect();
    if programs.values().all(|program| program.is_file()) {
        return Ok(programs);
    }
    let started = Instant::now();
    println!(
        "images: compiling the programs of {} from {commit}, once: this takes some minutes",
        baseline.version
    );
    let (tree, target) = (folder.join("tree"), folder.join("target"));
    export(&commit, &tree)
        .with_context(|| format!("the source of baseline {}", baseline.version))?;
    let compiled = compile(&tree, &target, wanted)?;
    for (name, to) in &programs {
        let from = compiled.get(name).with_context(|| format!("cargo built no {name}"))?;
        stripped(from, to, Build::Dev)?;
    }
    for done in [&tree, &target] {
        std::fs::remove_dir_all(done).with_context(|| format!("removing {}", done.display()))?;
    }
    println!("images: compiled them in {} s", started.elapsed().as_secs());
    Ok(programs)
}

/// Writes the files of a commit into a folder, which begins empty.
fn export(commit: &str, tree: &Path) -> Result<()> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(arguments).current_dir(util::root());
        util::output(&mut git)
    };
    ensure!(
        git(&["cat-file", "-e", &format!("{commit}^{{commit}}")]).is_ok(),
        "this clone does not have the commit {commit}: git fetch origin {commit}"
    );
    // What an interrupted build left.
    drop(std::fs::remove_dir_all(tree));
    std::fs::create_dir_all(tree).with_context(|| format!("creating {}", tree.display()))?;
    let archive = tree.with_extension("tar");
    git(&["archive", "--format=tar", "--output", &archive.display().to_string(), commit])?;
    let file =
        std::fs::File::open(&archive).with_context(|| format!("opening {}", archive.display()))?;
    tar::Archive::new(file).unpack(tree).context("unpacking the commit")?;
    std::fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))
}

/// Compiles with the flags of that tree, and without what only a debugger needs. Dependencies that both have
/// are those of this workspace's own builds.
fn compile(
    tree: &Path,
    target: &Path,
    wanted: &BTreeSet<&str>,
) -> Result<BTreeMap<String, PathBuf>> {
    let mut cargo = util::cargo();
    cargo.current_dir(tree).args(["build", "--locked"]);
    cargo.args(wanted.iter().flat_map(|name| ["--bin", name]));
    let shared =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    cargo.env("CARGO_TARGET_DIR", target);
    cargo.env("CARGO_BUILD_BUILD_DIR", util::root().join(shared));
    cargo.env("CARGO_INCREMENTAL", "0").env("CARGO_PROFILE_DEV_DEBUG", "false");
    xtask::cargo::compile(cargo, "images: cargo build of the baseline")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_exported_without_the_changes_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("left"), "by an interrupted build").unwrap();
        export("HEAD", &tree).unwrap();
        assert!(tree.join("Cargo.lock").is_file() && !tree.join("left").exists());
        assert!(!tree.join("target").exists() && !dir.path().join("tree.tar").exists());
        let error = export(&"0".repeat(40), &tree).unwrap_err().to_string();
        assert!(error.contains("git fetch origin 000"), "{error}");
    }
}
