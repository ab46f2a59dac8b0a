//! Reads and pushes stores in git, through one mirror for each repository.
//!
//! A write starts from the newest commits and is pushed by compare-and-swap; the caller repeats it
//! when somebody else pushed first. So any replica may write, and none loses what another wrote.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use gastown_git::files::Replacement;
use gastown_git::{Class, Git, GitError, Mirror, PushOutcome, RefUpdate, Refusal, Remote};
use gastown_types::{BranchName, CommitId, GitUrl};
use jiff::Timestamp;
use parking_lot::Mutex;

use super::branches::{Branches, Tips};
use super::folder::{self, NotReadable, ReadError};
use crate::applied::{Applied, COMMITTER};
use crate::error::StoreError;
use crate::validate::Repository;

/// The mirrors of all repositories, with one fetch at a time in each.
#[derive(Clone)]
pub(crate) struct Mirrors {
    git: Git,
    root: PathBuf,
    locks: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

/// The result of a push.
pub(crate) enum Pushed {
    /// The branch is at this commit; the store as it is there.
    Done(CommitId, Arc<Branches>),
    /// Somebody else pushed to this branch first.
    Outdated(BranchName),
}

/// The contents of a commit.
pub(crate) struct NewCommit<'a> {
    /// The rig, for the commit's message.
    pub(crate) rig: &'a str,
    /// The edits, for the commit's message.
    pub(crate) applied: &'a Applied,
    /// The whole file after the edits.
    pub(crate) bytes: &'a [u8],
    /// The time of the commit.
    pub(crate) now: Timestamp,
}

impl Mirrors {
    /// Makes a set of mirrors under `root`; none exists yet.
    pub(crate) fn new(git: Git, root: PathBuf) -> Self {
        Self { git, root, locks: Arc::default() }
    }

    fn mirror(&self, url: &GitUrl) -> Mirror {
        Mirror::at(self.git.clone(), &self.root.join("mirrors"), url)
    }

    fn lock(&self, url: &GitUrl) -> Arc<tokio::sync::Mutex<()>> {
        self.locks.lock().entry(url.normalised()).or_default().clone()
    }

    /// Asks the remote for the commits of both branches, and reads those that moved since `before`.
    pub(crate) async fn read(
        &self,
        repository: &Repository,
        remote: &Remote,
        before: Option<Arc<Branches>>,
    ) -> Result<Arc<Branches>, StoreError> {
        match self.refresh(repository, remote, before).await {
            // A mirror that lost objects is made again, once.
            Err(StoreError::Git(error))
                if matches!(error.class, Class::Corrupt | Class::RefNotFound) =>
            {
                tracing::warn!(%error, url = %repository.url, "the mirror is damaged; making it again");
                self.discard(&repository.url).await?;
                self.refresh(repository, remote, None).await
            }
            other => other,
        }
    }

    /// Commits an edited file on the commits of `branches`, and pushes it where the write branch has not
    /// moved since.
    pub(crate) async fn push(
        &self,
        repository: &Repository,
        remote: &Remote,
        branches: Arc<Branches>,
        branch: BranchName,
        new: &NewCommit<'_>,
    ) -> Result<Pushed, StoreError> {
        let commit = self.commit(repository, &branches, new).await?;
        let update = RefUpdate {
            name: branch.full(),
            expected: branches.tips().write,
            new: Some(commit.clone()),
        };
        let mirror = self.mirror(&repository.url);
        let outcome = remote
            .push(&self.git, mirror.path(), std::slice::from_ref(&update))
            .await?
            .into_iter()
            .next();
        match outcome {
            Some(outcome) if outcome.is_ok() => {
                let tips = Tips { write: Some(commit.clone()), ..branches.tips() };
                let branches =
                    self.load(repository, tips, branches.branch.clone(), Some(branches)).await?;
                Ok(Pushed::Done(commit, branches))
            }
            Some(PushOutcome::Rejected(Refusal::Stale | Refusal::Locked, message)) => {
                tracing::debug!(%branch, message, "somebody else pushed first");
                Ok(Pushed::Outdated(branch))
            }
            Some(PushOutcome::Rejected(_, message)) => {
                Err(StoreError::PushRejected { branch, message })
            }
            Some(_) | None => {
                Err(GitError::new(Class::Local, "push", "the remote did not answer for the branch")
                    .into())
            }
        }
    }

    async fn discard(&self, url: &GitUrl) -> Result<(), GitError> {
        let lock = self.lock(url);
        let _one = lock.lock().await;
        let mirror = self.mirror(url);
        if mirror.path().exists() { mirror.discard() } else { Ok(()) }
    }

