//! The deeds of the sidecar: carry the work branch, save the dirty tree, keep the target fresh.

use std::os::fd::OwnedFd;
use std::time::Duration;

use gastown_core::report::{SyncReport, SyncResult, VERSION};
use gastown_git::{Class, Git, GitError, PushOutcome, RefUpdate, Refusal, Remote};
use gastown_types::CommitId;

use crate::hostile::{self, Unreadable};
use crate::paths::Paths;
use crate::quarantine::{self, ImportError, Quarantine};
use crate::settings::Carry;
use crate::snapshot::{self, Cache};
use crate::state::State;
use crate::{credentials, refs};

/// Why the work is not where it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The record's word for it.
    pub result: SyncResult,
    /// One sentence.
    pub message: String,
    /// Trying again can help.
    pub transient: bool,
}

impl Trouble {
    fn of(e: &GitError) -> Self {
        let (result, transient) = match e.class {
            Class::Unreachable | Class::Timeout => (SyncResult::RemoteUnreachable, true),
            Class::Rejected(Refusal::Stale) => (SyncResult::PushRace, false),
            Class::AuthFailed
            | Class::PermissionDenied
            | Class::BadCredentials
            | Class::RepositoryNotFound
            | Class::UnknownHostKey
            | Class::HostKeyMismatch
            | Class::Rejected(_) => (SyncResult::PushRejected, false),
            Class::Corrupt => (SyncResult::BadObjects, false),
            Class::RefNotFound | Class::TooMuchOutput | Class::Local => {
                (SyncResult::Internal, true)
            }
        };
        Self { result, message: e.to_string(), transient }
    }

    fn internal(e: impl std::fmt::Display) -> Self {
        Self { result: SyncResult::Internal, message: e.to_string(), transient: true }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self { result: SyncResult::BadObjects, message: message.into(), transient: false }
    }
}

impl From<ImportError> for Trouble {
    fn from(e: ImportError) -> Self {
        match e {
            ImportError::Bad(message) => Self::bad(message),
            ImportError::Ours(message) => Self::internal(message),
        }
    }
}

/// What the last look at the agent's side came to.
type Done = Result<(), Trouble>;

/// The sidecar's memory and hands.
pub struct Carrier {
    settings: Carry,
    paths: Paths,
    git: Git,
    state: State,
    quarantine: Quarantine,
    cache: Cache,
    /// The agent's branch when it was last looked at.
    local: Option<CommitId>,
    /// How carrying it ended.
    carried: Done,
    /// The snapshot that is on the remote: its tree and parents, to know an unchanged one.
    saved: Option<(String, Vec<CommitId>)>,
    /// A snapshot is needed and is on the remote.
    wip: bool,
    /// How saving the tree ended.
    tree: Done,
}

impl Carrier {
    /// Takes up where init, or an earlier run of the sidecar, ended.
    pub fn open(settings: Carry, paths: Paths) -> std::io::Result<Self> {
        let state = State::load(&paths.state())?;
        let git = Git::from_env().with_deadline(Duration::from_secs(300));
        let quarantine = Quarantine::new(
            git.clone(),
            paths.private_repo(),
            &paths.private_tmp(),
            quarantine::Limits::default(),
        );
        let (cache, local, saved) = (Cache::default(), None, None);
        Ok(Self {
            settings,
            paths,
            git,
            state,
            quarantine,
            cache,
            local,
            carried: Ok(()),
            saved,
            wip: false,
            tree: Ok(()),
        })
    }

    fn remote(&self) -> Result<Remote, Trouble> {
        credentials::remote(&self.settings, &self.paths).map_err(|e| Trouble {
            result: SyncResult::PushRejected,
            message: e.message,
            transient: false,
        })
    }

    /// What the agent's branch is now.
    fn look(&self) -> Result<Option<CommitId>, Trouble> {
        let read = || -> Result<Option<CommitId>, Unreadable> {
            let origin =
                hostile::descend(hostile::open_root(&self.paths.workspace())?, "origin.git")?;
            refs::branch(&origin, &self.settings.work)
        };
        match read() {
            Ok(found) => Ok(found),
            Err(Unreadable::Missing) => Ok(None),
            Err(e) => Err(Trouble::bad(format!("the agent's origin.git cannot be read: {e}"))),
        }
    }

    /// Whether the agent's branch moved since it was last carried, or carrying it failed in
    /// passing.
    pub fn moved(&self) -> bool {
        match self.look() {
            Ok(now) => now != self.local,
            Err(e) => self.carried != Err(e),
        }
    }

