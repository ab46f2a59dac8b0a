//! What the workspace holds that the remote does not: every ref, stash, HEAD and reflog of every
//! repository below it.
//!
//! The names are read as a stranger's; objects are looked at in the quarantine's copies only. What
//! is saved with the snapshot is in our repository afterwards.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::OwnedFd;

use gastown_types::{CommitId, text};

use super::failure::Failure;
use super::repository::Repository;
use crate::hostile;
use crate::quarantine::ImportError;
use crate::refs;
use crate::walk::{self, Tree};

/// The agent's clone, below the workspace.
const CLONE: &str = "repo/.git";
/// The agent's origin, below the workspace.
const ORIGIN: &str = "origin.git";
/// Commits that are tried one by one when not all can be imported together.
const SINGLE_MAX: usize = 100;
/// Candidates for the agent's work that are looked for: with two of them it is not clear.
const CANDIDATES_MAX: usize = 10;
/// Branches of which git is asked whether their history is ours.
const ASKED_MAX: usize = 500;
/// Characters of the name of a ref.
const NAME_MAX: usize = 120;

/// What names a commit in the workspace, most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// A branch.
    Branch,
    /// A HEAD that is on no branch.
    Head,
    /// A stash.
    Stash,
    /// Any other ref.
    Other,
    /// Only a reflog, or a ref of what was fetched: what was left behind.
    Log,
}

/// A commit of the workspace and what names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    pub commit: CommitId,
    /// Such as `branch side` or `stash`.
    pub of: String,
    pub kind: Kind,
}

/// One walk through the workspace.
#[derive(Default)]
struct Scan {
    tips: Vec<Tip>,
    /// The object folders.
    stores: Vec<OwnedFd>,
    /// The working trees.
    trees: Vec<Tree>,
    /// The folders of all working trees and repositories, below the workspace.
    folders: Vec<String>,
    /// For each repository that is not ours: what it fetched from elsewhere.
    fetched: Vec<Vec<CommitId>>,
    /// What could not be read.
    unreadable: Vec<String>,
}

/// What the workspace held at the last walk.
#[derive(Default)]
pub(super) struct Inventory {
    scan: Scan,
    /// Tips that are neither on the work branch nor on the target branch, most important first.
    pub tips: Vec<Tip>,
    /// The commits from which all of these that the last snapshot does not hold can be reached,
    /// imported.
    pub heads: Vec<CommitId>,
    /// How many commits are in the pod only; `None` when they could not be counted.
    pub pending: Option<usize>,
    /// Commits that are neither on the work branch nor on the target branch, with their parents.
    own: HashMap<CommitId, Vec<CommitId>>,
    /// What cannot be saved, each with the reason.
    pub damaged: Vec<String>,
    /// Tips that are on the remote for good, and need not be looked at again.
    settled: HashSet<CommitId>,
    /// The tips of the last comparison, and the places that they were compared with.
    seen: Option<(HashSet<CommitId>, Vec<CommitId>)>,
}

impl Inventory {
    /// Walks through the workspace, and compares what is there with the remote.
    pub async fn take(
        &mut self,
        repository: &mut Repository,
        replaced: &[CommitId],
    ) -> Result<(), Failure> {
        self.walk(repository).await?;
        self.compare(repository, replaced).await
    }

    /// Walks through the whole workspace.
    pub async fn walk(&mut self, repository: &Repository) -> Result<(), Failure> {
        let workspace = repository.paths.workspace();
        let walk = tokio::task::spawn_blocking(move || scan(&workspace));
        self.scan = walk.await.map_err(Failure::internal)??;
        Ok(())
    }

    /// The working trees.
    pub fn trees(&self) -> &[Tree] {
        &self.scan.trees
    }

    /// The folders of all working trees and repositories, below the workspace.
    pub fn folders(&self) -> &[String] {
        &self.scan.folders
    }