    async fn refresh(
        &self,
        repository: &Repository,
        remote: &Remote,
        before: Option<Arc<Branches>>,
    ) -> Result<Arc<Branches>, StoreError> {
        // A file of the target branch that is not read yet may name the write branch; that seldom
        // changes, so the last name is tried first.
        let guess = before
            .as_ref()
            .map_or_else(|| repository.write_branch(None), |branches| branches.branch.clone());
        let tips = self.tips(repository, remote, guess.as_ref().ok()).await?;
        let branch = self.branch(repository, &tips, before.as_deref()).await?;
        let tips = match &branch {
            same if *same == guess => tips,
            Ok(other) => self.tips(repository, remote, Some(other)).await?,
            Err(_) => Tips { write: None, ..tips },
        };
        self.load(repository, tips, branch, before).await
    }

    /// The write branch, by the spec or by config.yaml of the target branch.
    async fn branch(
        &self,
        repository: &Repository,
        tips: &Tips,
        before: Option<&Branches>,
    ) -> Result<Result<BranchName, NotReadable>, StoreError> {
        let Some(commit) = tips.target.clone().filter(|_| repository.branch.is_none()) else {
            return Ok(repository.write_branch(None));
        };
        if let Some(side) = before
            .and_then(|branches| branches.target.as_ref())
            .filter(|side| side.commit == commit)
        {
            return Ok(repository.write_branch(side.config.sync_branch.as_deref()));
        }
        let (mirror, path) = (self.mirror(&repository.url), repository.path.clone());
        let config = blocking("read config.yaml", move || {
            folder::config(&mirror.objects()?, &commit, &path)
        })
        .await?;
        Ok(repository.write_branch(config.sync_branch.as_deref()))
    }

    async fn tips(
        &self,
        repository: &Repository,
        remote: &Remote,
        branch: Option<&BranchName>,
    ) -> Result<Tips, StoreError> {
        let names: Vec<BranchName> =
            [Some(&repository.target), branch].into_iter().flatten().cloned().collect();
        let lock = self.lock(&repository.url);
        let _one = lock.lock().await;
        let found = self.mirror(&repository.url).refresh(remote, &names).await?;
        Ok(Tips {
            target: found.get(&repository.target).cloned(),
            write: branch.and_then(|branch| found.get(branch).cloned()),
        })
    }

    async fn load(
        &self,
        repository: &Repository,
        tips: Tips,
        branch: Result<BranchName, NotReadable>,
        before: Option<Arc<Branches>>,
    ) -> Result<Arc<Branches>, StoreError> {
        if let Some(before) =
            before.as_ref().filter(|branches| branches.tips() == tips && branches.branch == branch)
        {
            return Ok(before.clone());
        }
        // A repository without any of the branches has no mirror yet.
        if tips == Tips::default() {
            let message = format!(
                "neither {} nor a branch of beads exists in {}",
                repository.target, repository.url
            );
            return Err(NotReadable { reason: "BranchNotFound", message }.into());
        }
        let (mirror, path) = (self.mirror(&repository.url), repository.path.clone());
        let work =
            move || Branches::load(&mirror.objects()?, &path, &tips, branch, before.as_deref());
        Ok(Arc::new(blocking("read the store", work).await?))
    }

    async fn commit(
        &self,
        repository: &Repository,
        branches: &Branches,
        new: &NewCommit<'_>,
    ) -> Result<CommitId, StoreError> {
        let nothing =
            || GitError::new(Class::Local, "write the store", "no branch of the store exists");
        let (folder, name) = branches.file().ok_or_else(nothing)?;
        let parent = branches.parent().ok_or_else(nothing)?.commit.clone();
        let (folder, name, bytes, second) =
            (folder.to_owned(), name.to_owned(), new.bytes.to_owned(), new.now.as_second());
        let message =
            new.applied.commit_message(&format!("{} {}", new.rig, env!("CARGO_PKG_VERSION")));
        let author = repository.author.clone().unwrap_or_else(|| COMMITTER.to_owned());
        let mirror = self.mirror(&repository.url);
        let work = move || {
            let made = mirror.objects()?.replace(&Replacement {
                parent: &parent,
                folder: &folder,
                name: &name,
                bytes: &bytes,
                author: &author,
                committer: COMMITTER,
                second,
                message: &message,
            })?;
            Ok(made)
        };
        blocking("write the store", work).await
    }
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| GitError::new(Class::Local, doing, error.to_string()))??)
}
