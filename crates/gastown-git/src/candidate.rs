//! Candidates: a request's commits replayed on the target's tip, built from objects alone.
//!
//! A candidate is a pure function of its [`Recipe`] and the objects that it names: whoever builds
//! it, in whichever mirror and at whatever time, gets the same commit id. Authors are kept; the
//! committer is the recipe's, with the date of the source commit's committer.

use gastown_types::{CommitId, Identity};
use gix::ObjectId;
use serde::{Deserialize, Serialize};

use crate::commit::{self, RawCommit};
use crate::error::{Class, GitError};
use crate::history::{Objects, commit_id, gix_error, oid};
use crate::merge::Merger;
use crate::spawn::Git;
use crate::trailer::{COMMITTER, is_signed_off, names_a_request, signed_off, with_trailer};

/// The folder that a candidate always takes from the target: the beads that agents work on.
const FROM_TARGET: &str = ".beads";

/// How a source is joined with its base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Each commit is replayed on the base.
    #[default]
    Rebase,
}

/// The inputs that decide a candidate's commit id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recipe {
    /// The uid of the request, for the trailer.
    pub request: String,
    /// The commit of the target that it is built on.
    pub base: CommitId,
    /// The request's commit.
    pub source: CommitId,
    /// How the source is joined with the base.
    pub strategy: Strategy,
    /// Who commits it, and how.
    pub committing: Committing,
}

/// Who commits the commits of a candidate, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Committing {
    /// The committer of every commit. Without one, commits that can land as they are do so, and the
    /// others have `Gastown Refinery <refinery@gastown.io>`.
    pub committer: Option<Identity>,
    /// Whether every commit has the committer's `Signed-off-by`.
    pub sign_off: bool,
}

impl Committing {
    fn name(&self) -> &str {
        self.committer.as_ref().map_or(COMMITTER, Identity::as_str)
    }

    /// Whether a commit of a source is as we would have made it.
    fn accepts(&self, data: &[u8], message: &[u8]) -> bool {
        self.committer.as_ref().is_none_or(|c| commit::is_by(data, c.as_str().as_bytes()))
            && (!self.sign_off || is_signed_off(message, self.name()))
    }
}

/// The outcome of building a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Built {
    /// A commit that can be tested and landed.
    Candidate(Candidate),
    /// Nothing is left to land: the base has every change of the source.
    AlreadyInTarget,
    /// The source conflicts with the base.
    Conflict(Conflict),
}

/// A commit that descends from its base and can be tested and landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id; the objects are in the repository that it was built in.
    pub commit: CommitId,
    /// How it was built.
    pub shape: Shape,
}

/// How a candidate was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The source itself, which descends from the base. It has no trailer.
    FastForward,
    /// The source's commits replayed on the base.
    Replayed {
        /// How many commits the candidate has.
        commits: usize,
        /// How many commits were dropped because the base has their changes.
        dropped: usize,
    },
    /// The source has merge commits and was merged into one commit.
    MergedAsOne,
}

/// A conflict between a source and its base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The commit of the source that did not apply.
    pub commit: CommitId,
    /// The paths in conflict, sorted, at most 100.
    pub paths: Vec<String>,
}

struct Builder<'a> {
    objects: &'a Objects,
    merger: Merger<'a>,
    recipe: &'a Recipe,
    base_tree: ObjectId,
    /// The base's `.beads`, which every tree of the candidate gets.
    beads: Option<(gix::objs::tree::EntryKind, ObjectId)>,
}

/// Builds the candidate of `recipe` in the bare repository of `objects`. Its tree is the one that
/// `git rebase --reapply-cherry-picks` makes in a clone, or `git merge` for a source with merges;
/// `.beads` alone is that of the base. Blocks; must run where a tokio runtime is entered
/// (`spawn_blocking` does).
pub fn build(git: &Git, objects: &Objects, recipe: &Recipe) -> Result<Built, GitError> {
    let (base, source) = (&recipe.base, &recipe.source);
    let Some(fork) = objects.merge_base(base, source)? else {
        return Ok(Built::Conflict(Conflict {
            commit: source.clone(),
            paths: vec!["(the histories have nothing in common)".into()],
        }));
    };
    if fork == *source {
        return Ok(Built::AlreadyInTarget);
    }
    let base_tree = tree_of(objects, oid(base)?)?;
    let merger = Merger::new(git, objects)?;
    let beads = entry(objects, base_tree)?;
    let mut builder = Builder { objects, merger, recipe, base_tree, beads };
    let line = builder.commits_after(&fork)?;
    if let Some(line) = &line
        && fork == *base
        && builder.is_landable_as_is(line)?
    {
        return Ok(Built::Candidate(Candidate {
            commit: source.clone(),
            shape: Shape::FastForward,
        }));
    }
    match line {
        Some(line) => builder.replay(&line),
        None => builder.merge_as_one(),
    }
}

