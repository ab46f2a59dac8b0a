//! Brings the agent's work to the remote: the work branch, and a snapshot of everything else.

use gastown_core::report::{SyncReport, SyncResult, VERSION};
use gastown_git::RefUpdate;
use gastown_proto::v1::Step;
use gastown_types::CommitId;
use tokio::time::Instant;

use super::failure::Failure;
use super::inventory::{Inventory, Kind, Tip};
use super::repository::Repository;
use super::wip::Wip;
use crate::paths::Paths;
use crate::settings::SyncSettings;
use crate::termination::add_to_message;

/// Earlier tips of the work branch that are named; older ones are in the chain of snapshots.
const REPLACED_MAX: usize = 20;

/// Pushes the work branch and the snapshot, and knows how the last push of each ended.
pub struct Pusher {
    repository: Repository,
    inventory: Inventory,
    wip: Wip,
    /// The work branch's commit in the agent's origin, when it was last read.
    branch: Option<CommitId>,
    /// How pushing the work branch ended.
    branch_result: Result<(), Failure>,
    /// How saving the rest of the workspace ended.
    tree_result: Result<(), Failure>,
    /// What the work branch held on the remote before we rewrote it.
    replaced: Vec<CommitId>,
    /// Which branches hold different work, when none is the work branch.
    ambiguous: Option<String>,
    /// HEAD of the clone when the workspace was last saved.
    saved_head: Option<CommitId>,
    /// When the last save began that was complete.
    complete: Option<Instant>,
    /// The pushes and snapshots since they were taken last.
    steps: Vec<Step>,
}

impl Pusher {
    /// Continues where `gt init`, or an earlier run of the sidecar, ended.
    pub fn open(settings: SyncSettings, paths: Paths) -> std::io::Result<Self> {
        Ok(Self {
            repository: Repository::open(settings, paths)?,
            inventory: Inventory::default(),
            wip: Wip::default(),
            branch: None,
            branch_result: Ok(()),
            tree_result: Ok(()),
            replaced: Vec::new(),
            ambiguous: None,
            saved_head: None,
            complete: None,
            steps: Vec::new(),
        })
    }

    /// The pushes and snapshots since this was called last.
    pub fn take_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// Notes what has just ended.
    fn note(&mut self, kind: &str, name: &str, begin_ms: i64, result: &Result<(), Failure>) {
        self.steps.push(Step {
            kind: kind.to_owned(),
            name: name.to_owned(),
            begin_ms,
            end_ms: crate::now_ms(),
            failure: result.as_ref().err().map(|f| f.message.clone()).unwrap_or_default(),
        });
    }

    /// Whether the agent's branch moved since it was last pushed. When it cannot be read: whether
    /// that is a new failure.
    pub fn has_moved(&self) -> bool {
        match self.repository.agents_branch() {
            Ok(now) => now != self.branch,
            Err(e) => self.branch_result != Err(e),
        }
    }

    /// Whether the agent has committed somewhere else than on the work branch.
    pub fn has_side_commit(&self) -> bool {
        let head = self.repository.agents_head_name();
        head.is_some()
            && head != self.saved_head
            && head != self.branch
            && head.as_ref() != Some(&self.repository.state.base)
    }

    /// Whether something is not on the remote and is to be tried again.
    pub fn wants_retry(&self) -> bool {
        self.branch_result.as_ref().is_err_and(|failure| failure.retryable)
            || self.tree_result.is_err()
    }

    /// When the last complete save began: everything that was there then is on the remote, or the
    /// remote refused it for good and it is in the snapshot.
    pub fn complete_since(&self) -> Option<Instant> {
        self.complete.filter(|_| !self.wants_retry())
    }

    /// Why work is not on the remote yet, in one sentence.
    pub fn saving(&self) -> Option<String> {
        let branch = self.branch_result.as_ref().err().filter(|failure| failure.retryable);
        let failure = branch.or_else(|| self.tree_result.as_ref().err())?;
        Some(format!("{}; tried again every 30 s{}", failure.message, self.pending()))
    }

    /// How many commits are in the pod only, as far as that is known: counted against what the remote
    /// is known to hold, whether it can be asked or not.
    fn pending(&self) -> String {
        let Some(count) = self.inventory.pending else {
            return "; how many commits are in the pod only is not known".to_owned();
        };
        let least = if self.inventory.damaged.is_empty() { "" } else { "at least " };
        let in_doubt = self.wip.in_doubt || self.repository.state.pushing.is_some();
        let known = if in_doubt { ", as far as is known" } else { "" };
        match count {
            0 => String::new(),
            1 => format!("; {least}1 commit is in the pod only{known}"),
            n => format!("; {least}{n} commits are in the pod only{known}"),
        }
    }

