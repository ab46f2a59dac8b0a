//! Git on the agent's side: pushes the agent's commits to the local origin, and fetches the target
//! branch from `upstream.git`.
//!
//! There are no credentials here, so whatever the agent writes into the repository harms only
//! itself. Our commands run without its hooks and configuration anyway, so that it cannot break the
//! saving of its own work by accident.

use std::time::Duration;

use gastown_git::Git;
use gastown_types::{BranchName, CommitId};

use crate::hostile;
use crate::paths::Paths;
use crate::refs;

/// The refs of the clone.
#[derive(Clone, PartialEq, Eq)]
struct CloneRefs {
    work: Option<CommitId>,
}

/// The agent's clone, its origin and the mirror of the target branch.
pub struct Workspace {
    paths: Paths,
    git: Git,
    work: BranchName,
    target: BranchName,
    /// The refs when they were last pushed.
    pushed: Option<CloneRefs>,
    /// The refs when [`Workspace::push_settled`] last read them.
    last: Option<CloneRefs>,
    /// The target branch's commit when it was last fetched.
    fetched: Option<CommitId>,
}

impl Workspace {
    /// Reads nothing yet.
    pub fn new(paths: &Paths, work: &BranchName, target: &BranchName) -> Self {
        let git = Git::from_env().with_deadline(Duration::from_mins(2));
        Self {
            paths: paths.clone(),
            git,
            work: work.clone(),
            target: target.clone(),
            pushed: None,
            last: None,
            fetched: None,
        }
    }

    fn read_refs(&self) -> Option<CloneRefs> {
        let git =
            hostile::descend(hostile::open_root(&self.paths.worktree()).ok()?, ".git").ok()?;
        Some(CloneRefs { work: refs::branch(&git, &self.work).ok().flatten() })
    }

    /// [`Workspace::push`], but only if the refs did not change since the last call: an agent that
    /// pushes right after its commit then does not collide with our lock.
    pub async fn push_settled(&mut self) {
        let now = self.read_refs();
        if now.is_some() && now == self.last {
            self.push().await;
        }
        self.last = now;
    }

    /// Pushes the work branch to the local origin when it moved. What the agent commits elsewhere the
    /// sidecar saves beside the branch.
    pub async fn push(&mut self) {
        let Some(now) = self.read_refs() else { return };
        if self.pushed.as_ref() == Some(&now) {
            return;
        }
        // A branch that did not move is not pushed again: the agent may have pushed another commit to
        // the origin's branch.
        let moved = match (&self.pushed, now.work.clone()) {
            (Some(pushed), work) if pushed.work == work => None,
            (None, Some(work)) if self.is_in_origin(&work).await => None,
            (_, work) => work,
        };
        if let Some(commit) = moved
            && !self.push_commit(&commit).await
        {
            return;
        }
        self.pushed = Some(now);
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
                tracing::info!(
                    commit = commit.as_str(),
                    "the work branch is pushed to the local origin"
                );
            }
            Err(e) => {
                tracing::warn!(error = %e, "the work branch cannot be pushed to the local origin");
                return false;
            }
        }
        true
    }

    /// Fetches the target branch into the local origin when it moved, so that the agent's `git fetch`
    /// gets the newest commits.
    pub async fn fetch_target(&mut self) {
        let upstream = self.paths.upstream_repo();
        let now = hostile::open_root(&upstream)
            .ok()
            .and_then(|dir| refs::branch(&dir, &self.target).ok().flatten());
        if now.is_none() || now == self.fetched {
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
        match call.doing("fetch the target branch").output().await {
            Ok(_) => self.fetched = now,
            Err(e) => {
                tracing::warn!(error = %e, "the target branch is not fetched into the local origin");
            }
        }
    }
}