fn read(objects: &Objects, id: ObjectId) -> Result<Vec<u8>, GitError> {
    let commit = objects.repo.find_commit(id).map_err(gix_error("read a commit"))?;
    Ok(commit.data.clone())
}

fn raw(id: ObjectId, data: &[u8]) -> Result<RawCommit<'_>, GitError> {
    commit::parse(data).ok_or_else(|| {
        GitError::new(Class::Corrupt, format!("read the commit {id}"), "it is malformed")
    })
}

fn tree_of(objects: &Objects, commit: ObjectId) -> Result<ObjectId, GitError> {
    Ok(raw(commit, &read(objects, commit)?)?.tree)
}

/// The entry [`FROM_TARGET`] of a tree.
fn entry(
    objects: &Objects,
    tree: ObjectId,
) -> Result<Option<(gix::objs::tree::EntryKind, ObjectId)>, GitError> {
    let tree = objects.repo.find_tree(tree).map_err(gix_error("read a tree"))?;
    Ok(tree.find_entry(FROM_TARGET).map(|e| (e.mode().kind(), e.oid().to_owned())))
}

impl Builder<'_> {
    /// The source's commits after `fork`, oldest first; `None` when one of them is a merge.
    fn commits_after(&self, fork: &CommitId) -> Result<Option<Vec<ObjectId>>, GitError> {
        let fork = oid(fork)?;
        let (mut at, mut line) = (oid(&self.recipe.source)?, Vec::new());
        while at != fork {
            let data = read(self.objects, at)?;
            let parents = raw(at, &data)?.parents;
            let [parent] = parents[..] else { return Ok(None) };
            line.push(at);
            at = parent;
        }
        line.reverse();
        Ok(Some(line))
    }

    /// Whether the source can land unchanged: its [`FROM_TARGET`] is the base's, its commits have
    /// the wanted committer and sign-off, and no message claims to belong to a request.
    fn is_landable_as_is(&self, line: &[ObjectId]) -> Result<bool, GitError> {
        for id in line {
            let data = read(self.objects, *id)?;
            let message = raw(*id, &data)?.message;
            if names_a_request(message) || !self.recipe.committing.accepts(&data, message) {
                return Ok(false);
            }
        }
        Ok(entry(self.objects, tree_of(self.objects, oid(&self.recipe.source)?)?)? == self.beads)
    }

    fn replay(&mut self, line: &[ObjectId]) -> Result<Built, GitError> {
        let mut steps: Vec<(Vec<u8>, ObjectId)> = Vec::new();
        let mut tree = self.base_tree;
        for id in line {
            let data = read(self.objects, *id)?;
            let commit = raw(*id, &data)?;
            let ancestor = match commit.parents.first() {
                Some(parent) => self.with_base_beads(tree_of(self.objects, *parent)?)?,
                None => ObjectId::empty_tree(self.objects.repo.object_hash()),
            };
            let theirs = self.with_base_beads(commit.tree)?;
            match self.merger.trees(ancestor, tree, theirs)? {
                Err(paths) => {
                    return Ok(Built::Conflict(Conflict { commit: commit_id(*id)?, paths }));
                }
                Ok(next) if next == tree => {}
                Ok(next) => {
                    tree = next;
                    steps.push((data, next));
                }
            }
        }
        // Commits that undo each other leave the base's tree, and nothing to test.
        if tree == self.base_tree {
            return Ok(Built::AlreadyInTarget);
        }
        let (mut head, last) = (oid(&self.recipe.base)?, steps.len() - 1);
        for (i, (data, tree)) in steps.iter().enumerate() {
            let commit = raw(head, data)?;
            let text = self.message(commit.message, i == last);
            head = self.write(*tree, head, &commit, &text)?;
        }
        let shape = Shape::Replayed { commits: steps.len(), dropped: line.len() - steps.len() };
        Ok(Built::Candidate(Candidate { commit: commit_id(head)?, shape }))
    }

    fn merge_as_one(&mut self) -> Result<Built, GitError> {
        let (base, source) = (oid(&self.recipe.base)?, oid(&self.recipe.source)?);
        let source_data = read(self.objects, source)?;
        let tip = raw(source, &source_data)?;
        let theirs = self.with_base_beads(tip.tree)?;
        // The source with the base's `.beads`; its history is the source's.
        let theirs = self.merger.temporary_commit(theirs, &tip.parents)?;
        let tree = match self.merger.commits(base, theirs, self.base_tree)? {
            Ok(tree) => tree,
            Err(paths) => {
                let commit = self.recipe.source.clone();
                return Ok(Built::Conflict(Conflict { commit, paths }));
            }
        };
        if tree == self.base_tree {
            return Ok(Built::AlreadyInTarget);
        }
        let text = self.summary()?;
        let text = self.message(text.as_bytes(), true);
        let head = self.write(tree, base, &RawCommit { encoding: None, ..tip }, &text)?;
        Ok(Built::Candidate(Candidate { commit: commit_id(head)?, shape: Shape::MergedAsOne }))
    }

    /// The message of a source merged into one commit: the newest subject that is not a merge's,
    /// then the list of subjects.
    fn summary(&self) -> Result<String, GitError> {
        let mut subjects = Vec::new();
        self.objects.walk(&self.recipe.source, Some(&self.recipe.base), |_, data| {
            if commit::parse(data).is_some_and(|p| p.parents.len() < 2) {
                subjects.push(commit::message(data).lines().next().unwrap_or_default().to_owned());
            }
            subjects.len() < 50
        })?;
        let title = subjects
            .first()
            .cloned()
            .unwrap_or_else(|| format!("Merge {}", self.recipe.source.short()));
        let list = subjects.join("\n* ");
        Ok(format!(
            "{title}\n\nOne commit of {}, which holds merges:\n\n* {list}\n",
            self.recipe.source
        ))
    }

    /// The tree with the base's [`FROM_TARGET`] instead of its own.
    fn with_base_beads(&self, tree: ObjectId) -> Result<ObjectId, GitError> {
        if entry(self.objects, tree)? == self.beads {
            return Ok(tree);
        }
        let mut editor = self.objects.repo.edit_tree(tree).map_err(gix_error("read a tree"))?;
        match self.beads {
            Some((kind, id)) => editor.upsert(FROM_TARGET, kind, id),
            None => editor.remove(FROM_TARGET),
        }
        .map_err(gix_error("edit a tree"))?;
        Ok(editor.write().map_err(gix_error("write a tree"))?.detach())
    }

    /// The message of a commit of the candidate; the last one names the request.
    fn message(&self, source: &[u8], is_last: bool) -> Vec<u8> {
        let Recipe { request, committing, .. } = self.recipe;
        let own = with_trailer(source, None);
        let own = if committing.sign_off { signed_off(own, committing.name()) } else { own };
        if is_last { with_trailer(&own, Some(request)) } else { own }
    }

    fn write(
        &self,
        tree: ObjectId,
        parent: ObjectId,
        source: &RawCommit<'_>,
        message: &[u8],
    ) -> Result<ObjectId, GitError> {
        let mut data = format!("tree {tree}\nparent {parent}\nauthor ").into_bytes();
        data.extend_from_slice(source.author);
        data.extend_from_slice(b"\ncommitter ");
        data.extend_from_slice(self.recipe.committing.name().as_bytes());
        data.push(b' ');
        data.extend_from_slice(source.date);
        data.push(b'\n');
        // Signatures are dropped, since they sign the source; so are unknown headers.
        if let Some(encoding) = source.encoding {
            data.extend_from_slice(b"encoding ");
            data.extend_from_slice(encoding);
            data.push(b'\n');
        }
        data.push(b'\n');
        data.extend_from_slice(message);
        self.objects.put_commit(&data)
    }
}
