//! `cargo xtask gen --baseline`: the baseline of a release.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::found::FOLDER;

/// Copies the gRPC interface, the CRDs and the roles of the present version into a baseline of its own.
/// Samples and readers are written by hand: what they are worth is that a person looked at them.
pub fn freeze(root: &Path, version: &str) -> Result<()> {
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
    ] {
        copy(&root.join(from), &baseline.join(to))?;
    }
    println!(
        "gen: wrote {FOLDER}/{version}; now add samples/, and the readers crates/gastown-compat/src/v{}.rs (docs/upgrade.md)",
        version.replace('.', "_")
    );
    Ok(())
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
        freeze(root.path(), "9.9.9").unwrap();
        let read =
            |file: &str| std::fs::read_to_string(root.path().join("compat/9.9.9").join(file));
        assert_eq!(read("proto/gastown/v1/a.proto").unwrap(), "proto/gastown/v1/a.proto");
        assert_eq!(read("crds/a.yaml").unwrap(), "deploy/crds/a.yaml");
        assert!(read("rbac/a.yaml").is_ok());
        assert!(freeze(root.path(), "9.9.9").is_err());
    }
}