    /// Compares what the last walk found with what the remote holds, as far as that is known here: no
    /// connection is needed. `replaced` are commits that the work branch held before it was rewritten.
    pub async fn compare(
        &mut self,
        repository: &mut Repository,
        replaced: &[CommitId],
    ) -> Result<(), Failure> {
        let mut tips = self.scan.tips.clone();
        tips.extend(replaced.iter().map(|commit| Tip {
            commit: commit.clone(),
            of: "the work branch before it was rewritten".to_owned(),
            kind: Kind::Other,
        }));
        let mut places = repository.places().await;
        places.retain(|place| !replaced.contains(place));
        let mut compared = places.clone();
        compared.extend(repository.state.wip.clone());
        let ids: HashSet<CommitId> = tips.iter().map(|t| t.commit.clone()).collect();
        if self.seen.as_ref() == Some(&(ids.clone(), compared.clone())) {
            return Ok(());
        }
        self.pending = None;
        self.damaged.clone_from(&self.scan.unreadable);
        let unsettled: Vec<Tip> =
            tips.into_iter().filter(|t| !self.settled.contains(&t.commit)).collect();
        repository.quarantine.copy_all(&self.scan.stores).await.map_err(Failure::from)?;
        let tips = self.existing(repository, unsettled).await?;
        let mut known = places.clone();
        known.extend(foreign(repository, &self.scan.fetched).await?);
        self.own = self.list_own(repository, &tips, &known).await?;
        let (own, settled): (Vec<Tip>, Vec<Tip>) =
            tips.into_iter().partition(|tip| self.own.contains_key(&tip.commit));
        self.settled.extend(settled.into_iter().map(|t| t.commit));
        self.tips = most_important(own);
        known.extend(repository.state.wip.clone());
        let pending = self.list_own(repository, &self.tips.clone(), &known).await?;
        self.pending = Some(pending.len());
        self.heads = self.import(repository, pending, &known).await?;
        self.seen = Some((ids, compared));
        Ok(())
    }

    /// Forgets what was on the remote for good: the work branch was rewritten.
    pub fn forget_settled(&mut self) {
        self.settled.clear();
        self.seen = None;
    }

    /// The tips whose commits exist. A branch without its commit is named as damaged; a reflog
    /// outlives its commits in good order.
    async fn existing(
        &mut self,
        repository: &Repository,
        tips: Vec<Tip>,
    ) -> Result<Vec<Tip>, Failure> {
        let ids: Vec<CommitId> = tips.iter().map(|t| t.commit.clone()).collect();
        let peeled = repository.quarantine.peel(&ids).await?;
        let mut found = Vec::new();
        for (tip, commit) in tips.into_iter().zip(peeled) {
            match commit {
                Some(commit) => found.push(Tip { commit, ..tip }),
                None if tip.kind < Kind::Other => self.damaged.push(format!(
                    "{}: its commit {} is not in the workspace",
                    tip.of,
                    tip.commit.short()
                )),
                None => {}
            }
        }
        Ok(found)
    }

    /// The commits that `tips` reach and `known` do not. When a history is broken, the others are
    /// listed one by one.
    async fn list_own(
        &mut self,
        repository: &Repository,
        tips: &[Tip],
        known: &[CommitId],
    ) -> Result<HashMap<CommitId, Vec<CommitId>>, Failure> {
        let commits: Vec<CommitId> = tips.iter().map(|t| t.commit.clone()).collect();
        match repository.quarantine.own(&commits, known).await {
            Ok(own) => return Ok(own.into_iter().collect()),
            Err(ImportError::Internal(message)) => return Err(Failure::internal(message)),
            Err(ImportError::Invalid(_)) => {}
        }
        let mut own = HashMap::new();
        for tip in tips {
            match repository.quarantine.own(std::slice::from_ref(&tip.commit), known).await {
                Ok(listed) => own.extend(listed),
                Err(e) => self.damaged.push(format!("{} ({}): {e}", tip.of, tip.commit.short())),
            }
        }
        Ok(own)
    }

