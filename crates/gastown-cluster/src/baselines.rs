//! The releases that today's version can run beside: the folders of `compat/`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// What is kept of one release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// The release, such as `0.1.0`.
    pub version: String,
    /// Its folder.
    pub folder: PathBuf,
}

impl Baseline {
    /// All of this tree, the oldest first. There is one at least.
    pub fn all() -> Result<Vec<Self>> {
        Self::all_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compat"))
    }

    /// All of a folder, the oldest first. None is an error, and so is a folder whose name is not a version.
    pub fn all_in(folder: &Path) -> Result<Vec<Self>> {
        let listed =
            std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
        let mut found = Vec::new();
        for entry in listed {
            let path = entry?.path();
            if path.is_dir() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let number = number(&name)
                    .with_context(|| format!("{} is not named as a version", path.display()))?;
                found.push((number, Self { version: name, folder: path }));
            }
        }
        ensure!(!found.is_empty(), "{} has no baseline", folder.display());
        found.sort_by_key(|(number, _)| *number);
        Ok(found.into_iter().map(|(_, baseline)| baseline).collect())
    }

    /// The one of a release.
    pub fn named(version: &str) -> Result<Self> {
        let all = Self::all()?;
        let known: Vec<&str> = all.iter().map(|one| one.version.as_str()).collect();
        let unknown = format!("no baseline {version}; there are: {}", known.join(", "));
        all.into_iter().find(|one| one.version == version).context(unknown)
    }

    /// The release before today's version.
    pub fn newest() -> Result<Self> {
        Self::all()?.pop().context("there is no baseline")
    }

    /// The folder of its CRDs.
    pub fn crds(&self) -> PathBuf {
        self.folder.join("crds")
    }

    /// The folder of its chart.
    pub fn chart(&self) -> PathBuf {
        self.folder.join("chart")
    }

    /// The commit that its programs are built from: 40 hex digits.
    pub fn commit(&self) -> Result<String> {
        let path = self.folder.join("commit");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let commit = text.trim();
        let is_commit = commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit());
        ensure!(is_commit, "{} holds no commit: {commit:?}", path.display());
        Ok(commit.to_owned())
    }

    /// The tag of the images of its programs, which differs from that of every release.
    pub fn tag(&self) -> Result<String> {
        let commit = self.commit()?;
        Ok(format!("{}-{}", self.version, &commit[..8]))
    }
}

/// A version as numbers that compare.
fn number(version: &str) -> Option<[u64; 3]> {
    let numbers: Vec<u64> = version.split('.').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_baselines_of_this_tree_are_complete() {
        for baseline in Baseline::all().unwrap() {
            assert!(baseline.crds().join("polecats.yaml").is_file(), "{baseline:?}");
            assert!(baseline.chart().join("Chart.yaml").is_file(), "{baseline:?}");
            assert!(baseline.tag().unwrap().starts_with(&baseline.version), "{baseline:?}");
        }
    }

    #[test]
    fn versions_are_ordered_as_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["0.10.0", "0.2.0"] {
            std::fs::create_dir(dir.path().join(version)).unwrap();
        }
        std::fs::write(dir.path().join("allowed.yaml"), "[]").unwrap();
        let all = Baseline::all_in(dir.path()).unwrap();
        assert_eq!(all.iter().map(|b| b.version.as_str()).collect::<Vec<_>>(), ["0.2.0", "0.10.0"]);
        std::fs::create_dir(dir.path().join("next")).unwrap();
        assert!(Baseline::all_in(dir.path()).unwrap_err().to_string().contains("next"));
    }

    #[test]
    fn what_is_no_commit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let baseline = Baseline { version: "1.0.0".into(), folder: dir.path().into() };
        assert!(baseline.commit().is_err());
        std::fs::write(dir.path().join("commit"), "v1.0.0\n").unwrap();
        assert!(baseline.commit().unwrap_err().to_string().contains("v1.0.0"));
        std::fs::write(dir.path().join("commit"), format!("{}\n", "a".repeat(40))).unwrap();
        assert_eq!(baseline.tag().unwrap(), "1.0.0-aaaaaaaa");
    }
}
