//! Bare mirrors on our disk: one for each repository, with refs in a namespace of our own, and
//! created again when broken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::SystemTime;

use gastown_types::{BranchName, CommitId, GitUrl, digest, text};

use crate::error::{Class, GitError};
use crate::history::Objects;
use crate::remote::{Remote, init_bare};
use crate::spawn::Git;

/// The namespace of the remote's branches in the mirror.
const UPSTREAM: &str = "refs/gastown/upstream/heads/";
/// The namespace of candidates in the mirror: `<this><commit>`.
pub(crate) const CANDIDATES: &str = "refs/gastown/candidates/";

/// When this process first used a mirror: lock files from before are a dead process's.
static STARTED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

/// A bare repository that only this process writes.
#[derive(Clone, Debug)]
pub struct Mirror {
    git: Git,
    path: PathBuf,
}

impl Mirror {
    /// The mirror of `url` under the folder `root`; the disk is not touched yet. All spellings of a
    /// repository's URL share one mirror.
    pub fn at(git: Git, root: &Path, url: &GitUrl) -> Self {
        let digest = digest::sha256(url.normalised());
        Self { git, path: root.join(format!("{}.git", text::truncate(&digest, 24))) }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The git that runs in it.
    pub fn git(&self) -> &Git {
        &self.git
    }

    /// Opens it for reading and writing objects.
    pub fn objects(&self) -> Result<Objects, GitError> {
        Objects::open(&self.path)
    }

    /// Fetches `branches` and returns their commits; a branch that does not exist on the remote is
    /// not among them. One round trip when nothing moved. A broken mirror is created again.
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
                tracing::warn!(mirror = %self.path.display(), error = %e, "the mirror is broken and is created again");
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

    /// A branch `a` and a branch `a/b` cannot both have a ref file: removes the file of the one that
    /// the remote no longer has.
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

    /// Gives a candidate a ref, so that its objects are kept and can be served.
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

    /// Deletes a candidate's ref.
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

    /// Creates the repository when it does not exist, and removes the locks that a killed
    /// predecessor left.
    async fn prepare(&self, sha256: bool) -> Result<(), GitError> {
        let started = *STARTED;
        if self.path.join("HEAD").is_file() {
            remove_stale_locks(&self.path, started);
            return Ok(());
        }
        // Created beside and renamed, so that a kill leaves no partial repository.
        let aside = self.path.with_extension("new");
        let _ = std::fs::remove_dir_all(&aside);
        init_bare(&self.git, &aside, sha256).await?;
        let _ = std::fs::remove_dir_all(&self.path);
        std::fs::rename(&aside, &self.path)
            .map_err(|e| GitError::local(format!("create {}", self.path.display()), e))
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

    /// Deletes the mirror; the next refresh creates it again.
    pub fn discard(&self) -> Result<(), GitError> {
        let aside = self.path.with_extension("broken");
        let _ = std::fs::remove_dir_all(&aside);
        std::fs::rename(&self.path, &aside)
            .map_err(|e| GitError::local(format!("delete {}", self.path.display()), e))?;
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
                tracing::info!(file = %entry.path().display(), "removed the lock of a dead process");
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}
