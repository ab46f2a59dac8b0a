//! A store in git as one mirror sees it: asked for, read, written.
//!
//! A write is made on the newest tips, pushed by compare-and-swap, and made anew when somebody else
//! was first; so any replica may write, and none loses what another wrote.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use gastown_git::files::Replacement;
use gastown_git::{Class, Git, GitError, Mirror, PushOutcome, RefUpdate, Refusal, Remote};
use gastown_types::{BranchName, CommitId, GitUrl};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::branches::{Branches, Tips};
use crate::desk::Fault;
use crate::folder::{self, Lack};
use crate::ledger::COMMITTER;
use crate::place::Repository;
use crate::view::Applied;

/// All mirrors: one a repository, and one fetch at a time in each.
#[derive(Clone)]
pub(crate) struct Mirrors {
    git: Git,
    root: PathBuf,
    locks: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

/// How a push went.
pub(crate) enum Pushed {
    /// The branch holds it: the commit and the view of it.
    Done(CommitId, Arc<Branches>),
    /// Somebody else pushed first.
    Late(BranchName),
}

/// What is to be committed.
pub(crate) struct News<'a> {
    /// For the commit's message.
    pub(crate) rig: &'a str,
    /// What was done.
    pub(crate) applied: &'a Applied,
    /// All of the file after it.
    pub(crate) bytes: &'a [u8],
    /// When.
    pub(crate) now: Timestamp,
}

impl Mirrors {
    /// None yet; they are kept under `root`.
    pub(crate) fn new(git: Git, root: PathBuf) -> Self {
        Self { git, root, locks: Arc::default() }
    }

    fn mirror(&self, url: &GitUrl) -> Mirror {
        Mirror::at(self.git.clone(), &self.root.join("mirrors"), url)
    }

    fn lock(&self, url: &GitUrl) -> Arc<tokio::sync::Mutex<()>> {
        self.locks.lock().entry(url.normalised()).or_default().clone()
    }

    /// Asks the remote where both branches are and reads what moved since `before`.
    pub(crate) async fn read(
        &self,
        repository: &Repository,
        remote: &Remote,
        before: Option<Arc<Branches>>,
    ) -> Result<Arc<Branches>, Fault> {
        match self.look(repository, remote, before).await {
            // A mirror that lost objects is made again, once.
            Err(Fault::Git(error))
                if matches!(error.class, Class::Corrupt | Class::RefNotFound) =>
            {
                tracing::warn!(%error, url = %repository.url, "the mirror is thrown away and made again");
                self.discard(&repository.url).await?;
                self.look(repository, remote, None).await
            }
            other => other,
        }
    }

    /// Commits what deeds made of the file of `view`, and pushes it where the branch still is as it
    /// was read.
    pub(crate) async fn push(
        &self,
        repository: &Repository,
        remote: &Remote,
        view: Arc<Branches>,
        branch: BranchName,
        news: &News<'_>,
    ) -> Result<Pushed, Fault> {
        let commit = self.commit(repository, &view, news).await?;
        let update = RefUpdate {
            name: branch.full(),
            expected: view.tips().write,
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
                let tips = Tips { write: Some(commit.clone()), ..view.tips() };
                let view = self.load(repository, tips, view.branch.clone(), Some(view)).await?;
                Ok(Pushed::Done(commit, view))
            }
            Some(PushOutcome::Rejected(Refusal::Stale, words)) => {
                tracing::debug!(%branch, words, "somebody else pushed first");
                Ok(Pushed::Late(branch))
            }
            Some(PushOutcome::Rejected(_, message)) => Err(Fault::Refused { branch, message }),
            Some(_) | None => {
                Err(GitError::new(Class::Local, "push", "no answer about the branch").into())
            }
        }
    }

    async fn discard(&self, url: &GitUrl) -> Result<(), GitError> {
        let lock = self.lock(url);
        let _one = lock.lock().await;
        let mirror = self.mirror(url);
        if mirror.path().exists() { mirror.discard() } else { Ok(()) }
    }

    async fn look(
        &self,
        repository: &Repository,
        remote: &Remote,
        before: Option<Arc<Branches>>,
    ) -> Result<Arc<Branches>, Fault> {
        // The branch may be named by a file of the target that is still to be read; it seldom
        // changes.
        let guess = before
            .as_ref()
            .map_or_else(|| repository.write_branch(None), |view| view.branch.clone());
        let tips = self.tips(repository, remote, guess.as_ref().ok()).await?;
        let branch = self.branch(repository, &tips, before.as_deref()).await?;
        let tips = match &branch {
            same if *same == guess => tips,
            Ok(other) => self.tips(repository, remote, Some(other)).await?,
            Err(_) => Tips { write: None, ..tips },
        };
        self.load(repository, tips, branch, before).await
    }

    /// The branch to write, by the spec or by the target's config.yaml.
    async fn branch(
        &self,
        repository: &Repository,
        tips: &Tips,
        before: Option<&Branches>,
    ) -> Result<Result<BranchName, Lack>, Fault> {
        let Some(commit) = tips.target.clone().filter(|_| repository.branch.is_none()) else {
            return Ok(repository.write_branch(None));
        };
        if let Some(side) =
            before.and_then(|view| view.target.as_ref()).filter(|side| side.commit == commit)
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
    ) -> Result<Tips, Fault> {
        let names: Vec<BranchName> =
            [Some(&repository.target), branch].into_iter().flatten().cloned().collect();
        let lock = self.lock(&repository.url);
        let _one = lock.lock().await;
        let there = self.mirror(&repository.url).refresh(remote, &names).await?;
        Ok(Tips {
            target: there.get(&repository.target).cloned(),
            write: branch.and_then(|branch| there.get(branch).cloned()),
        })
    }

    async fn load(
        &self,
        repository: &Repository,
        tips: Tips,
        branch: Result<BranchName, Lack>,
        before: Option<Arc<Branches>>,
    ) -> Result<Arc<Branches>, Fault> {
        if let Some(before) =
            before.as_ref().filter(|view| view.tips() == tips && view.branch == branch)
        {
            return Ok(before.clone());
        }
        // A repository without any of the branches has no mirror yet.
        if tips == Tips::default() {
            let message = format!(
                "neither {} nor a branch of beads exists in {}",
                repository.target, repository.url
            );
            return Err(Lack { reason: "BranchNotFound", message }.into());
        }
        let (mirror, path) = (self.mirror(&repository.url), repository.path.clone());
        let work =
            move || Branches::load(&mirror.objects()?, &path, &tips, branch, before.as_deref());
        Ok(Arc::new(blocking("read the store", work).await?))
    }

    async fn commit(
        &self,
        repository: &Repository,
        view: &Branches,
        news: &News<'_>,
    ) -> Result<CommitId, Fault> {
        let nothing =
            || GitError::new(Class::Local, "write the store", "there is nothing to write on");
        let (folder, name) = view.place().ok_or_else(nothing)?;
        let parent = view.base().ok_or_else(nothing)?.commit.clone();
        let (folder, name, bytes, second) =
            (folder.to_owned(), name.to_owned(), news.bytes.to_owned(), news.now.as_second());
        let message = news.applied.message(&format!("{} {}", news.rig, env!("CARGO_PKG_VERSION")));
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
    work: impl FnOnce() -> Result<T, folder::Error> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| GitError::new(Class::Local, doing, error.to_string()))??)
}
