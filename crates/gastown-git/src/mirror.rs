//! Bare mirrors on our disk: one for each repository, with refs in a namespace of our own, and
//! created again when broken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gastown_types::{BranchName, CommitId, GitUrl, digest, text};

use crate::error::{Class, GitError};
use crate::history::Objects;
use crate::remote::{Remote, init_bare};
use crate::spawn::Git;

/// The namespace of the remote's branches in the mirror.
const UPSTREAM: &str = "refs/gastown/upstream/heads/";
/// The namespace of candidates in the mirror: `<this><commit>`.
pub(crate) const CANDIDATES: &str = "refs/gastown/candidates/";
/// The namespace of tags in the mirror: `<this><digest of the target branch>/<tag>`.
pub(crate) const TAGS: &str = "refs/gastown/tags/";
/// The namespace of submodules in the mirror: `<this><candidate>/<commit>`.
pub(crate) const MODULES: &str = "refs/gastown/modules/";
/// The file with the identity of a mirror.
const ID: &str = "gastown-id";
/// With so many packs a mirror is packed anew.
const MANY_PACKS: usize = 50;
/// Objects that nothing refers to are kept for this long: a candidate gets its ref after it is built.
const PRUNE: &str = "2.hours.ago";
/// A lock of this age belongs to a git that was killed: none of ours holds one for so long.
const DEAD_LOCK: Duration = Duration::from_secs(60);

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
    /// not among them. One round trip when nothing moved. A broken mirror is created again. The
    /// caller lets one refresh of a mirror run at a time.
    pub async fn refresh(
        &self,
        remote: &Remote,
        branches: &[BranchName],
    ) -> Result<BTreeMap<BranchName, CommitId>, GitError> {
        match self.try_refresh(remote, branches).await {
            Err(e)
                if matches!(e.class, Class::Corrupt | Class::Local | Class::RefNotFound)
                    && self.is_broken() =>
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

    /// Deletes a candidate's ref, and those of its submodules.
    pub async fn drop_candidate(&self, id: &CommitId) -> Result<(), GitError> {
        let folder = format!("{MODULES}{id}/");
        let name = format!("{CANDIDATES}{id}");
        let list = self.git.call(["for-each-ref", "--format=delete %(refname)", &folder, &name]);
        let found = list.repo(&self.path).doing("drop a candidate").output().await?;
        let _ = std::fs::remove_file(self.contents_mark(id));
        let delete = self.git.call(["update-ref", "--stdin"]).repo(&self.path);
        delete.stdin(found.stdout).doing("drop a candidate").output().await.map(drop)
    }

    /// The file that exists once a candidate's submodules and LFS files were fetched.
    pub(crate) fn contents_mark(&self, candidate: &CommitId) -> PathBuf {
        self.path.join(format!("gastown-contents-{candidate}"))
    }

    /// Creates the repository when it does not exist, and removes what a killed git left.
    async fn prepare(&self, sha256: bool) -> Result<(), GitError> {
        if self.path.join("HEAD").is_file() {
            remove_leftovers(&self.path);
            return Ok(());
        }
        // Created beside and renamed, so that a kill leaves no partial repository.
        let aside = self.path.with_extension("new");
        let _ = std::fs::remove_dir_all(&aside);
        init_bare(&self.git, &aside, sha256).await?;
        let id = format!("{} {:?}", std::process::id(), SystemTime::now());
        std::fs::write(aside.join(ID), digest::sha256(id))
            .map_err(|e| GitError::local("name a mirror", e))?;
        let _ = std::fs::remove_dir_all(&self.path);
        std::fs::rename(&aside, &self.path)
            .map_err(|e| GitError::local(format!("create {}", self.path.display()), e))
    }

    /// Which creation of the mirror this is: what was learnt from another one is not in it. `None`
    /// when it does not exist.
    pub fn id(&self) -> Option<String> {
        std::fs::read_to_string(self.path.join(ID)).ok()
    }

    /// Packs the objects anew, and drops those that nothing refers to, when there are many packs. The
    /// caller lets no fetch of the mirror run meanwhile.
    pub async fn pack(&self) -> Result<(), GitError> {
        let folder = self.path.join("objects/pack");
        let is_pack =
            |name: &std::ffi::OsStr| Path::new(name).extension().is_some_and(|e| e == "pack");
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        if entries.filter(|e| is_pack(&e.file_name())).count() < MANY_PACKS {
            return Ok(());
        }
        let prune = format!("--prune={PRUNE}");
        let call = self.git.call(["gc", "--quiet", "--no-detach", &prune]).repo(&self.path);
        call.doing("pack a mirror").patient().output().await.map(drop)
    }

    /// Deletes the mirrors under the folder `root` that are not among those that are used.
    pub fn sweep(root: &Path, used: &[PathBuf]) {
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "git") && !used.contains(&path) {
                tracing::info!(mirror = %path.display(), "deleted a mirror that nothing uses");
                let _ = std::fs::remove_dir_all(&path);
            }
        }
    }

    /// Whether it exists and cannot be used.
    pub fn is_broken(&self) -> bool {
        if !self.path.exists() {
            return false;
        }
        let shape = self.path.join("HEAD").is_file() && self.path.join("objects").is_dir();
        let Ok(objects) = self.objects() else { return true };
        let refs = objects.repo.references().and_then(|r| {
            // A tag may lead to an object of its own.
            let is_tag = |r: &gix::Reference<'_>| r.name().as_bstr().starts_with(TAGS.as_bytes());
            let all = r
                .prefixed("refs/gastown/")?
                .flatten()
                .filter(|r| !is_tag(r))
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

/// Removes what a killed git left in a bare repository: unfinished packs, and locks that are older
/// than a minute. No fetch into the repository may run.
pub fn remove_leftovers(repo: &Path) {
    let old = |m: &std::fs::Metadata| {
        let age = m.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        age.is_some_and(|age| age > DEAD_LOCK)
    };
    let mut folders = vec![repo.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let is_pack = folder.ends_with("objects/pack");
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if meta.is_dir() {
                // Loose objects have no locks; the pack folder has temporary files.
                if folder.file_name().is_none_or(|f| f != "objects") || name == "pack" {
                    folders.push(entry.path());
                }
            } else if is_pack && name.starts_with("tmp_") || name.ends_with(".lock") && old(&meta) {
                tracing::info!(file = %entry.path().display(), "removed what a killed git left");
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}