    /// Imports the commits `pending`, and returns those from which all of them can be reached.
    async fn import(
        &mut self,
        repository: &mut Repository,
        pending: HashMap<CommitId, Vec<CommitId>>,
        known: &[CommitId],
    ) -> Result<Vec<CommitId>, Failure> {
        let stores = &self.scan.stores;
        let parents: HashSet<&CommitId> = pending.values().flatten().collect();
        let mut heads: Vec<CommitId> =
            pending.keys().filter(|c| !parents.contains(c)).cloned().collect();
        heads.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        if heads.is_empty() {
            return Ok(heads);
        }
        match repository.quarantine.import_all(&heads, stores, known).await {
            Ok(()) => return Ok(heads),
            Err(ImportError::Internal(message)) => return Err(Failure::internal(message)),
            Err(ImportError::Invalid(message)) => {
                tracing::warn!(message, "not all commits of the workspace can be imported");
            }
        }
        // One damaged commit must not hide the others: what it was made from is tried instead.
        let (mut good, mut tried) = (Vec::new(), HashSet::new());
        let mut queue: std::collections::VecDeque<CommitId> = heads.into();
        while let Some(commit) = queue.pop_front() {
            if !tried.insert(commit.clone()) {
                continue;
            }
            if tried.len() > SINGLE_MAX {
                self.damaged.push("too many damaged commits".to_owned());
                break;
            }
            match repository.quarantine.import(&commit, stores, known).await {
                Ok(()) => good.push(commit),
                Err(ImportError::Internal(message)) => return Err(Failure::internal(message)),
                Err(ImportError::Invalid(message)) => {
                    self.damaged.push(format!("commit {}: {message}", commit.short()));
                    queue.extend(pending.get(&commit).into_iter().flatten().cloned());
                }
            }
        }
        Ok(good)
    }

    /// Whether `commit` is neither on the work branch nor on the target branch.
    pub fn is_own(&self, commit: &CommitId) -> bool {
        self.own.contains_key(commit)
    }

    /// Whether `new` is `old`, or was made from it by commits of our own.
    fn descends(&self, new: &CommitId, old: &CommitId) -> bool {
        let (mut seen, mut next) = (HashSet::new(), vec![new]);
        while let Some(commit) = next.pop() {
            if commit == old {
                return true;
            }
            if seen.insert(commit) {
                next.extend(self.own.get(commit).into_iter().flatten());
            }
        }
        false
    }

    /// The branches and HEADs of our history that hold commits of their own and are part of no other
    /// one, nor of `work`: what the agent may have meant as its work when it is not on the work branch.
    pub async fn candidates(&self, repository: &Repository, work: Option<&CommitId>) -> Vec<Tip> {
        let named = || self.tips.iter().filter(|t| t.kind <= Kind::Head);
        let mut covered: HashSet<&CommitId> = HashSet::new();
        let mut next: Vec<&CommitId> =
            named().flat_map(|t| self.own.get(&t.commit).into_iter().flatten()).collect();
        next.extend(work);
        while let Some(commit) = next.pop() {
            if covered.insert(commit) {
                next.extend(self.own.get(commit).into_iter().flatten());
            }
        }
        // What was made from nothing has no history in common with ours.
        let attached = self.attached();
        let possible =
            named().filter(|t| !covered.contains(&t.commit) && attached.contains(&t.commit));
        let mut candidates = Vec::new();
        for tip in possible.take(ASKED_MAX) {
            if candidates.len() == CANDIDATES_MAX {
                break;
            }
            if repository.is_ours(&tip.commit).await {
                candidates.push(tip.clone());
            }
        }
        candidates
    }

    /// The commits of our own whose history goes on in commits that are not.
    fn attached(&self) -> HashSet<&CommitId> {
        let mut children: HashMap<&CommitId, Vec<&CommitId>> = HashMap::new();
        let mut next = Vec::new();
        for (commit, parents) in &self.own {
            for parent in parents {
                if self.own.contains_key(parent) {
                    children.entry(parent).or_default().push(commit);
                } else {
                    next.push(commit);
                }
            }
        }
        let mut attached = HashSet::new();
        while let Some(commit) = next.pop() {
            if attached.insert(commit) {
                next.extend(children.get(commit).into_iter().flatten());
            }
        }
        attached
    }

    /// Whether `tip` continues the commit `old`.
    pub fn continues(&self, tip: &Tip, old: &CommitId) -> bool {
        self.descends(&tip.commit, old)
    }
}