    /// Pushes the work branch, and then the snapshot whether that succeeded or not. `ending`: the
    /// agent has ended or must end, and a side branch may be what it meant as its work.
    pub async fn push_all(&mut self, ending: bool) -> Result<(), Failure> {
        let began = Instant::now();
        let mut branch = self.push_work().await;
        let before = self.begin_save();
        let walked = self.inventory.walk(&self.repository).await;
        if ending && branch.is_ok() && walked.is_ok() {
            branch = self.adopt().await;
            self.branch_result.clone_from(&branch);
        }
        let tree = self.save(before, walked).await;
        if !self.wants_retry() {
            self.complete = Some(began);
        }
        branch.and(tree)
    }

    /// Pushes the work branch. When that fails, it is counted what is in the pod only.
    pub async fn push_branch(&mut self) -> Result<(), Failure> {
        let result = self.push_work().await;
        if result.as_ref().is_err_and(|failure| failure.retryable)
            && let Err(failure) = self.inventory.take(&mut self.repository, &self.replaced).await
        {
            tracing::warn!(message = failure.message, "the commits of the pod are not counted");
        }
        result
    }

    async fn push_work(&mut self) -> Result<(), Failure> {
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
        let branch = self.repository.agents_branch()?;
        self.branch.clone_from(&branch);
        if self.repository.state.pushing.is_some() {
            self.read_back().await?;
        }
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
        // A side branch that was taken for the work, and continues it.
        if let Some(work) = self.repository.state.work.clone()
            && self.repository.state.adopted.as_ref() == Some(&work)
            && self.repository.is_ancestor(&branch, &work).await
        {
            return Ok(());
        }
        self.push_commit(branch).await
    }

