//! The snapshot: one ref of the attempt's own, beside the work branch, from which everything can be
//! reached that the remote does not hold otherwise: uncommitted files, side branches, stashes, what
//! was left behind by a rewrite, nested repositories.
//!
//! Its commits are a chain: each has the one before as its last parent, also across attempts. The
//! first parent is the commit that the working tree is compared with.

use std::os::fd::OwnedFd;

use gastown_core::report::{Saved, SyncResult};
use gastown_git::RefUpdate;
use gastown_types::CommitId;
use gix::ObjectId;

use super::failure::Failure;
use super::inventory::{Inventory, Kind, Tip, summary};
use super::repository::Repository;
use crate::commits;
use crate::hostile::{self, Unreadable};
use crate::snapshot::{self, Cache, Excluded, SnapshotError};
use crate::walk::Tree;

/// The line of a snapshot's message with the commit that its tree is compared with.
pub const BASE: &str = "Gastown-Base: ";
/// The line of a snapshot's message that shows whether its tree has uncommitted changes.
pub const TREE: &str = "Gastown-Tree: ";
/// The value of [`TREE`] for a tree with uncommitted changes.
pub const DIRTY: &str = "dirty";

/// Parents of one commit; more are gathered by further commits.
const PARENTS_MAX: usize = 500;
/// Names in a snapshot's message.
const NAMES_MAX: usize = 20_000;

/// What the last snapshot was.
#[derive(Default)]
pub(super) struct Wip {
    cache: Cache,
    /// What the snapshot on the remote holds, to recognize an unchanged one.
    pushed: Option<Content>,
    /// What is saved beside the work branch, while anything is.
    pub(super) saved: Vec<Saved>,
    /// What could not be saved, and never can.
    pub(super) lost: Vec<String>,
    /// What waits to be saved, while the last try failed.
    pub(super) waiting: Vec<String>,
    /// The remote's answer to a push was lost: it may hold a snapshot that is not known here.
    pub(super) in_doubt: bool,
}

/// Everything that a snapshot is made of.
#[derive(Clone)]
struct Content {
    base: CommitId,
    tree: String,
    dirty: bool,
    /// Commits that it has to reach, and the snapshot before it does not.
    heads: Vec<CommitId>,
    /// What the heads and their ancestors were called.
    tips: Vec<Tip>,
    /// Uncommitted files outside of the clone: what they are, their tree, the commit they are
    /// compared with, and how many were left out.
    others: Vec<Other>,
    skipped: Vec<String>,
    skipped_count: usize,
}

#[derive(Clone, PartialEq, Eq)]
struct Other {
    of: String,
    tree: String,
    head: Option<CommitId>,
    skipped: usize,
}

impl Content {
    fn is_needed(&self) -> bool {
        self.dirty || !self.tips.is_empty() || !self.others.is_empty()
    }

    /// Whether a snapshot of `before` holds all of this.
    fn is_in(&self, before: &Self) -> bool {
        let Self { base, tree, dirty, heads, tips, others, skipped, skipped_count } = self;
        heads.is_empty()
            && (base, tree, dirty, tips)
                == (&before.base, &before.tree, &before.dirty, &before.tips)
            && (others, skipped, skipped_count)
                == (&before.others, &before.skipped, &before.skipped_count)
    }
}

/// A working tree, written into the sidecar's repository.
struct Written {
    tree: String,
    is_clean: bool,
    skipped: Vec<String>,
    skipped_count: usize,
}

impl Wip {
    /// Saves everything that the remote does not hold otherwise. `inventory` has just been taken.
    pub(super) async fn save(
        &mut self,
        repository: &mut Repository,
        inventory: &Inventory,
    ) -> Result<(), Failure> {
        self.lost.clone_from(&inventory.damaged);
        let content = self.content(repository, inventory).await?;
        self.waiting = names(&content);
        let has_dirty = repository.state.wip_exists && repository.state.wip_dirty;
        if !content.is_needed() && !has_dirty {
            self.saved.clear();
            self.waiting.clear();
            return Ok(());
        }
        if !self.pushed.as_ref().is_some_and(|pushed| content.is_in(pushed)) {
            let commit = write(repository, &content)?;
            repository.upload_lfs(&commit).await?;
            let pushed = push(repository, commit, content.dirty).await;
            self.in_doubt = match &pushed {
                Ok(()) => false,
                Err(failure) => self.in_doubt || failure.leaves_doubt(),
            };
            pushed?;
            self.pushed = Some(content.clone());
        }
        self.waiting.clear();
        self.saved = saved(repository, &content);
        Ok(())
    }

