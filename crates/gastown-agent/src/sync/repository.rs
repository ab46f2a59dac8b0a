//! The sidecar's own repository, what it imports from the agent's, and its access to the remote.

use std::os::fd::OwnedFd;

use gastown_git::{Git, PushOutcome, RefUpdate, Refusal, Remote};
use gastown_types::{CommitId, digest};

use super::failure::Failure;
use crate::hostile::{self, Unreadable};
use crate::paths::Paths;
use crate::quarantine::{self, Quarantine};
use crate::settings::SyncSettings;
use crate::state::State;
use crate::{credentials, fence, lfs, refs};

/// The repository, and the state file with what the remote holds.
pub(super) struct Repository {
    pub(super) settings: SyncSettings,
    pub(super) paths: Paths,
    pub(super) state: State,
    git: Git,
    pub(super) quarantine: Quarantine,
}

impl Repository {
    /// Opens the repository and the state file that `gt init`, or an earlier run of the sidecar, left.
    pub(super) fn open(settings: SyncSettings, paths: Paths) -> std::io::Result<Self> {
        let state = State::load(&paths.state())?;
        let git = Git::from_env();
        for repo in [paths.private_repo(), paths.upstream_repo()] {
            gastown_git::mirror::remove_leftovers(&repo);
        }
        let quarantine = Quarantine::new(
            git.clone(),
            paths.private_repo(),
            &paths.private_tmp(),
            quarantine::Limits::default(),
        );
        Ok(Self { settings, paths, state, git, quarantine })
    }

    /// Writes the state file.
    pub(super) fn save_state(&self) -> Result<(), Failure> {
        self.state.save(&self.paths.state()).map_err(Failure::internal)
    }

    /// The work branch's commit in the agent's origin.
    pub(super) fn agents_branch(&self) -> Result<Option<CommitId>, Failure> {
        let read = || -> Result<Option<CommitId>, Unreadable> {
            let origin =
                hostile::descend(hostile::open_root(&self.paths.workspace())?, "origin.git")?;
            refs::branch(&origin, &self.settings.work)
        };
        match read() {
            Ok(found) => Ok(found),
            Err(Unreadable::Missing) => Ok(None),
            Err(e) => {
                Err(Failure::bad_objects(format!("the agent's origin.git cannot be read: {e}")))
            }
        }
    }

    /// The commit of HEAD in the agent's clone.
    pub(super) fn agents_head_name(&self) -> Option<CommitId> {
        let read = || -> Result<Option<CommitId>, Unreadable> {
            let git = hostile::descend(hostile::open_root(&self.paths.workspace())?, "repo/.git")?;
            refs::head_commit(&git)
        };
        read().ok().flatten()
    }

    /// Whether a rebase or a bisection is in progress in the clone: its HEAD is no result then.
    pub(super) fn is_rebasing(&self) -> bool {
        let git = || {
            hostile::descend(hostile::open_root(&self.paths.workspace()).ok()?, "repo/.git").ok()
        };
        git().is_some_and(|git| {
            ["rebase-merge", "rebase-apply", "BISECT_LOG"]
                .iter()
                .any(|name| hostile::stat(&git, name.as_ref()).is_ok())
        })
    }

    /// HEAD of the agent's clone, imported; `None` when it is not valid.
    pub(super) async fn agents_head(&mut self) -> Option<CommitId> {
        let head = self.agents_head_name()?;
        match self.import(&head).await {
            Ok(()) => Some(head),
            Err(failure) => {
                tracing::warn!(
                    message = failure.message,
                    "HEAD of the workspace cannot be imported"
                );
                None
            }
        }
    }

    /// Imports a commit of the agent, and all that it needs.
    pub(super) async fn import(&mut self, commit: &CommitId) -> Result<(), Failure> {
        let mut known = vec![self.state.base.clone(), self.target().await];
        // What we pushed is in our repository; what a resumed branch held is in upstream.git.
        known.extend(self.state.work.clone());
        let folders = self.agents_objects();
        Ok(self.quarantine.import(commit, &folders, &known).await?)
    }

    fn agents_objects(&self) -> Vec<OwnedFd> {
        let Ok(workspace) = hostile::open_root(&self.paths.workspace()) else { return Vec::new() };
        ["origin.git/objects", "repo/.git/objects"]
            .iter()
            .filter_map(|p| hostile::descend(&workspace, p).ok())
            .collect()
    }

