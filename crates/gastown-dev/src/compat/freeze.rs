//! `cargo xtask gen --baseline`: the baseline of a release.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::found::FOLDER;
use crate::util;

/// Copies the gRPC interface, the CRDs, the roles and the chart of the present version into a baseline of
/// its own, with the commit that its programs are built from. Samples and readers are written by hand: what
/// they are worth is that a person looked at them.
pub fn freeze(root: &Path, version: &str, commit: &str) -> Result<()> {
    let baseline = root.join(FOLDER).join(version);
    ensure!(
        !baseline.exists(),
        "{} exists: a baseline does not change once it is released",
        baseline.display()
    );
    for (from, to) in [
        ("proto", "proto"),
        ("deploy/crds", "crds"),
        ("charts/gastown-operator/files/rbac", "rbac"),
        ("charts/gastown-operator", "chart"),
    ] {
        copy(&root.join(from), &baseline.join(to))?;
    }
    std::fs::write(baseline.join("commit"), format!("{commit}\n")).context("writing the commit")?;
    println!(
        "gen: wrote {FOLDER}/{version}; now add samples/, and the readers crates/gastown-compat/src/v{}.rs (docs/upgrade.md)",
        version.replace('.', "_")
    );
    Ok(())
}

/// The present commit. Changes that are not in it are an error: a baseline's programs are built from it.
pub fn commit(root: &Path) -> Result<String> {
    let git =
        |arguments: &[&str]| util::output(Command::new("git").args(arguments).current_dir(root));
    let changed = git(&["status", "--porcelain"])?;
    ensure!(
        changed.is_empty(),
        "a baseline is that of a commit, and these files are in none:\n{changed}"
    );
    Ok(git(&["rev-parse", "HEAD"])?.trim().to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            std::fs::copy(&path, &target).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_of_a_baseline_has_everything() {
        let root = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            util::output(Command::new("git").args(arguments).current_dir(root.path())).unwrap()
        };
        git(&["init", "--quiet"]);
        let identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
        git(&[&identity[..], &["commit", "--quiet", "--allow-empty", "-m", "one"]].concat());
        assert_eq!(commit(root.path()).unwrap(), git(&["rev-parse", "HEAD"]).trim());
        std::fs::write(root.path().join("new"), "").unwrap();
        assert!(commit(root.path()).unwrap_err().to_string().contains("new"));
    }

    #[test]
    fn a_baseline_holds_what_is_generated_and_is_never_written_again() {
        let root = tempfile::tempdir().unwrap();
        for file in [
            "proto/gastown/v1/a.proto",
            "deploy/crds/a.yaml",
            "charts/gastown-operator/files/rbac/a.yaml",
        ] {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        freeze(root.path(), "9.9.9", "c0ffee").unwrap();
        let read =
            |file: &str| std::fs::read_to_string(root.path().join("compat/9.9.9").join(file));
        assert_eq!(read("proto/gastown/v1/a.proto").unwrap(), "proto/gastown/v1/a.proto");
        assert_eq!(read("crds/a.yaml").unwrap(), "deploy/crds/a.yaml");
        assert!(read("rbac/a.yaml").is_ok());
        assert!(read("chart/files/rbac/a.yaml").is_ok());
        assert_eq!(read("commit").unwrap(), "c0ffee\n");
        assert!(freeze(root.path(), "9.9.9", "c0ffee").is_err());
    }
}