    async fn content(
        &mut self,
        repository: &mut Repository,
        inventory: &Inventory,
    ) -> Result<Content, Failure> {
        let head = repository.agents_head().await;
        let base = head
            .or_else(|| repository.state.work.clone())
            .unwrap_or_else(|| repository.state.base.clone());
        let clone = repository.paths.worktree();
        let root = tokio::task::spawn_blocking(move || hostile::open_root(&clone)).await;
        let (main, others) = match root.map_err(Failure::internal)? {
            Ok(root) => {
                let cache = std::mem::take(&mut self.cache);
                let (written, cache) =
                    write_tree(repository, root, Some(base.clone()), Excluded::new(), cache)
                        .await?;
                self.cache = cache;
                (Some(written), others(repository, inventory).await?)
            }
            Err(Unreadable::Missing) => (None, others(repository, inventory).await?),
            Err(e) => {
                self.lost.push(format!("the files of the clone: {e}"));
                (None, others(repository, inventory).await?)
            }
        };
        let main = match main {
            Some(main) => main,
            // There is no clone any more: the tree is that of its last commit.
            None => Written {
                tree: tree_of(&commits::open(&repository.paths.private_repo())?, &base)?
                    .to_string(),
                is_clean: true,
                skipped: Vec::new(),
                skipped_count: 0,
            },
        };
        Ok(Content {
            base,
            tree: main.tree,
            dirty: !main.is_clean,
            heads: inventory.heads.clone(),
            tips: inventory.tips.clone(),
            others,
            skipped: main.skipped,
            skipped_count: main.skipped_count,
        })
    }
}

/// The uncommitted files outside of the clone: of other working trees, and below the workspace in no
/// repository at all.
async fn others(repository: &Repository, inventory: &Inventory) -> Result<Vec<Other>, Failure> {
    let mut outside: Excluded = [b"repo".to_vec(), b"origin.git".to_vec()].into();
    outside.extend(inventory.folders().iter().map(|path| path.clone().into_bytes()));
    let mut found = Vec::new();
    for Tree { path, root, head } in inventory.trees() {
        if path == "repo" {
            continue;
        }
        let root = rustix::io::dup(root).map_err(Failure::internal)?;
        let of = format!("uncommitted files in {}", gastown_types::text::line(path, 120));
        found.extend(other(repository, root, head.clone(), Excluded::new(), of).await?);
    }
    let workspace = hostile::open_root(&repository.paths.workspace()).map_err(Failure::internal)?;
    let of = "files in /workspace outside of the clone".to_owned();
    found.extend(other(repository, workspace, None, outside, of).await?);
    Ok(found)
}

async fn other(
    repository: &Repository,
    root: OwnedFd,
    head: Option<CommitId>,
    exclude: Excluded,
    of: String,
) -> Result<Option<Other>, Failure> {
    let head = match head {
        Some(head) if repository.has(&head).await => Some(head),
        // HEAD is another project's commit. Its objects are not imported only to see that nothing
        // was changed.
        Some(foreign) => {
            let again = rustix::io::dup(&root).map_err(Failure::internal)?;
            if is_unchanged(repository, again, foreign).await {
                return Ok(None);
            }
            None
        }
        None => None,
    };
    let (written, _) =
        write_tree(repository, root, head.clone(), exclude, Cache::default()).await?;
    let skipped = written.skipped_count;
    Ok((!written.is_clean).then_some(Other { of, tree: written.tree, head, skipped }))
}

/// Whether a working tree is as its HEAD, whose objects are among the quarantine's copies.
async fn is_unchanged(repository: &Repository, root: OwnedFd, head: CommitId) -> bool {
    let Ok(scratch) = repository.quarantine.scratch().await else { return false };
    let work = tokio::task::spawn_blocking(move || {
        let repo = commits::open(&scratch).ok()?;
        let tree = tree_of(&repo, &head).ok()?;
        let (mut cache, limits) = (Cache::default(), snapshot::Limits::default());
        let none = Excluded::new();
        let taken = snapshot::take(&repo, &root, Some(tree), &none, &mut cache, limits).ok()?;
        Some(taken.id == tree)
    });
    work.await.ok().flatten().unwrap_or(false)
}