    /// Whether something failed that another try can mend.
    pub fn wants_retry(&self) -> bool {
        [&self.carried, &self.tree].iter().any(|d| d.as_ref().is_err_and(|t| t.transient))
    }

    fn object_folders(&self) -> Vec<OwnedFd> {
        let Ok(workspace) = hostile::open_root(&self.paths.workspace()) else { return Vec::new() };
        ["origin.git/objects", "repo/.git/objects"]
            .iter()
            .filter_map(|p| hostile::descend(&workspace, p).ok())
            .collect()
    }

    async fn target(&self) -> CommitId {
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

    async fn import(&mut self, commit: &CommitId) -> Result<(), Trouble> {
        let mut known = vec![self.state.base.clone(), self.target().await];
        // What we pushed is in our store; what a resumed branch held is in upstream.git.
        known.extend(self.state.work.clone());
        let folders = self.object_folders();
        Ok(self.quarantine.import(commit, &folders, &known).await?)
    }

    async fn is_ancestor(&self, old: &CommitId, new: &CommitId) -> bool {
        let call = self
            .git
            .call(["merge-base", "--is-ancestor", old.as_str(), new.as_str()])
            .repo(&self.paths.private_repo());
        call.any_exit().output().await.is_ok_and(|o| o.status.success())
    }

    fn remember(&self) -> Result<(), Trouble> {
        self.state.save(&self.paths.state()).map_err(Trouble::internal)
    }

    /// Brings the agent's branch to the remote.
    pub async fn carry(&mut self) -> Done {
        // What stands when the time ends in the midst of it.
        let cut = Trouble {
            result: SyncResult::RemoteUnreachable,
            message: "the time ended while it was carried".into(),
            transient: true,
        };
        let before = std::mem::replace(&mut self.carried, Err(cut));
        self.carried = self.try_carry().await;
        if let Err(t) = &self.carried
            && self.carried != before
        {
            tracing::warn!(result = ?t.result, message = t.message, "the work branch is not on the remote");
        }
        self.carried.clone()
    }

    async fn try_carry(&mut self) -> Done {
        if self.state.pushing.is_some() {
            self.settle_interrupted().await?;
        }
        let local = self.look()?;
        self.local.clone_from(&local);
        let Some(local) = local else { return Ok(()) };
        if self.state.work.as_ref() == Some(&local) {
            return Ok(());
        }
        self.import(&local).await?;
        // A branch without a commit of its own is not made on the remote.
        if self.state.work.is_none() && self.is_ancestor(&local, &self.target().await).await {
            return Ok(());
        }
        self.state.pushing = Some(local.clone());
        self.remember()?;
        let update = RefUpdate {
            name: self.settings.work.full(),
            expected: self.state.work.clone(),
            new: Some(local.clone()),
        };
        let pushed = self.push(update).await;
        if let Err(t) = &pushed {
            // A lost answer, or a stranger: only the remote knows.
            if t.transient || t.result == SyncResult::PushRace {
                self.settle_interrupted().await?;
            }
            if self.state.work.as_ref() == Some(&local) {
                return Ok(());
            }
            self.state.pushing = None;
            self.remember()?;
            return pushed;
        }
        self.settle_interrupted().await?;
        if self.state.work.as_ref() == Some(&local) {
            tracing::info!(commit = local.as_str(), "the remote holds the work branch");
            return Ok(());
        }
        Err(Trouble {
            result: SyncResult::PushRace,
            message: "the branch was moved right after our push".into(),
            transient: false,
        })
    }

    /// Reads back where the work branch stands after a push whose fate is open.
    async fn settle_interrupted(&mut self) -> Done {
        let name = self.settings.work.full();
        let held = self
            .remote()?
            .ls_remote(&self.git, std::slice::from_ref(&name))
            .await
            .map_err(|e| Trouble::of(&e))?;
        if held.get(&name) == self.state.pushing.as_ref() {
            self.state.work = self.state.pushing.take();
        } else {
            self.state.pushing = None;
        }
        self.remember()
    }

    async fn push(&self, update: RefUpdate) -> Done {
        let (remote, repo) = (self.remote()?, self.paths.private_repo());
        let name = update.name.clone();
        let outcomes =
            remote.push(&self.git, &repo, &[update]).await.map_err(|e| Trouble::of(&e))?;
        match outcomes.into_iter().next() {
            Some(PushOutcome::Done | PushOutcome::UpToDate) => Ok(()),
            Some(PushOutcome::Rejected(Refusal::Stale, said)) => {
                let message = format!("another writer moved {name} ({said})");
                Err(Trouble { result: SyncResult::PushRace, message, transient: false })
            }
            Some(PushOutcome::Rejected(_, said)) => Err(Trouble {
                result: SyncResult::PushRejected,
                message: format!("the remote refused {name}: {said}"),
                transient: false,
            }),
            None => Err(Trouble::internal("git told nothing about the push")),
        }
    }

    /// Saves the dirty tree, and commits that the branch does not hold, when there are any.
    pub async fn save(&mut self) -> Done {
        let done = self.try_save().await;
        if let Err(t) = &done
            && self.tree != done
        {
            tracing::warn!(result = ?t.result, message = t.message, "the working tree is not saved");
        }
        self.tree.clone_from(&done);
        done
    }

    async fn try_save(&mut self) -> Done {
        let head = self.workspace_head().await;
        let base = head
            .clone()
            .or_else(|| self.state.work.clone())
            .unwrap_or_else(|| self.state.base.clone());
        let (tree, skipped, head_tree) = self.write_tree(&base).await?;
        let target = self.target().await;
        let mut parents = vec![base.clone()];
        if let Some(local) = self.local.clone() {
            // A branch that the remote refused goes along, if the snapshot's history lacks it.
            let carried = self.state.work.as_ref() == Some(&local);
            if !carried
                && !self.is_ancestor(&local, &base).await
                && self.import(&local).await.is_ok()
            {
                parents.push(local);
            }
        }
        let mut on_remote = self.is_ancestor(&base, &target).await;
        if let Some(work) = &self.state.work {
            on_remote |= self.is_ancestor(&base, work).await;
        }
        if tree == head_tree && on_remote && parents.len() == 1 {
            self.wip = false;
            return Ok(());
        }
        let this = (tree.clone(), parents.clone());
        if self.saved.as_ref() == Some(&this) {
            self.wip = true;
            return Ok(());
        }
        // Nothing uncommitted: the commit itself is the snapshot.
        let plain = tree == head_tree && parents.len() == 1 && skipped.is_empty();
        let commit = if plain { base } else { self.write_commit(&tree, &parents, &skipped)? };
        self.push_wip(commit).await?;
        self.saved = Some(this);
        self.wip = true;
        Ok(())
    }

    /// HEAD of the agent's clone, brought into our store; `None` when it makes no sense.
    async fn workspace_head(&mut self) -> Option<CommitId> {
        let read = || -> Result<Option<CommitId>, Unreadable> {
            let git = hostile::descend(hostile::open_root(&self.paths.workspace())?, "repo/.git")?;
            refs::head_commit(&git)
        };
        let head = read().ok().flatten()?;
        match self.import(&head).await {
            Ok(()) => Some(head),
            Err(t) => {
                tracing::warn!(message = t.message, "HEAD of the workspace cannot be taken");
                None
            }
        }
    }

    /// Writes the worktree's tree: its id, what was left out, and HEAD's tree.
    async fn write_tree(
        &mut self,
        head: &CommitId,
    ) -> Result<(String, Vec<String>, String), Trouble> {
        let (repo, clone, head) = (self.paths.private_repo(), self.paths.worktree(), head.clone());
        let mut cache = std::mem::take(&mut self.cache);
        let work = tokio::task::spawn_blocking(move || {
            let head_tree = tree_of(&repo, &head)?;
            let repo = open(&repo)?;
            let tree = snapshot::take(
                &repo,
                &clone,
                Some(head_tree),
                &mut cache,
                snapshot::Limits::default(),
            );
            let tree = tree.map_err(|e| match e {
                snapshot::SnapshotError::Worktree(_) => Trouble::bad(e.to_string()),
                snapshot::SnapshotError::Store(_) => Trouble::internal(e),
            })?;
            let mut skipped = tree.skipped;
            if tree.skipped_count > skipped.len() {
                skipped.push(format!("and {} more", tree.skipped_count - skipped.len()));
            }
            Ok::<_, Trouble>((tree.id.to_string(), skipped, head_tree.to_string(), cache))
        });
        let (tree, skipped, head_tree, cache) = work.await.map_err(Trouble::internal)??;
        self.cache = cache;
        Ok((tree, skipped, head_tree))
    }

    fn write_commit(
        &self,
        tree: &str,
        parents: &[CommitId],
        skipped: &[String],
    ) -> Result<CommitId, Trouble> {
        let repo = open(&self.paths.private_repo())?;
        let id = |text: &str| gix::ObjectId::from_hex(text.as_bytes()).map_err(Trouble::internal);
        let mut message = format!("Snapshot of the working tree on {}\n", self.settings.work);
        if !skipped.is_empty() {
            message.push_str("\nLeft out (as in the parent):\n");
            for line in skipped {
                message.extend(["- ", line, "\n"]);
            }
        }
        let seconds = jiff::Timestamp::now().as_second();
        let who = gix::actor::Signature {
            name: "Gas Town Polecat".into(),
            email: "polecat@gastown.io".into(),
            time: gix::date::Time { seconds, offset: 0 },
        };
        let commit = gix::objs::Commit {
            tree: id(tree)?,
            parents: parents.iter().map(|p| id(p.as_str())).collect::<Result<_, _>>()?,
            author: who.clone(),
            committer: who,
            encoding: None,
            message: message.into(),
            extra_headers: Vec::new(),
        };
        let written = repo.write_object(&commit).map_err(Trouble::internal)?;
        written.to_string().parse().map_err(Trouble::internal)
    }

    async fn push_wip(&mut self, commit: CommitId) -> Done {
        let name = self.settings.wip_ref.clone();
        let update =
            |expected| RefUpdate { name: name.clone(), expected, new: Some(commit.clone()) };
        let mut pushed = self.push(update(self.state.wip.clone())).await;
        if pushed.as_ref().is_err_and(|t| t.result == SyncResult::PushRace) {
            // The ref is this attempt's alone: it stands elsewhere only when an answer of ours was
            // lost.
            let held = self
                .remote()?
                .ls_remote(&self.git, std::slice::from_ref(&name))
                .await
                .map_err(|e| Trouble::of(&e))?;
            let found = held.get(&name).cloned();
            pushed = if found.as_ref() == Some(&commit) {
                Ok(())
            } else {
                self.push(update(found)).await
            };
        }
        pushed?;
        tracing::info!(commit = commit.as_str(), name, "the working tree is saved");
        self.state.wip = Some(commit);
        self.remember()
    }

    /// Fetches the target branch for the agent's side.
    pub async fn refresh_target(&self) -> Done {
        let full = self.settings.target.full();
        let fetched = self
            .remote()?
            .fetch(&self.git, &self.paths.upstream_repo(), &[format!("+{full}:{full}")])
            .await;
        fetched.map_err(|e| Trouble::of(&e))
    }

    /// Whether all is where it should be, or what lacks first.
    pub fn verdict(&self) -> Done {
        self.carried.clone()?;
        self.tree.clone()
    }

    /// The work branch's commit on the remote and the snapshot's ref.
    pub fn holds(&self) -> (Option<CommitId>, Option<String>) {
        (self.state.work.clone(), self.wip.then(|| self.settings.wip_ref.clone()))
    }

    /// The push record.
    pub async fn report(&self) -> SyncReport {
        let (commit, wip) = self.holds();
        let mut report = SyncReport {
            v: VERSION,
            result: SyncResult::NoChanges,
            message: String::new(),
            commit,
            base: None,
            ahead: 0,
            unpushed: None,
            wip,
        };
        if let Some(commit) = &report.commit {
            let (base, ahead) = self.measure(commit).await;
            (report.base, report.ahead) = (base, ahead);
            report.result = SyncResult::Pushed;
        }
        if let Err(t) = &self.carried {
            report.result = t.result;
            report.message.clone_from(&t.message);
            report.unpushed = self.local.clone().filter(|l| self.state.work.as_ref() != Some(l));
        }
        if let Err(t) = &self.tree {
            let space = if report.message.is_empty() { "" } else { "; " };
            report.message.extend([space, "the working tree could not be saved: ", &t.message]);
        }
        report
    }

    async fn measure(&self, commit: &CommitId) -> (Option<CommitId>, u32) {
        let (repo, target) = (self.paths.private_repo(), self.target().await);
        let base = self
            .git
            .call(["merge-base", target.as_str(), commit.as_str()])
            .repo(&repo)
            .output()
            .await;
        let ahead = self
            .git
            .call(["rev-list", "--count", commit.as_str(), &format!("^{target}")])
            .repo(&repo)
            .output()
            .await;
        let text = |o: Result<gastown_git::Output, GitError>| {
            o.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
        };
        (text(base).lines().next().and_then(|l| l.parse().ok()), text(ahead).parse().unwrap_or(0))
    }
}

fn open(path: &std::path::Path) -> Result<gix::Repository, Trouble> {
    gix::open_opts(path, gix::open::Options::isolated()).map_err(Trouble::internal)
}

fn tree_of(repo: &std::path::Path, commit: &CommitId) -> Result<gix::ObjectId, Trouble> {
    let repo = open(repo)?;
    let id = gix::ObjectId::from_hex(commit.as_str().as_bytes()).map_err(Trouble::internal)?;
    let commit = repo.find_commit(id).map_err(Trouble::internal)?;
    commit.tree_id().map(gix::Id::detach).map_err(Trouble::internal)
}
