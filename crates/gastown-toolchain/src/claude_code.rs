//! The coding agent that tests and the demo run: the real program, fetched once into the user's
//! cache folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{cache, npm};

/// The version of Claude Code that the images hold and the tests run.
pub const CLAUDE_CODE_VERSION: &str = "2.1.330";

const PACKAGE: &str = "@anthropic-ai/claude-code-linux-x64";

/// What npm is asked for, and the hash that it checks what it fetches against.
const MANIFEST: &str = include_str!("../modules/claude-code/package.json");
const LOCK: &str = include_str!("../modules/claude-code/package-lock.json");

/// A package of npm's, as locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpmPackage {
    /// The name, with its scope.
    pub name: String,
    /// The version.
    pub version: String,
    /// The hash of the package, such as `sha512-` and base64.
    pub integrity: String,
}

/// The package that [`claude_code`] fetches.
pub fn claude_code_package() -> Result<NpmPackage> {
    let lock: serde_json::Value =
        serde_json::from_str(LOCK).context("reading package-lock.json")?;
    let entry = &lock["packages"][format!("node_modules/{PACKAGE}")];
    let text = |key: &str| {
        let text = entry[key].as_str().map(str::to_owned);
        text.with_context(|| format!("package-lock.json has no {key} of {PACKAGE}"))
    };
    let (version, integrity) = (text("version")?, text("integrity")?);
    Ok(NpmPackage { name: PACKAGE.to_owned(), version, integrity })
}

/// Whether [`claude_code`] returns without fetching anything.
pub fn has_claude_code() -> bool {
    folder().is_ok_and(|folder| program(&folder).is_file())
}

/// The Claude Code program, one file of about 250 MB that runs without Node. It is fetched with npm
/// when it is not in the cache.
pub fn claude_code() -> Result<PathBuf> {
    let folder = folder()?;
    let program = program(&folder);
    if program.is_file() {
        return Ok(program);
    }
    let parent = cache::dir()?;
    std::fs::create_dir_all(&parent).with_context(|| format!("creating {}", parent.display()))?;
    // One fetch serves all that want it at the same time.
    let _lock = cache::lock(&parent.join("claude-code.lock"))?;
    if program.is_file() {
        return Ok(program);
    }
    let new = folder.with_extension("new");
    if new.exists() {
        std::fs::remove_dir_all(&new).with_context(|| format!("removing {}", new.display()))?;
    }
    eprintln!("toolchain: fetching Claude Code {CLAUDE_CODE_VERSION} with npm (about 80 MB)");
    npm::ci(&new, "claude-code", MANIFEST, LOCK)?;
    std::fs::rename(&new, &folder)
        .with_context(|| format!("moving {PACKAGE} to {}", folder.display()))?;
    if !program.is_file() {
        bail!("{PACKAGE} {CLAUDE_CODE_VERSION} has no program `claude`");
    }
    eprintln!("toolchain: fetched Claude Code");
    Ok(program)
}

fn folder() -> Result<PathBuf> {
    let key = crate::parts::key([MANIFEST, LOCK]);
    Ok(cache::dir()?.join(format!("claude-code-{CLAUDE_CODE_VERSION}-{key}")))
}

fn program(folder: &Path) -> PathBuf {
    folder.join("node_modules").join(PACKAGE).join("claude")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_locked_one_and_has_a_hash() {
        let package = claude_code_package().unwrap();
        assert_eq!(package.version, CLAUDE_CODE_VERSION);
        assert!(package.integrity.starts_with("sha512-"), "{package:?}");
    }

    #[test]
    fn every_package_of_npm_is_locked_with_its_hash() {
        let lock: serde_json::Value = serde_json::from_str(LOCK).unwrap();
        let packages = lock["packages"].as_object().unwrap();
        let fetched: Vec<_> = packages.iter().filter(|(path, _)| !path.is_empty()).collect();
        assert!(!fetched.is_empty());
        assert!(fetched.iter().all(|(_, package)| package["integrity"].is_string()), "{lock}");
        let asked: serde_json::Value = serde_json::from_str(MANIFEST).unwrap();
        assert_eq!(asked["dependencies"][PACKAGE], CLAUDE_CODE_VERSION);
    }
}
