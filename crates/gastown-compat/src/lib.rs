//! What earlier versions wrote ([`samples`]), and how they read it ([`v0_1_0`], …), for tests in the
//! crates that write and read it today. A program never depends on this crate, and it depends on no
//! crate of the workspace: a reader here does not change with the code.
//!
//! Each release adds a folder to `compat/` and a module here; see `docs/upgrade.md`.

pub mod v0_1_0;

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The variables of containers, by the container's name.
pub type Variables = BTreeMap<String, BTreeMap<String, String>>;

/// A sample of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The version that wrote it.
    pub version: String,
    /// Its text, without the final newline.
    pub text: String,
}

/// The samples of this name, of each version that has one, oldest first.
///
/// # Panics
///
/// When there is none: then the test would test nothing.
#[allow(clippy::panic)] // for tests only
pub fn samples(name: &str) -> Vec<Sample> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../compat");
    let versions = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut found: Vec<Sample> = versions
        .filter_map(|version| {
            let text = std::fs::read_to_string(version.path().join("samples").join(name)).ok()?;
            let version = version.file_name().to_string_lossy().into_owned();
            Some(Sample { version, text: text.trim_end().to_owned() })
        })
        .collect();
    found.sort_by(|a, b| a.version.cmp(&b.version));
    assert!(!found.is_empty(), "no version has a sample {name} in {}", folder.display());
    found
}

/// The samples of variables of this name.
///
/// # Panics
///
/// When there is none, or one is not a table of variables.
#[allow(clippy::panic)] // for tests only
pub fn variables(name: &str) -> Vec<(String, Variables)> {
    let read = |sample: Sample| match serde_json::from_str(&sample.text) {
        Ok(variables) => (sample.version, variables),
        Err(error) => panic!("{name} of {}: {error}", sample.version),
    };
    samples(name).into_iter().map(read).collect()
}
