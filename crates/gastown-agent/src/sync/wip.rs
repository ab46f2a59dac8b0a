//! The snapshot of uncommitted work: a commit on a ref of the attempt's own, beside the work branch.

use gastown_core::report::SyncResult;
use gastown_git::RefUpdate;
use gastown_types::CommitId;

use super::failure::Failure;
use super::repository::Repository;
use crate::snapshot::{self, Cache, SnapshotError};

/// What the last snapshot was.
#[derive(Default)]
pub(super) struct Wip {
    cache: Cache,
    /// The tree and the parents of the snapshot that is on the remote, to recognize an unchanged one.
    pushed: Option<(String, Vec<CommitId>)>,
    /// A snapshot is needed, and it is on the remote.
    pub(super) is_on_remote: bool,
}

/// The working tree, written into the sidecar's repository.
struct WorkingTree {
    tree: String,
    /// The tree of the commit that it was compared with.
    head_tree: String,
    /// Files that were left out, each with the reason.
    skipped: Vec<String>,
}

impl Wip {
    /// Saves uncommitted changes, and commits that the work branch does not hold, when there are any.
    /// `branch` is the work branch's commit in the agent's origin.
    pub(super) async fn save(
        &mut self,
        repository: &mut Repository,
        branch: Option<&CommitId>,
    ) -> Result<(), Failure> {
        let head = repository.agents_head().await;
        let base = head
            .or_else(|| repository.state.work.clone())
            .unwrap_or_else(|| repository.state.base.clone());
        let found = self.write_tree(repository, &base).await?;
        let is_clean = found.tree == found.head_tree;
        let mut parents = vec![base.clone()];
        parents.extend(unpushed(repository, branch, &base).await);
        if is_clean && parents.len() == 1 && is_on_remote(repository, &base).await {
            self.is_on_remote = false;
            return Ok(());
        }
        let this = (found.tree.clone(), parents.clone());
        if self.pushed.as_ref() != Some(&this) {
            // Nothing is uncommitted: the commit itself is the snapshot.
            let commit = if is_clean && parents.len() == 1 && found.skipped.is_empty() {
                base
            } else {
                write_commit(repository, &found, &parents)?
            };
            push(repository, commit).await?;
            self.pushed = Some(this);
        }
        self.is_on_remote = true;
        Ok(())
    }

    async fn write_tree(
        &mut self,
        repository: &Repository,
        head: &CommitId,
    ) -> Result<WorkingTree, Failure> {
        let (repo, clone) = (repository.paths.private_repo(), repository.paths.worktree());
        let (head, mut cache) = (head.clone(), std::mem::take(&mut self.cache));
        let work = tokio::task::spawn_blocking(move || {
            let repo = open(&repo)?;
            let head_tree = tree_of(&repo, &head)?;
            let limits = snapshot::Limits::default();
            let tree = snapshot::take(&repo, &clone, Some(head_tree), &mut cache, limits);
            let tree = tree.map_err(|e| match e {
                SnapshotError::Worktree(_) => Failure::bad_objects(e.to_string()),
                SnapshotError::Store(_) => Failure::internal(e),
            })?;
            let mut skipped = tree.skipped;
            if tree.skipped_count > skipped.len() {
                skipped.push(format!("and {} more", tree.skipped_count - skipped.len()));
            }
            let (tree, head_tree) = (tree.id.to_string(), head_tree.to_string());
            Ok::<_, Failure>((WorkingTree { tree, head_tree, skipped }, cache))
        });
        let (tree, cache) = work.await.map_err(Failure::internal)??;
        self.cache = cache;
        Ok(tree)
    }
}

/// A work branch that is not on the remote, such as one that the remote refused, goes into the
/// snapshot unless its commits are in there already.
async fn unpushed(
    repository: &mut Repository,
    branch: Option<&CommitId>,
    base: &CommitId,
) -> Option<CommitId> {
    let branch = branch.filter(|commit| repository.state.work.as_ref() != Some(*commit))?;
    if repository.is_ancestor(branch, base).await {
        return None;
    }
    repository.import(branch).await.ok().map(|()| branch.clone())
}

async fn is_on_remote(repository: &Repository, commit: &CommitId) -> bool {
    if let Some(work) = &repository.state.work
        && repository.is_ancestor(commit, work).await
    {
        return true;
    }
    repository.is_ancestor(commit, &repository.target().await).await
}

fn write_commit(
    repository: &Repository,
    found: &WorkingTree,
    parents: &[CommitId],
) -> Result<CommitId, Failure> {
    let repo = open(&repository.paths.private_repo())?;
    let id = |text: &str| gix::ObjectId::from_hex(text.as_bytes()).map_err(Failure::internal);
    let mut message = format!("Snapshot of the working tree on {}\n", repository.settings.work);
    if !found.skipped.is_empty() {
        message.push_str("\nLeft out (as in the parent):\n");
        for line in &found.skipped {
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
        tree: id(&found.tree)?,
        parents: parents.iter().map(|p| id(p.as_str())).collect::<Result<_, _>>()?,
        author: who.clone(),
        committer: who,
        encoding: None,
        message: message.into(),
        extra_headers: Vec::new(),
    };
    let written = repo.write_object(&commit).map_err(Failure::internal)?;
    written.to_string().parse().map_err(Failure::internal)
}

async fn push(repository: &mut Repository, commit: CommitId) -> Result<(), Failure> {
    let name = repository.settings.wip_ref.clone();
    let update = |expected| RefUpdate { name: name.clone(), expected, new: Some(commit.clone()) };
    let mut pushed = repository.push(update(repository.state.wip.clone())).await;
    if pushed.as_ref().is_err_and(|failure| failure.result == SyncResult::PushRace) {
        // The ref is this attempt's alone: it holds another commit only when the answer to a push of
        // ours was lost.
        let found = repository.remote_ref(&name).await?;
        pushed = if found.as_ref() == Some(&commit) {
            Ok(())
        } else {
            repository.push(update(found)).await
        };
    }
    pushed?;
    tracing::info!(commit = commit.as_str(), name, "the working tree is saved");
    repository.state.wip = Some(commit);
    repository.save_state()
}

fn open(path: &std::path::Path) -> Result<gix::Repository, Failure> {
    gix::open_opts(path, gix::open::Options::isolated()).map_err(Failure::internal)
}

fn tree_of(repo: &gix::Repository, commit: &CommitId) -> Result<gix::ObjectId, Failure> {
    let id = gix::ObjectId::from_hex(commit.as_str().as_bytes()).map_err(Failure::internal)?;
    let commit = repo.find_commit(id).map_err(Failure::internal)?;
    commit.tree_id().map(gix::Id::detach).map_err(Failure::internal)
}
