//! Brings the agent's work to the remote: the work branch, and a snapshot of uncommitted changes.

use gastown_core::report::{SyncReport, SyncResult, VERSION};
use gastown_git::RefUpdate;
use gastown_types::CommitId;

use super::failure::Failure;
use super::repository::Repository;
use super::wip::Wip;
use crate::paths::Paths;
use crate::settings::SyncSettings;
use crate::termination::add_to_message;

/// Pushes the work branch and the snapshot, and knows how the last push of each ended.
pub struct Pusher {
    repository: Repository,
    wip: Wip,
    /// The work branch's commit in the agent's origin, when it was last read.
    branch: Option<CommitId>,
    /// How pushing the work branch ended.
    branch_result: Result<(), Failure>,
    /// How saving the working tree ended.
    tree_result: Result<(), Failure>,
}

impl Pusher {
    /// Continues where `gt init`, or an earlier run of the sidecar, ended.
    pub fn open(settings: SyncSettings, paths: Paths) -> std::io::Result<Self> {
        Ok(Self {
            repository: Repository::open(settings, paths)?,
            wip: Wip::default(),
            branch: None,
            branch_result: Ok(()),
            tree_result: Ok(()),
        })
    }

    /// Whether the agent's branch moved since it was last pushed. When it cannot be read: whether
    /// that is a new failure.
    pub fn has_moved(&self) -> bool {
        match self.repository.agents_branch() {
            Ok(now) => now != self.branch,
            Err(e) => self.branch_result != Err(e),
        }
    }

    /// Whether something failed that another attempt can repair.
    pub fn wants_retry(&self) -> bool {
        [&self.branch_result, &self.tree_result]
            .iter()
            .any(|result| result.as_ref().is_err_and(|failure| failure.retryable))
    }

    /// Pushes the work branch, and then the snapshot whether that succeeded or not.
    pub async fn push_all(&mut self) -> Result<(), Failure> {
        let branch = self.push_branch().await;
        let tree = self.save_tree().await;
        branch.and(tree)
    }

    /// Pushes the work branch.
    pub async fn push_branch(&mut self) -> Result<(), Failure> {
        // The result if this is cancelled at the end of the grace period.
        let cancelled = Failure::unreachable("the time ran out during the push");
        let before = std::mem::replace(&mut self.branch_result, Err(cancelled));
        self.branch_result = self.try_push_branch().await;
        if let Err(failure) = &self.branch_result
            && self.branch_result != before
        {
            tracing::warn!(result = ?failure.result, message = failure.message, "the work branch is not pushed");
        }
        self.branch_result.clone()
    }

    async fn try_push_branch(&mut self) -> Result<(), Failure> {
        if self.repository.state.pushing.is_some() {
            self.read_back().await?;
        }
        let branch = self.repository.agents_branch()?;
        self.branch.clone_from(&branch);
        let Some(branch) = branch else { return Ok(()) };
        if self.remote_holds(&branch) {
            return Ok(());
        }
        self.repository.import(&branch).await?;
        // A branch without commits of its own is not created on the remote.
        if self.repository.state.work.is_none()
            && self.repository.is_ancestor(&branch, &self.repository.target().await).await
        {
            return Ok(());
        }
        self.push_commit(branch).await
    }

    async fn push_commit(&mut self, commit: CommitId) -> Result<(), Failure> {
        self.repository.state.pushing = Some(commit.clone());
        self.repository.save_state()?;
        let update = RefUpdate {
            name: self.repository.settings.work.full(),
            expected: self.repository.state.work.clone(),
            new: Some(commit.clone()),
        };
        let pushed = self.repository.push(update).await;
        if let Err(failure) = &pushed {
            // The answer was lost, or somebody else moved the branch: only the remote knows.
            if failure.retryable || failure.result == SyncResult::PushRace {
                self.read_back().await?;
            }
            if self.remote_holds(&commit) {
                return Ok(());
            }
            self.repository.state.pushing = None;
            self.repository.save_state()?;
            return pushed;
        }
        self.read_back().await?;
        if self.remote_holds(&commit) {
            tracing::info!(commit = commit.as_str(), "the work branch is pushed");
            return Ok(());
        }
        Err(Failure::race("another writer moved the branch right after our push"))
    }

    fn remote_holds(&self, commit: &CommitId) -> bool {
        self.repository.state.work.as_ref() == Some(commit)
    }

    /// Reads the work branch from the remote after a push whose result is not known.
    async fn read_back(&mut self) -> Result<(), Failure> {
        let found = self.repository.remote_ref(&self.repository.settings.work.full()).await?;
        let state = &mut self.repository.state;
        if found == state.pushing {
            state.work = state.pushing.take();
        } else {
            state.pushing = None;
        }
        self.repository.save_state()
    }

    /// Saves uncommitted changes, and commits that the work branch does not hold, in a snapshot.
    pub async fn save_tree(&mut self) -> Result<(), Failure> {
        let result = self.wip.save(&mut self.repository, self.branch.as_ref()).await;
        if let Err(failure) = &result
            && self.tree_result != result
        {
            tracing::warn!(result = ?failure.result, message = failure.message, "the working tree is not saved");
        }
        self.tree_result.clone_from(&result);
        result
    }

    /// Fetches the target branch for the agent's side.
    pub async fn fetch_target(&self) -> Result<(), Failure> {
        self.repository.fetch_target().await
    }

    /// The first failure of the last push of the branch and of the snapshot.
    pub fn result(&self) -> Result<(), Failure> {
        self.branch_result.clone()?;
        self.tree_result.clone()
    }

    /// The work branch's commit on the remote.
    pub fn pushed_commit(&self) -> Option<CommitId> {
        self.repository.state.work.clone()
    }

    /// The snapshot's ref on the remote, when a snapshot is needed and there.
    pub fn wip_ref(&self) -> Option<String> {
        self.wip.is_on_remote.then(|| self.repository.settings.wip_ref.clone())
    }

    /// The push record.
    pub async fn report(&self) -> SyncReport {
        let mut report = SyncReport {
            v: VERSION,
            result: SyncResult::NoChanges,
            message: String::new(),
            commit: self.pushed_commit(),
            base: None,
            ahead: Some(0),
            unpushed: None,
            wip: self.wip_ref(),
            saved: Vec::new(),
            saved_more: 0,
            unsaved: Vec::new(),
            unsaved_more: 0,
        };
        if let Some(commit) = &report.commit {
            let (base, ahead) = self.repository.distance(commit).await;
            (report.base, report.ahead) = (base, Some(ahead));
            report.result = SyncResult::Pushed;
        }
        if let Err(failure) = &self.branch_result {
            report.result = failure.result;
            report.message.clone_from(&failure.message);
            report.unpushed = self.branch.clone().filter(|commit| !self.remote_holds(commit));
        }
        if let Err(failure) = &self.tree_result {
            let text = format!("the working tree could not be saved: {}", failure.message);
            add_to_message(&mut report, &text);
        }
        report
    }
}