async fn write_tree(
    repository: &Repository,
    root: OwnedFd,
    head: Option<CommitId>,
    exclude: Excluded,
    mut cache: Cache,
) -> Result<(Written, Cache), Failure> {
    let repo = repository.paths.private_repo();
    let work = tokio::task::spawn_blocking(move || {
        let repo = commits::open(&repo)?;
        let head_tree = head.as_ref().map(|head| tree_of(&repo, head)).transpose()?;
        let limits = snapshot::Limits::default();
        let taken = snapshot::take(&repo, &root, head_tree, &exclude, &mut cache, limits);
        let tree = match taken {
            Ok(tree) => tree,
            Err(SnapshotError::Store(e)) => return Err(Failure::internal(e)),
            // It was there a moment ago.
            Err(SnapshotError::Worktree(e)) => return Err(Failure::internal(e)),
        };
        let unchanged = head_tree.unwrap_or_else(|| ObjectId::empty_tree(repo.object_hash()));
        let mut skipped = tree.skipped;
        if tree.skipped_count > skipped.len() {
            skipped.push(format!("and {} more", tree.skipped_count - skipped.len()));
        }
        let written = Written {
            tree: tree.id.to_string(),
            is_clean: tree.id == unchanged,
            skipped,
            skipped_count: tree.skipped_count,
        };
        Ok::<_, Failure>((written, cache))
    });
    work.await.map_err(Failure::internal)?
}

/// What the content is called, for a person.
fn names(content: &Content) -> Vec<String> {
    let mut names = Vec::new();
    if content.dirty {
        names.push("uncommitted files".to_owned());
    }
    names.extend(content.others.iter().map(|other| other.of.clone()));
    for ((_, of), commit) in summary(&content.tips) {
        names.push(format!("{of} ({})", commit.short()));
    }
    names.extend(left_behind(&content.tips));
    names
}

/// What only reflogs name, in one entry.
fn left_behind(tips: &[Tip]) -> Option<String> {
    let count = tips.iter().filter(|t| t.kind == Kind::Log).count();
    (count > 0).then(|| format!("commits that only reflogs name: {count}"))
}

/// What is on the remote beside the work branch, most important first.
fn saved(repository: &Repository, content: &Content) -> Vec<Saved> {
    let Some(snapshot) = repository.state.wip.clone() else { return Vec::new() };
    let name = repository.settings.wip_ref.clone();
    let entry = |commit: CommitId, of: String, skipped: usize| Saved {
        r#ref: name.clone(),
        commit,
        of,
        skipped: u32::try_from(skipped).unwrap_or(u32::MAX),
    };
    let mut saved = Vec::new();
    if content.dirty {
        let of = "uncommitted files".to_owned();
        saved.push(entry(snapshot.clone(), of, content.skipped_count));
    }
    for other in &content.others {
        saved.push(entry(snapshot.clone(), other.of.clone(), other.skipped));
    }
    for ((_, of), commit) in summary(&content.tips) {
        saved.push(entry(commit, of, 0));
    }
    saved.extend(left_behind(&content.tips).map(|of| entry(snapshot, of, 0)));
    saved
}

/// Writes the snapshot's commit, and those that it gathers.
fn write(repository: &Repository, content: &Content) -> Result<CommitId, Failure> {
    let repo = commits::open(&repository.paths.private_repo())?;
    let mut others = Vec::new();
    for other in &content.others {
        let parents: Vec<CommitId> = other.head.clone().into_iter().collect();
        others.push(commit(&repo, &other.tree, &parents, format!("Snapshot of {}\n", other.of))?);
    }
    let mut reached: Vec<CommitId> =
        content.heads.iter().filter(|head| **head != content.base).cloned().collect();
    if reached.len() > PARENTS_MAX {
        reached = vec![gather(&repo, &content.tree, &reached)?];
    }
    let mut parents = vec![content.base.clone()];
    parents.extend(others);
    parents.extend(reached);
    parents.extend(repository.state.wip.clone().filter(|before| *before != content.base));
    commit(&repo, &content.tree, &parents, message(repository, content))
}

/// Writes a chain of commits that reaches all of `heads`, and returns its last one.
///
/// git walks through histories by date, with a list whose every insertion looks at all commits of
/// that time. So the newest heads come first, and each commit of the chain is as old as the heads
/// that come before it: git then reaches the next heads only when it is done with these, and the list
/// stays short. Side by side, 100,000 heads took minutes at each end of a push.
fn gather(repo: &gix::Repository, tree: &str, heads: &[CommitId]) -> Result<CommitId, Failure> {
    let dated: Result<Vec<_>, Failure> =
        heads.iter().map(|head| Ok((commits::time(repo, head)?, head.clone()))).collect();
    let mut dated = dated?;
    dated.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.as_str().cmp(y.as_str())));
    let tree = ObjectId::from_hex(tree.as_bytes()).map_err(Failure::internal)?;
    let mut chunks = dated.chunks(PARENTS_MAX).rev().peekable();
    let mut last = None;
    while let Some(chunk) = chunks.next() {
        let parents: Vec<CommitId> =
            chunk.iter().map(|(_, head)| head.clone()).chain(last).collect();
        let newer = chunks.peek().and_then(|chunk| chunk.last()).map(|(time, _)| *time);
        let message = "Commits of the workspace\n".to_owned();
        last = Some(match newer {
            Some(time) => commits::write_at(repo, tree, &parents, message, time)?,
            None => commits::write(repo, tree, &parents, message)?,
        });
    }
    last.ok_or_else(|| Failure::internal("no commits to gather"))
}

