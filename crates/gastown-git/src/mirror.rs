//! Bare mirrors on our disk: one a repository, refs in a namespace of our own, made again when
//! broken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::SystemTime;

use gastown_types::{BranchName, CommitId, GitUrl};
use sha2::{Digest, Sha256};

use crate::error::{Class, GitError};
use crate::history::Objects;
use crate::remote::{Remote, init_bare};
use crate::spawn::Git;

/// Where branches of the remote stand in the mirror.
pub const UPSTREAM: &str = "refs/gastown/upstream/heads/";
/// Where candidates stand: `<this><commit>`.
pub const CANDIDATES: &str = "refs/gastown/candidates/";

/// What this process found on its disk is older than this.
static STARTED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

/// A bare repository that only this process writes.
#[derive(Clone, Debug)]
pub struct Mirror {
    git: Git,
    path: PathBuf,
}

impl Mirror {
    /// The mirror of `url` under `root`; nothing is touched yet. Every spelling of one repository
    /// has one mirror.
    pub fn at(git: Git, root: &Path, url: &GitUrl) -> Self {
        let digest = Sha256::digest(url.normalised().as_bytes());
        let hex: Vec<String> = digest.iter().take(12).map(|b| format!("{b:02x}")).collect();
        Self { git, path: root.join(format!("{}.git", hex.concat())) }
    }

    /// Where it is on the disk.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The git that works in it.
    pub fn git(&self) -> &Git {
        &self.git
    }

    /// Opens it for reading and building.
    pub fn objects(&self) -> Result<Objects, GitError> {
        Objects::open(&self.path)
    }

    /// Brings the mirror's view of `branches` up to date and says where they are; a branch that the
    /// remote has not is not in the answer. One round trip when nothing moved. A broken mirror is
    /// made again.
    pub async fn refresh(
        &self,
        remote: &Remote,
        branches: &[BranchName],
    ) -> Result<BTreeMap<BranchName, CommitId>, GitError> {
        match self.try_refresh(remote, branches).await {
            Err(e)
                if matches!(e.class, Class::Corrupt | Class::Local | Class::RefNotFound)
                    && self.broken() =>
            {
                tracing::warn!(mirror = %self.path.display(), error = %e, "the mirror is broken and made again");
                self.discard()?;
                self.try_refresh(remote, branches).await
            }
            other => other,
        }
    }

    async fn try_refresh(
        &self,
        remote: &Remote,
        branches: &[BranchName],
    ) -> Result<BTreeMap<BranchName, CommitId>, GitError> {
        let names: Vec<String> = branches.iter().map(BranchName::full).collect();
        let refs = remote.ls_remote(&self.git, &names).await?;
        let there: BTreeMap<BranchName, CommitId> = branches
            .iter()
            .filter_map(|b| refs.get(&b.full()).map(|id| (b.clone(), id.clone())))
            .collect();
        let Some(any) = there.values().next() else { return Ok(there) };
        self.prepare(any.as_str().len() == 64).await?;
        let objects = self.objects()?;
        let stale = |(b, id): &(&BranchName, &CommitId)| {
            !objects.has(id)
                || objects.resolve(&format!("{UPSTREAM}{b}")).ok().flatten().as_ref() != Some(id)
        };
        let specs: Vec<String> = there
            .iter()
            .filter(stale)
            .map(|(b, _)| format!("+{}:{UPSTREAM}{b}", b.full()))
            .collect();
        drop(objects);
        if specs.is_empty() {
            return Ok(there);
        }
        self.clear_clashes(&there)?;
        remote.fetch(&self.git, &self.path, &specs).await?;
        let objects = self.objects()?;
        let mut fresh = BTreeMap::new();
        for branch in there.keys() {
            if let Some(id) = objects.resolve(&format!("{UPSTREAM}{branch}"))? {
                fresh.insert(branch.clone(), id);
            }
        }
        Ok(fresh)
    }