    /// The target branch's commit, as it was fetched last.
    pub(super) async fn target(&self) -> CommitId {
        let full = self.settings.target.full();
        let found = self
            .git
            .call(["rev-parse", "--verify", "--quiet", &full])
            .repo(&self.paths.upstream_repo())
            .output()
            .await;
        let text = found.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
        text.ok().and_then(|t| t.parse().ok()).unwrap_or_else(|| self.state.base.clone())
    }

    /// Whether `old` is an ancestor of `new`, or the same.
    pub(super) async fn is_ancestor(&self, old: &CommitId, new: &CommitId) -> bool {
        let call = self
            .git
            .call(["merge-base", "--is-ancestor", old.as_str(), new.as_str()])
            .repo(&self.paths.private_repo());
        call.any_exit().output().await.is_ok_and(|o| o.status.success())
    }

    /// The merge base of `commit` and the target branch, and how many commits it is ahead; `None`
    /// where git fails, which is not "none".
    pub(super) async fn distance(&self, commit: &CommitId) -> (Option<CommitId>, Option<u32>) {
        let target = self.target().await;
        let base = self.query(&["merge-base", target.as_str(), commit.as_str()]).await;
        let range = format!("^{target}");
        let ahead = self.query(&["rev-list", "--count", commit.as_str(), &range]).await;
        let base = base.and_then(|text| text.lines().next()?.parse().ok());
        (base, ahead.and_then(|text| text.parse().ok()))
    }

    /// A digest of `base` and of what each commit since then changes but for beads, which never land
    /// with it. Two branches with the same digest differ in messages, authors and empty commits only.
    pub(super) async fn changes(&self, base: &CommitId, commit: &CommitId) -> Option<String> {
        let range = format!("{base}..{commit}");
        let log = [
            "log",
            "--first-parent",
            "-m",
            "--raw",
            "--no-abbrev",
            "--no-renames",
            "--format=tformat:commit",
        ];
        let args = log.into_iter().chain([range.as_str(), "--", ":(exclude).beads"]);
        let args: Vec<&str> = args.collect();
        let changes = self.query(&args).await?;
        Some(digest::sha256(format!("{base}\n{changes}")))
    }

    /// What git prints; `None` when it fails.
    async fn query(&self, args: &[&str]) -> Option<String> {
        let output = self.git.call(args).repo(&self.paths.private_repo()).output().await;
        match output {
            Ok(output) => Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            Err(e) => {
                tracing::warn!(error = %e, "what the branch has beyond the target branch is not known");
                None
            }
        }
    }

    /// The remote, with the credentials that the pod holds at this moment.
    fn remote(&self) -> Result<Remote, Failure> {
        Ok(credentials::remote(&self.settings, &self.paths)?)
    }

    /// What the remote holds for good: the target branch, and the work branch.
    pub(super) async fn places(&self) -> Vec<CommitId> {
        let mut places = vec![self.state.base.clone(), self.target().await];
        places.extend(self.state.work.clone());
        places.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        places.dedup();
        places
    }

    /// Whether our repository has a commit.
    pub(super) async fn has(&self, commit: &CommitId) -> bool {
        let call = self
            .git
            .call(["cat-file", "-e", &format!("{commit}^{{commit}}")])
            .repo(&self.paths.private_repo());
        call.any_exit().output().await.is_ok_and(|o| o.status.success())
    }

    /// Whether a commit has a history in common with the target branch.
    pub(super) async fn is_ours(&self, commit: &CommitId) -> bool {
        self.quarantine.are_related(commit, &self.state.base).await
    }

    /// The commit of a ref on the remote.
    pub(super) async fn remote_ref(&self, name: &str) -> Result<Option<CommitId>, Failure> {
        let name = name.to_owned();
        let refs = self.remote()?.ls_remote(&self.git, std::slice::from_ref(&name)).await?;
        Ok(refs.get(&name).cloned())
    }

    /// Uploads the content of the LFS files that `commit` adds, before the commit is pushed.
    pub(super) async fn upload_lfs(&self, commit: &CommitId) -> Result<(), Failure> {
        let repo = self.paths.private_repo();
        if !gastown_git::lfs::is_used(&self.git, &repo, commit).await? {
            return Ok(());
        }
        let workspace = hostile::open_root(&self.paths.workspace()).map_err(Failure::internal)?;
        let agents: Vec<OwnedFd> = ["repo/.git/lfs/objects", "origin.git/lfs/objects"]
            .iter()
            .filter_map(|path| hostile::descend(&workspace, path).ok())
            .collect();
        let mut known = self.places().await;
        known.extend(self.state.wip.clone());
        let remote = self.remote()?;
        let uploaded = lfs::upload(&self.git, &remote, &repo, commit, &known, &agents).await?;
        for pointer in &uploaded.missing {
            tracing::warn!(oid = pointer.oid, "the content of an LFS file is not in the workspace");
        }
        Ok(())
    }