/// Of several names of one commit the most important; sorted by importance and name.
fn most_important(mut tips: Vec<Tip>) -> Vec<Tip> {
    tips.sort_by(|a, b| (a.kind, &a.of).cmp(&(b.kind, &b.of)));
    let mut seen = HashSet::new();
    tips.retain(|tip| seen.insert(tip.commit.clone()));
    tips
}

/// What the repositories fetched from elsewhere, where their history is not ours: that is another
/// project's, and is on its remote.
async fn foreign(
    repository: &Repository,
    fetched: &[Vec<CommitId>],
) -> Result<Vec<CommitId>, Failure> {
    let mut known = Vec::new();
    for ids in fetched {
        let there: Vec<CommitId> =
            repository.quarantine.peel(ids).await?.into_iter().flatten().collect();
        let Some(first) = there.first() else { continue };
        if !repository.quarantine.are_related(first, &repository.state.base).await {
            known.extend(there);
        }
    }
    Ok(known)
}

/// Reads the names of all commits of the workspace.
fn scan(workspace: &std::path::Path) -> Result<Scan, Failure> {
    let root = hostile::open_root(workspace).map_err(Failure::internal)?;
    let found = walk::walk(&root, &workspace.display().to_string(), walk::Limits::default());
    let repositories = found.repositories.iter().map(|r| r.path.clone());
    let folders = found.trees.iter().map(|t| t.path.clone()).chain(repositories).collect();
    let mut scan =
        Scan { trees: found.trees, folders, unreadable: found.skipped, ..Scan::default() };
    for repository in &found.repositories {
        let all = refs::all(&repository.git_dir);
        let place = place(&repository.path);
        scan.unreadable.extend(all.unreadable.iter().map(|what| format!("{what}{place}")));
        let ours = [CLONE, ORIGIN].contains(&repository.path.as_str());
        let mut fetched = Vec::new();
        for (name, commit) in all.refs {
            let (kind, of) = name_of(&name);
            if !ours && name.starts_with("refs/remotes/") {
                fetched.push(commit.clone());
            }
            scan.tips.push(Tip { commit, of: format!("{of}{place}"), kind });
        }
        for (label, commit) in all.heads {
            let kind = if label.starts_with("HEAD") { Kind::Head } else { Kind::Log };
            scan.tips.push(Tip { commit, of: format!("{label}{place}"), kind });
        }
        let log = |commit| Tip { commit, of: format!("reflog{place}"), kind: Kind::Log };
        scan.tips.extend(all.logs.into_iter().map(log));
        if !fetched.is_empty() {
            scan.fetched.push(fetched);
        }
        if let Ok(store) = hostile::open_dir(&repository.git_dir, "objects".as_ref()) {
            scan.stores.push(store);
        }
    }
    Ok(scan)
}

/// Where a ref is, for its name; nothing for the clone and its origin.
fn place(repository: &str) -> String {
    if [CLONE, ORIGIN].contains(&repository) {
        return String::new();
    }
    let folder = repository.strip_suffix("/.git").unwrap_or(repository);
    format!(" in {}", text::line(folder, NAME_MAX))
}

fn name_of(full: &str) -> (Kind, String) {
    let line = |name: &str| text::line(name, NAME_MAX);
    if let Some(name) = full.strip_prefix("refs/heads/") {
        (Kind::Branch, format!("branch {}", line(name)))
    } else if full == "refs/stash" {
        (Kind::Stash, "stash".to_owned())
    } else if let Some(name) = full.strip_prefix("refs/tags/") {
        (Kind::Other, format!("tag {}", line(name)))
    } else if let Some(name) = full.strip_prefix("refs/remotes/") {
        (Kind::Log, format!("remote branch {}", line(name)))
    } else {
        (Kind::Other, format!("ref {}", line(full)))
    }
}

/// The tips as a person reads them: what only reflogs name is one entry.
pub(super) fn summary(tips: &[Tip]) -> BTreeMap<(Kind, String), CommitId> {
    let named = tips.iter().filter(|t| t.kind < Kind::Log);
    named.map(|t| ((t.kind, t.of.clone()), t.commit.clone())).collect()
}