    /// A branch `a` and a branch `a/b` cannot both have a ref file; of a clash the one that the
    /// remote has now stays.
    fn clear_clashes(&self, there: &BTreeMap<BranchName, CommitId>) -> Result<(), GitError> {
        let heads = self.path.join(UPSTREAM);
        for branch in there.keys() {
            let full = heads.join(branch.as_str());
            if full.is_dir() {
                std::fs::remove_dir_all(&full).map_err(|e| GitError::local("clear old refs", e))?;
            }
            let mut at = heads.clone();
            for part in branch.as_str().split('/') {
                at.push(part);
                if at != full && at.is_file() {
                    std::fs::remove_file(&at).map_err(|e| GitError::local("clear old refs", e))?;
                }
            }
        }
        Ok(())
    }

    /// Keeps a candidate's objects and names it for serving.
    pub async fn keep_candidate(&self, id: &CommitId) -> Result<(), GitError> {
        let name = format!("{CANDIDATES}{id}");
        self.git
            .call(["update-ref", &name, id.as_str()])
            .repo(&self.path)
            .doing("name a candidate")
            .output()
            .await
            .map(drop)
    }

    /// Forgets a candidate's name.
    pub async fn drop_candidate(&self, id: &CommitId) -> Result<(), GitError> {
        let name = format!("{CANDIDATES}{id}");
        self.git
            .call(["update-ref", "-d", &name])
            .repo(&self.path)
            .doing("drop a candidate")
            .output()
            .await
            .map(drop)
    }

    /// Makes the repository when it is not there, and takes away what a killed predecessor left
    /// locked.
    async fn prepare(&self, sha256: bool) -> Result<(), GitError> {
        let started = *STARTED;
        if self.path.join("HEAD").is_file() {
            remove_stale_locks(&self.path, started);
            return Ok(());
        }
        // Made aside and renamed, so that a kill leaves no half of it.
        let aside = self.path.with_extension("new");
        let _ = std::fs::remove_dir_all(&aside);
        init_bare(&self.git, &aside, sha256).await?;
        let _ = std::fs::remove_dir_all(&self.path);
        std::fs::rename(&aside, &self.path)
            .map_err(|e| GitError::local(format!("make {}", self.path.display()), e))
    }

    fn broken(&self) -> bool {
        if !self.path.exists() {
            return false;
        }
        let shape = self.path.join("HEAD").is_file() && self.path.join("objects").is_dir();
        let Ok(objects) = self.objects() else { return true };
        let refs = objects.repo.references().and_then(|r| {
            let all = r
                .prefixed("refs/gastown/")?
                .flatten()
                .filter_map(|r| r.try_id().map(gix::Id::detach))
                .collect::<Vec<_>>();
            Ok(all)
        });
        !shape
            || refs.is_ok_and(|all| all.into_iter().any(|id| objects.repo.find_commit(id).is_err()))
    }

    /// Throws the mirror away; the next refresh makes it again.
    pub fn discard(&self) -> Result<(), GitError> {
        let aside = self.path.with_extension("broken");
        let _ = std::fs::remove_dir_all(&aside);
        std::fs::rename(&self.path, &aside)
            .map_err(|e| GitError::local(format!("set {} aside", self.path.display()), e))?;
        let _ = std::fs::remove_dir_all(&aside);
        Ok(())
    }
}

/// Removes lock and temporary files that are older than this process. Only one process writes a
/// mirror (its lease holder), so their makers are dead.
fn remove_stale_locks(repo: &Path, started: SystemTime) {
    let mut folders = vec![repo.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if meta.is_dir() {
                // Loose objects have no locks; the pack folder has temporary files.
                if folder.file_name().is_none_or(|f| f != "objects") || name == "pack" {
                    folders.push(entry.path());
                }
            } else if (name.ends_with(".lock") || name.starts_with("tmp_"))
                && meta.modified().is_ok_and(|m| m < started)
            {
                tracing::info!(file = %entry.path().display(), "a dead process's lock is removed");
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}