fn message(repository: &Repository, content: &Content) -> String {
    use std::fmt::Write as _;
    let state = if content.dirty { DIRTY } else { "clean" };
    let mut text = format!("Snapshot of the working tree on {}\n", repository.settings.work);
    let _ = write!(text, "\n{BASE}{}\n{TREE}{state}\n", content.base);
    let names = summary(&content.tips);
    if !names.is_empty() {
        text.push_str("\nCommits:\n");
    }
    for ((_, of), commit) in names.into_iter().take(NAMES_MAX) {
        let _ = writeln!(text, "- {commit} {of}");
    }
    if let Some(left) = left_behind(&content.tips) {
        let _ = writeln!(text, "- {left}");
    }
    if !content.skipped.is_empty() {
        text.push_str("\nLeft out (as in the parent):\n");
        for line in &content.skipped {
            let _ = writeln!(text, "- {line}");
        }
    }
    text
}

fn commit(
    repo: &gix::Repository,
    tree: &str,
    parents: &[CommitId],
    message: String,
) -> Result<CommitId, Failure> {
    let tree = ObjectId::from_hex(tree.as_bytes()).map_err(Failure::internal)?;
    commits::write(repo, tree, parents, message)
}

async fn push(repository: &mut Repository, commit: CommitId, dirty: bool) -> Result<(), Failure> {
    let name = repository.settings.wip_ref.clone();
    let update = |expected| RefUpdate { name: name.clone(), expected, new: Some(commit.clone()) };
    let there = repository.state.wip.clone().filter(|_| repository.state.wip_exists);
    let mut pushed = repository.push(update(there)).await;
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
    tracing::info!(commit = commit.as_str(), name, "the workspace is saved");
    repository.state.wip = Some(commit);
    (repository.state.wip_exists, repository.state.wip_dirty) = (true, dirty);
    repository.save_state()
}

fn tree_of(repo: &gix::Repository, commit: &CommitId) -> Result<ObjectId, Failure> {
    let id = ObjectId::from_hex(commit.as_str().as_bytes()).map_err(Failure::internal)?;
    let commit = repo.find_commit(id).map_err(Failure::internal)?;
    commit.tree_id().map(gix::Id::detach).map_err(Failure::internal)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// The order in which git reaches them is by date alone.
        #[test]
        fn gathered_heads_are_reached_a_few_at_a_time(
            times in proptest::collection::vec(0..50_i64, 1..3 * PARENTS_MAX),
        ) {
            let dir = tempfile::tempdir().unwrap();
            gix::init_bare(dir.path()).unwrap();
            let repo = commits::open(dir.path()).unwrap();
            let tree = repo.write_object(gix::objs::Tree::empty()).unwrap().detach();
            let made = times.iter().enumerate().map(|(n, at)| {
                commits::write_at(&repo, tree, &[], n.to_string(), 5_000_000_000 + at).unwrap()
            });
            let heads: Vec<CommitId> = made.collect();
            let mut wanted: BTreeSet<&str> = heads.iter().map(CommitId::as_str).collect();
            let time: HashMap<&str, i64> =
                heads.iter().map(CommitId::as_str).zip(times.iter().map(|t| 5_000_000_000 + t)).collect();
            let mut next = Some(gather(&repo, &tree.to_string(), &heads).unwrap().to_string());
            let mut before = i64::MAX;
            while let Some(id) = next.take() {
                let id: CommitId = id.parse().unwrap();
                let at = commits::time(&repo, &id).unwrap();
                prop_assert!(at <= before, "it is reached when the heads before it are done");
                let commit = repo.find_commit(ObjectId::from_hex(id.as_str().as_bytes()).unwrap()).unwrap();
                let parents: Vec<String> = commit.parent_ids().map(|p| p.to_string()).collect();
                prop_assert!(parents.len() <= PARENTS_MAX + 1);
                for parent in parents {
                    if let Some(time) = time.get(parent.as_str()) {
                        prop_assert!(wanted.remove(parent.as_str()) && *time <= at);
                        before = before.min(*time);
                    } else {
                        next = Some(parent);
                    }
                }
            }
            prop_assert!(wanted.is_empty());
        }
    }
}