    async fn push_commit(&mut self, commit: CommitId) -> Result<(), Failure> {
        self.keep_replaced(&commit).await?;
        self.repository.upload_lfs(&commit).await?;
        self.repository.state.pushing = Some(commit.clone());
        self.repository.save_state()?;
        let update = RefUpdate {
            name: self.repository.settings.work.full(),
            expected: self.repository.state.work.clone(),
            new: Some(commit.clone()),
        };
        let begin_ms = crate::now_ms();
        let pushed = self.repository.push_work(update).await;
        self.note("push", commit.as_str(), begin_ms, &pushed);
        if let Err(failure) = &pushed {
            // The answer was lost, or somebody else moved the branch: only the remote knows.
            if failure.leaves_doubt() || failure.result == SyncResult::PushRace {
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

    /// Before the work branch is rewritten, what it holds is saved with the snapshot: afterwards no
    /// ref would hold it.
    async fn keep_replaced(&mut self, new: &CommitId) -> Result<(), Failure> {
        let Some(old) = self.repository.state.work.clone() else { return Ok(()) };
        if self.repository.is_ancestor(&old, new).await {
            return Ok(());
        }
        if !self.replaced.contains(&old) {
            if self.replaced.len() == REPLACED_MAX {
                self.replaced.remove(0);
            }
            self.replaced.push(old);
        }
        self.inventory.forget_settled();
        // A remote that takes no snapshots at all must not keep the agent's work from it.
        match self.save_tree().await {
            Err(failure) if failure.retryable => Err(failure),
            _ => Ok(()),
        }
    }

    fn remote_holds(&self, commit: &CommitId) -> bool {
        self.repository.state.work.as_ref() == Some(commit)
    }

    /// Reads the work branch from the remote after a push whose result is not known.
    async fn read_back(&mut self) -> Result<(), Failure> {
        let found = self.repository.remote_ref(&self.repository.settings.work.full()).await?;
        self.repository.read_back_fence().await?;
        let state = &mut self.repository.state;
        if found == state.pushing {
            state.work = state.pushing.take();
        } else {
            state.pushing = None;
        }
        self.repository.save_state()
    }

    /// Takes a side branch for the work when the agent has committed on it only, or has continued
    /// the work branch on it. With several such branches, it is not known which is the work.
    async fn adopt(&mut self) -> Result<(), Failure> {
        self.ambiguous = None;
        self.inventory.compare(&mut self.repository, &self.replaced).await?;
        let work = self.repository.state.work.clone();
        let has_work = work != self.repository.state.start
            || self.branch.as_ref().is_some_and(|branch| self.inventory.is_own(branch));
        let mut candidates =
            self.inventory.candidates(&self.repository, self.branch.as_ref()).await;
        if self.repository.is_rebasing() {
            candidates.retain(|tip| tip.kind == Kind::Branch);
        }
        if let Some(work) = &work {
            candidates.retain(|tip| self.inventory.continues(tip, work));
        }
        match candidates.as_slice() {
            [] => Ok(()),
            [Tip { commit, of, .. }] => {
                tracing::info!(commit = commit.as_str(), of, "a side branch holds the work");
                let commit = commit.clone();
                self.repository.import(&commit).await?;
                self.repository.state.adopted = Some(commit.clone());
                self.push_commit(commit).await
            }
            _ if has_work => Ok(()),
            several => {
                let names: Vec<String> = several
                    .iter()
                    .map(|tip| format!("{} ({})", tip.of, tip.commit.short()))
                    .collect();
                self.ambiguous = Some(format!(
                    "{} is without commits, and different work is on {}",
                    self.repository.settings.work,
                    names.join(", ")
                ));
                Ok(())
            }
        }
    }

    /// Saves everything of the workspace that the work branch does not hold in the snapshot.
    pub async fn save_tree(&mut self) -> Result<(), Failure> {
        let before = self.begin_save();
        let walked = self.inventory.walk(&self.repository).await;
        self.save(before, walked).await
    }

    /// Sets the result for the case that the save is cancelled at the end of the grace period, and
    /// returns the one of the save before.
    fn begin_save(&mut self) -> Result<(), Failure> {
        let cancelled = Failure::unreachable("the time ran out while the workspace was saved");
        std::mem::replace(&mut self.tree_result, Err(cancelled))
    }

    /// As [`Pusher::save_tree`], after the walk through the workspace, which ended with `walked`.
    async fn save(
        &mut self,
        before: Result<(), Failure>,
        walked: Result<(), Failure>,
    ) -> Result<(), Failure> {
        let head = self.repository.agents_head_name();
        let result = match walked {
            Ok(()) => self.try_save_tree().await,
            failed => failed,
        };
        if let Err(failure) = &result
            && before != result
        {
            tracing::warn!(result = ?failure.result, message = failure.message, "the workspace is not saved");
        }
        if result.is_ok() {
            self.saved_head = head;
        }
        self.tree_result.clone_from(&result);
        result
    }

    async fn try_save_tree(&mut self) -> Result<(), Failure> {
        self.inventory.compare(&mut self.repository, &self.replaced).await?;
        let (before, begin_ms) = (self.repository.state.wip.clone(), crate::now_ms());
        let saved = self.wip.save(&mut self.repository, &self.inventory).await;
        let after = self.repository.state.wip.clone();
        if saved.is_err() || after != before {
            let commit = after.as_ref().map(CommitId::as_str).unwrap_or_default();
            self.note("save", commit, begin_ms, &saved);
        }
        saved?;
        self.inventory.pending = Some(0);
        Ok(())
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
        (!self.wip.saved.is_empty()).then(|| self.repository.settings.wip_ref.clone())
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
            changes: None,
            unpushed: None,
            wip: self.wip_ref(),
            saved: self.wip.saved.clone(),
            saved_more: 0,
            unsaved: self.wip.lost.clone(),
            unsaved_more: 0,
        };
        if let Some(commit) = &report.commit {
            (report.base, report.ahead) = self.repository.distance(commit).await;
            if let Some(base) = &report.base {
                report.changes = self.repository.changes(base, commit).await;
            }
            report.result = SyncResult::Pushed;
        }
        if let Some(message) = &self.ambiguous {
            report.result = SyncResult::AmbiguousWork;
            report.message.clone_from(message);
        }
        if let Err(failure) = &self.branch_result {
            report.result = failure.result;
            report.message.clone_from(&failure.message);
            report.unpushed = self.branch.clone().filter(|commit| !self.remote_holds(commit));
        }
        if let Err(failure) = &self.tree_result {
            let text = format!("the workspace could not be saved: {}", failure.message);
            add_to_message(&mut report, &text);
            report.unsaved.splice(0..0, self.wip.waiting.iter().cloned());
            if report.unsaved.is_empty() {
                report.unsaved.push("what the workspace holds is not known".to_owned());
            }
        }
        report
    }
}
