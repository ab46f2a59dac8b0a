//! The programs of this workspace as they go into images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::util;

/// How programs and images are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// As in tests and the demo: compiled fast.
    Dev,
    /// As they are published: optimised, without debug assertions and without paths of this machine.
    Release,
}

impl Build {
    /// The folder of the images.
    pub fn folder(self) -> PathBuf {
        let images = util::root().join("target/images");
        match self {
            Self::Dev => images,
            Self::Release => images.join("release"),
        }
    }
}

/// Compiles programs with one cargo command and returns copies without symbols. Those of a release
/// have their symbols beside them, in `NAME.debug`.
pub fn compile(wanted: &BTreeSet<&str>, build: Build) -> Result<BTreeMap<String, PathBuf>> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names = wanted.iter().copied().collect::<Vec<_>>().join(", ");
    let mut cargo = util::cargo();
    cargo.arg("build");
    match build {
        // The whole workspace is selected, so that features are those of every other build and
        // nothing is compiled twice.
        Build::Dev => println!("images: compiling {names}"),
        Build::Release => {
            println!(
                "images: compiling {names} for release; when nothing is compiled yet, this costs about half an hour of CPU time"
            );
            cargo.args(["--profile", "images"]).args(release_arguments(wanted)?);
        }
    }
    cargo.args(wanted.iter().flat_map(|name| ["--bin", name]));
    let compiled = xtask::cargo::compile(cargo, "images: cargo build")?;
    let folder = build.folder().join("bin");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let copy = |name: &&str| {
        let from = compiled.get(*name).with_context(|| format!("cargo built no {name}"))?;
        Ok(((*name).to_owned(), stripped(from, &folder.join(name), build)?))
    };
    wanted.iter().map(copy).collect()
}

/// The packages of this workspace that have some programs.
pub fn owners(wanted: &BTreeSet<&str>) -> Result<BTreeMap<String, String>> {
    let owners = owners_of(&metadata()?, wanted);
    let unknown: Vec<_> = wanted.iter().filter(|name| !owners.contains_key(**name)).collect();
    ensure!(unknown.is_empty(), "no package has the programs {unknown:?}");
    Ok(owners)
}

fn metadata() -> Result<Value> {
    let mut command = util::cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1", "--locked"]);
    serde_json::from_str(&util::output(&mut command)?).context("reading cargo metadata")
}

/// The selection of packages and the compiler's flags of a release. Only the packages of the programs
/// are selected, so that no feature that tests alone need is in them.
fn release_arguments(wanted: &BTreeSet<&str>) -> Result<Vec<String>> {
    let packages: BTreeSet<String> = owners(wanted)?.into_values().collect();
    let metadata = metadata()?;
    let mut arguments: Vec<String> =
        packages.into_iter().flat_map(|package| ["--package".to_owned(), package]).collect();
    let target =
        metadata["target_directory"].as_str().context("no target folder in cargo metadata")?;
    arguments.extend(flags_without_paths(&util::root(), Path::new(target))?);
    Ok(arguments)
}

/// Has the linker keep one of several functions with the same code: there are many, of generic types.
const FOLD: &str = "-Clink-arg=-Wl,--icf=all";

/// The flags of the compiler with which a program is the same wherever it is compiled, and small.
fn flags_without_paths(root: &Path, target: &Path) -> Result<[String; 2]> {
    let home = std::env::home_dir().context("HOME is not set")?;
    let cargo_home =
        std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    // The last one that fits is taken: a target folder may be in the root.
    let flags = [
        remap(&cargo_home, "/cargo"),
        remap(root, "/gastown-operator"),
        remap(target, "/target"),
        FOLD.to_owned(),
    ];
    // Added to the flags of `.cargo/config.toml`; RUSTFLAGS would replace them.
    let flags = serde_json::to_string(&flags)?;
    let config = format!("target.x86_64-unknown-linux-gnu.rustflags={flags}");
    Ok(["--config".to_owned(), config])
}

fn remap(from: &Path, to: &str) -> String {
    let from = from.canonicalize().unwrap_or_else(|_| from.to_owned());
    format!("--remap-path-prefix={}={to}", from.display())
}

fn owners_of(metadata: &Value, wanted: &BTreeSet<&str>) -> BTreeMap<String, String> {
    let mut owners = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let targets = package["targets"].as_array().into_iter().flatten();
        let bins = targets.filter(|t| t["kind"][0] == "bin").filter_map(|t| t["name"].as_str());
        for bin in bins.filter(|bin| wanted.contains(bin)) {
            let name = package["name"].as_str().unwrap_or_default();
            owners.insert(bin.to_owned(), name.to_owned());
        }
    }
    owners
}

/// A copy without symbols, written again when the program has changed.
pub fn stripped(from: &Path, to: &Path, build: Build) -> Result<PathBuf> {
    let modified = std::fs::metadata(from)
        .with_context(|| format!("looking for {}", from.display()))?
        .modified()?;
    if std::fs::metadata(to).and_then(|m| m.modified()).ok() != Some(modified) {
        if build == Build::Release {
            let symbols = to.with_extension("debug");
            util::run(Command::new("objcopy").arg("--only-keep-debug").arg(from).arg(&symbols))?;
        }
        // Renamed into place: another build may read it.
        let partial = to.with_extension(format!("{}.partial", std::process::id()));
        util::run(Command::new("strip").arg("--strip-all").arg("-o").arg(&partial).arg(from))?;
        std::fs::File::options().write(true).open(&partial)?.set_modified(modified)?;
        std::fs::rename(&partial, to)?;
    }
    Ok(to.to_owned())
}

#[cfg(test)]
mod tests;