    /// Pushes the work branch, and with it the fence: a push of an attempt that another one has
    /// replaced fails as a whole.
    pub(super) async fn push_work(&mut self, update: RefUpdate) -> Result<(), Failure> {
        let Some(fence) = self.state.fence.clone() else { return self.push(update).await };
        let next = fence::next(&self.paths.private_repo(), &self.settings, Some(&fence))?;
        let name = fence::name(&self.settings);
        let moved = RefUpdate {
            name: name.clone(),
            expected: Some(fence.clone()),
            new: Some(next.clone()),
        };
        self.state.moving_fence = Some(next.clone());
        self.save_state()?;
        let (remote, repo) = (self.remote()?, self.paths.private_repo());
        let outcomes = remote.push(&self.git, &repo, &[update, moved]).await?;
        let mut failed: Vec<(Refusal, String)> = outcomes
            .into_iter()
            .filter_map(|outcome| match outcome {
                PushOutcome::Done | PushOutcome::UpToDate => None,
                PushOutcome::Rejected(refusal, message) => Some((refusal, message)),
            })
            .collect();
        // Of two refs that are refused together, one has the reason.
        failed.sort_by_key(|(refusal, _)| match refusal {
            Refusal::Stale => 0,
            Refusal::Hook | Refusal::Protected | Refusal::Http(_) => 1,
            Refusal::Other | Refusal::Locked => 2,
        });
        let failed = failed.into_iter().next();
        let Some((refusal, message)) = failed else {
            self.state.fence = Some(next);
            self.state.moving_fence = None;
            return self.save_state();
        };
        if refusal == Refusal::Stale {
            let there = self.remote_ref(&name).await?;
            if there.as_ref() == Some(&next) {
                self.state.fence = Some(next);
                self.state.moving_fence = None;
                return self.save_state();
            }
            if there.as_ref() != Some(&fence) {
                return Err(Failure::race(
                    "a later attempt of this Polecat has taken over the branch",
                ));
            }
        }
        Err(refused(&self.settings.work.full(), refusal, &message))
    }

    /// After a push whose answer was lost: whether the fence was moved with it.
    pub(super) async fn read_back_fence(&mut self) -> Result<(), Failure> {
        let Some(moving) = self.state.moving_fence.clone() else { return Ok(()) };
        if self.remote_ref(&fence::name(&self.settings)).await? == Some(moving.clone()) {
            self.state.fence = Some(moving);
        }
        self.state.moving_fence = None;
        Ok(())
    }

    /// Pushes one ref.
    pub(super) async fn push(&self, update: RefUpdate) -> Result<(), Failure> {
        let (remote, repo) = (self.remote()?, self.paths.private_repo());
        let name = update.name.clone();
        match remote.push(&self.git, &repo, &[update]).await?.into_iter().next() {
            Some(PushOutcome::Done | PushOutcome::UpToDate) => Ok(()),
            Some(PushOutcome::Rejected(refusal, message)) => Err(refused(&name, refusal, &message)),
            None => Err(Failure::internal("git reported no result of the push")),
        }
    }

    /// Fetches the target branch into `upstream.git`, where the agent's side reads it.
    pub(super) async fn fetch_target(&self) -> Result<(), Failure> {
        let full = self.settings.target.full();
        let refspec = format!("+{full}:{full}");
        self.remote()?.fetch(&self.git, &self.paths.upstream_repo(), &[refspec]).await?;
        Ok(())
    }
}

fn refused(name: &str, refusal: Refusal, message: &str) -> Failure {
    match refusal {
        Refusal::Stale => Failure::race(format!("another writer moved {name} ({message})")),
        Refusal::Hook | Refusal::Protected | Refusal::Http(_) => {
            Failure::rejected(format!("the remote refused {name}: {message}"))
        }
        Refusal::Locked => {
            Failure::unreachable(format!("the remote could not write {name}: {message}"))
        }
        Refusal::Other => Failure::refused(format!("the remote refused {name}: {message}")),
    }
}
