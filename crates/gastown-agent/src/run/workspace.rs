//! The agent's side of git: HEAD goes to the local origin, the fresh target comes from
//! `upstream.git`.
//!
//! No credentials are here, so whatever the agent planted harms only itself; our calls run without
//! its hooks and configuration anyway, so that it cannot break the saving of its own work by
//! accident.

use std::time::Duration;

use gastown_git::Git;
use gastown_types::{BranchName, CommitId};

use crate::hostile;
use crate::paths::Paths;
use crate::refs::{self, Head};

/// What the clone's refs say.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    head: Option<Head>,
    commit: Option<CommitId>,
    work: Option<CommitId>,
}

/// The clone, its origin and the target's mirror.
pub struct Workspace {
    paths: Paths,
    git: Git,
    work: BranchName,
    target: BranchName,
    /// The clone as it was last carried.
    seen: Option<Seen>,
    /// The clone at the last look.
    settling: Option<Seen>,
    /// The target as it was last taken.
    fresh: Option<CommitId>,
}

impl Workspace {
    /// Nothing is looked at yet.
    pub fn new(paths: &Paths, work: &BranchName, target: &BranchName) -> Self {
        let git = Git::from_env().with_deadline(Duration::from_secs(120));
        Self {
            paths: paths.clone(),
            git,
            work: work.clone(),
            target: target.clone(),
            seen: None,
            settling: None,
            fresh: None,
        }
    }

    fn look(&self) -> Option<Seen> {
        let git =
            hostile::descend(hostile::open_root(&self.paths.worktree()).ok()?, ".git").ok()?;
        Some(Seen {
            head: refs::head(&git).ok().flatten(),
            commit: refs::head_commit(&git).ok().flatten(),
            work: refs::branch(&git, &self.work).ok().flatten(),
        })
    }

    /// A rebase or bisection is under way: HEAD is nobody's result.
    fn is_between(&self) -> bool {
        let git = self.paths.worktree().join(".git");
        ["rebase-merge", "rebase-apply", "BISECT_LOG"]
            .iter()
            .any(|n| git.join(n).symlink_metadata().is_ok())
    }

    /// [`Workspace::push`] once the refs have stood still between two calls: an agent that pushes
    /// right after its commit does so without meeting our lock.
    pub async fn push_settled(&mut self) {
        let now = self.look();
        if now.is_some() && now == self.settling {
            self.push().await;
        }
        self.settling = now;
    }

    /// Pushes the work branch to the local origin when it moved, or a HEAD elsewhere that continues
    /// it.
    pub async fn push(&mut self) {
        let Some(now) = self.look() else { return };
        if self.seen.as_ref() == Some(&now) {
            return;
        }
        // A branch that stands still is not pushed again: the agent may have pushed another to its
        // place.
        let moved = match (&self.seen, now.work.clone()) {
            (Some(seen), work) if seen.work == work => None,
            (None, Some(work)) if self.is_in_origin(&work).await => None,
            (_, work) => work,
        };
        let on_branch = now.head == Some(Head::Branch(self.work.clone()));
        let between = !on_branch && self.is_between();
        let elsewhere = match &now.commit {
            Some(head) if !on_branch && !between => self.elsewhere(head).await,
            _ => None,
        };
        if let Some(commit) = elsewhere.or(moved)
            && !self.push_commit(&commit).await
        {
            return;
        }
        self.seen = Some(now);
    }

    /// Whether the local origin's branch holds the commit already.
    async fn is_in_origin(&self, commit: &CommitId) -> bool {
        let origin = self.paths.origin_repo();
        let call = self
            .git
            .call(["merge-base", "--is-ancestor", commit.as_str(), &self.work.full()])
            .repo(&origin);
        call.any_exit().output().await.is_ok_and(|o| o.status.success())
    }

    /// HEAD is not on the work branch: it counts when it continues it, so that looking at an old
    /// commit loses nothing.
    async fn elsewhere(&self, head: &CommitId) -> Option<CommitId> {
        let git_dir = self.paths.worktree().join(".git");
        let range = format!("{}..{head}", self.work.full());
        let ahead =
            self.git.call(["rev-list", "--count", &range]).repo(&git_dir).output().await.ok()?;
        let continues = self
            .git
            .call(["merge-base", "--is-ancestor", &self.work.full(), head.as_str()])
            .repo(&git_dir);
        let continues = continues.any_exit().output().await.is_ok_and(|o| o.status.success());
        (continues && ahead.stdout.trim_ascii() != b"0").then(|| head.clone())
    }

    async fn push_commit(&self, commit: &CommitId) -> bool {
        let (from, to) = (self.paths.worktree().join(".git"), self.paths.origin_repo());
        let spec = format!("+{commit}:{}", self.work.full());
        let args = [
            "push".as_ref(),
            "--quiet".as_ref(),
            "--no-verify".as_ref(),
            "--".as_ref(),
            to.as_os_str(),
            std::ffi::OsStr::new(&spec),
        ];
        let pushed = self
            .git
            .call(args)
            .repo(&from)
            .config("protocol.file.allow", "always")
            .doing("push to the local origin")
            .output()
            .await;
        match pushed {
            Ok(_) => {
                tracing::info!(commit = commit.as_str(), "the local origin has the work branch")
            }
            Err(e) => {
                tracing::warn!(error = %e, "the work branch cannot be pushed to the local origin");
                return false;
            }
        }
        true
    }

    /// Takes the target branch into the local origin when it moved, so that the agent's `git fetch`
    /// is fresh.
    pub async fn refresh(&mut self) {
        let upstream = self.paths.upstream_repo();
        let now = hostile::open_root(&upstream)
            .ok()
            .and_then(|dir| refs::branch(&dir, &self.target).ok().flatten());
        if now.is_none() || now == self.fresh {
            return;
        }
        let full = self.target.full();
        let spec = format!("+{full}:{full}");
        let args = [
            "fetch".as_ref(),
            "--quiet".as_ref(),
            "--no-tags".as_ref(),
            "--".as_ref(),
            upstream.as_os_str(),
            std::ffi::OsStr::new(&spec),
        ];
        let call = self
            .git
            .call(args)
            .repo(&self.paths.origin_repo())
            .config("protocol.file.allow", "always");
        match call.doing("take the target branch").output().await {
            Ok(_) => self.fresh = now,
            Err(e) => tracing::warn!(error = %e, "the local origin's target branch is not fresh"),
        }
    }
}
