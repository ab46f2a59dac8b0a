//! Candidates: what a request becomes on top of the target's tip, built from objects alone.
//!
//! A candidate is a pure function of its [`Recipe`] and the objects that it names: the same in
//! every mirror, whoever builds it and whenever. Authors stay; the committer is ours, dated as the
//! source's commit was.

use std::collections::BTreeSet;
use std::path::Path;

use gastown_types::CommitId;
use gix::ObjectId;
use gix::merge::tree::TreatAsUnresolved;
use gix::objs::Write as _;
use serde::{Deserialize, Serialize};

use crate::error::{Class, GitError};
use crate::history::{Objects, commit_id, fault, oid};
use crate::spawn::Git;

/// The trailer that proves of which request a commit on the target is.
pub const TRAILER: &str = "Gastown-Request";
/// Who commits candidates.
const COMMITTER: &[u8] = b"Gastown Refinery <refinery@gastown.io>";
/// What the target alone says: the issues that agents are given.
const FROM_TARGET: &str = ".beads";

/// How a source is brought on top of its base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Each commit is replayed on the base.
    #[default]
    Rebase,
}

/// Everything that decides what a candidate is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recipe {
    /// The uid of the request, for the trailer.
    pub request: String,
    /// The target's commit under it.
    pub base: CommitId,
    /// The request's commit.
    pub source: CommitId,
    /// How.
    pub strategy: Strategy,
}

/// What a source became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Built {
    /// A commit that can be tested and landed.
    Candidate(Candidate),
    /// Nothing is left of it: the base holds all of it.
    AlreadyInTarget,
    /// It cannot be joined with the base; the paths say where.
    Conflict(Conflict),
}

/// A commit that descends from its base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id; the objects are in the repository that it was built in.
    pub commit: CommitId,
    /// How it came to be.
    pub shape: Shape,
}

/// How a candidate came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The source itself, which begins at the base. It carries no trailer.
    FastForward,
    /// So many commits replayed, so many left out because the base has what they do.
    Replayed {
        /// Commits of the candidate.
        commits: usize,
        /// Commits that became empty.
        dropped: usize,
    },
    /// The source holds merges and became one commit.
    MergedAsOne,
}

/// Where a source does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The source's commit that did not apply.
    pub commit: CommitId,
    /// The paths, sorted, at most 100.
    pub paths: Vec<String>,
}

/// A commit's parts as they stand in the object; nothing is decoded, so odd authors survive.
struct Parts<'a> {
    tree: ObjectId,
    parents: Vec<ObjectId>,
    author: &'a [u8],
    /// Seconds and zone of the committer, as written.
    date: &'a [u8],
    encoding: Option<&'a [u8]>,
    message: &'a [u8],
}

fn split_at_blank_line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.windows(2).position(|w| w == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, b""),
    }
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|b| *b == b'\n').find_map(|l| l.strip_prefix(name.as_bytes())?.strip_prefix(b" "))
}

/// A commit's message, read as text.
pub(crate) fn message(data: &[u8]) -> String {
    String::from_utf8_lossy(split_at_blank_line(data).1).into_owned()
}

/// Whether we are its committer.
pub(crate) fn is_ours(data: &[u8]) -> bool {
    is_by(data, COMMITTER)
}

/// Whether its committer is this one (`Name <mail>`).
pub(crate) fn is_by(data: &[u8], committer: &[u8]) -> bool {
    header(split_at_blank_line(data).0, "committer").is_some_and(|c| c.starts_with(committer))
}

fn parse(data: &[u8]) -> Option<Parts<'_>> {
    let (head, message) = split_at_blank_line(data);
    let hex = |h: &[u8]| ObjectId::from_hex(h).ok();
    let parents = head
        .split(|b| *b == b'\n')
        .take_while(|l| !l.starts_with(b"author "))
        .filter_map(|l| l.strip_prefix(b"parent "));
    let committer = header(head, "committer")?;
    let after =
        committer.iter().rposition(|b| *b == b'>').map_or(&b""[..], |at| &committer[at + 1..]);
    let when = after.trim_ascii();
    let sound = when.split(|b| *b == b' ').count() == 2
        && when.iter().all(|b| b.is_ascii_digit() || b" +-".contains(b));
    Some(Parts {
        tree: hex(header(head, "tree")?)?,
        parents: parents.filter_map(hex).collect(),
        author: header(head, "author")?,
        date: if sound { when } else { b"0 +0000" },
        encoding: header(head, "encoding"),
        message,
    })
}

fn names_a_request(message: &[u8]) -> bool {
    let prefix = format!("{TRAILER}:");
    message.split(|b| *b == b'\n').any(|l| {
        l.trim_ascii()
            .get(..prefix.len())
            .is_some_and(|p| p.eq_ignore_ascii_case(prefix.as_bytes()))
    })
}

/// The message without trailers that claim to be ours (an author could have forged one), and with
/// the right one when given.
fn signed_message(message: &[u8], request: Option<&str>) -> Vec<u8> {
    let mut text: Vec<u8> = if names_a_request(message) {
        let kept: Vec<&[u8]> =
            message.split(|b| *b == b'\n').filter(|l| !names_a_request(l)).collect();
        kept.join(&b'\n')
    } else {
        message.to_vec()
    };
    let Some(uid) = request else { return text };
    while text.last().is_some_and(u8::is_ascii_whitespace) {
        text.pop();
    }
    let last = text.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let is_trailer = |line: &[u8]| {
        let token = line.split(|b| *b == b':').next().unwrap_or_default();
        token.len() < line.len()
            && !token.is_empty()
            && token.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    // A subject such as `fix: this` alone is no block of trailers.
    let has_body = text.windows(2).any(|w| w == b"\n\n");
    text.extend_from_slice(if has_body && is_trailer(last) { b"\n" } else { b"\n\n" });
    text.extend_from_slice(format!("{TRAILER}: {uid}\n").as_bytes());
    text
}

/// A replayed tree, or the paths at which it does not fit.
type Merged = Result<ObjectId, Vec<String>>;

struct Builder<'a> {
    git: &'a Git,
    objects: &'a Objects,
    recipe: &'a Recipe,
    base_tree: ObjectId,
    /// The base's `.beads`, which every tree of the candidate gets.
    beads: Option<(gix::objs::tree::EntryKind, ObjectId)>,
}

/// Builds the candidate of `recipe` in the bare repository of `objects`. Where gix sees a conflict,
/// `git merge-tree` has the last word. Blocks; must run where a tokio runtime is entered
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
    let builder = Builder { git, objects, recipe, base_tree, beads: entry(objects, base_tree)? };
    let line = builder.line(&fork)?;
    if let Some(line) = &line
        && fork == *base
        && builder.takes_as_is(line)?
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
    let commit = objects.repo.find_commit(id).map_err(fault("read a commit"))?;
    Ok(commit.data.clone())
}

fn parts(id: ObjectId, data: &[u8]) -> Result<Parts<'_>, GitError> {
    parse(data).ok_or_else(|| {
        GitError::new(Class::Corrupt, format!("read the commit {id}"), "it is malformed")
    })
}

fn tree_of(objects: &Objects, commit: ObjectId) -> Result<ObjectId, GitError> {
    Ok(parts(commit, &read(objects, commit)?)?.tree)
}

/// The entry [`FROM_TARGET`] of a tree.
fn entry(
    objects: &Objects,
    tree: ObjectId,
) -> Result<Option<(gix::objs::tree::EntryKind, ObjectId)>, GitError> {
    let tree = objects.repo.find_tree(tree).map_err(fault("read a tree"))?;
    Ok(tree.find_entry(FROM_TARGET).map(|e| (e.mode().kind(), e.oid().to_owned())))
}

impl Builder<'_> {
    /// The source's commits after `fork`, oldest first; `None` when there is a merge among them.
    fn line(&self, fork: &CommitId) -> Result<Option<Vec<ObjectId>>, GitError> {
        let fork = oid(fork)?;
        let (mut at, mut line) = (oid(&self.recipe.source)?, Vec::new());
        while at != fork {
            let data = read(self.objects, at)?;
            let parents = parts(at, &data)?.parents;
            let [parent] = parents[..] else { return Ok(None) };
            line.push(at);
            at = parent;
        }
        line.reverse();
        Ok(Some(line))
    }

    /// Whether nothing has to be written anew: the target's own folder is as the base has it, and
    /// no message claims to be of a request.
    fn takes_as_is(&self, line: &[ObjectId]) -> Result<bool, GitError> {
        for id in line {
            if names_a_request(parts(*id, &read(self.objects, *id)?)?.message) {
                return Ok(false);
            }
        }
        Ok(entry(self.objects, tree_of(self.objects, oid(&self.recipe.source)?)?)? == self.beads)
    }

    fn replay(&self, line: &[ObjectId]) -> Result<Built, GitError> {
        let mut steps: Vec<(Vec<u8>, ObjectId)> = Vec::new();
        let mut tree = self.base_tree;
        for id in line {
            let data = read(self.objects, *id)?;
            let commit = parts(*id, &data)?;
            let ancestor = match commit.parents.first() {
                Some(parent) => self.with_targets_own(tree_of(self.objects, *parent)?)?,
                None => ObjectId::empty_tree(self.objects.repo.object_hash()),
            };
            let theirs = self.with_targets_own(commit.tree)?;
            match self.merge(ancestor, tree, theirs)? {
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
        // Commits that undo each other leave the base's tree behind them, and nothing to test.
        if tree == self.base_tree {
            return Ok(Built::AlreadyInTarget);
        }
        let (mut head, last) = (oid(&self.recipe.base)?, steps.len() - 1);
        for (i, (data, tree)) in steps.iter().enumerate() {
            let commit = parts(head, data)?;
            let text =
                signed_message(commit.message, (i == last).then_some(self.recipe.request.as_str()));
            head = self.write(*tree, head, &commit, &text)?;
        }
        let shape = Shape::Replayed { commits: steps.len(), dropped: line.len() - steps.len() };
        Ok(Built::Candidate(Candidate { commit: commit_id(head)?, shape }))
    }

    fn merge_as_one(&self) -> Result<Built, GitError> {
        let (base, source) = (oid(&self.recipe.base)?, oid(&self.recipe.source)?);
        let source_data = read(self.objects, source)?;
        let tip = parts(source, &source_data)?;
        let theirs = self.with_targets_own(tip.tree)?;
        // A stand-in for the source that has the target's own folder; its history is the source's.
        let theirs = self.stand_in(theirs, &tip.parents)?;
        let options = self.objects.repo.tree_merge_options().map_err(fault("merge"))?;
        let labels = gix::merge::blob::builtin_driver::text::Labels::default();
        let outcome = self
            .objects
            .repo
            .merge_commits(base, theirs, labels, options.into())
            .map_err(fault("merge"))?;
        let mut merged = outcome.tree_merge;
        let tree = if merged.has_unresolved_conflicts(TreatAsUnresolved::git()) {
            match self.ask_git(base, theirs)? {
                Ok(tree) => tree,
                Err(paths) => {
                    return Ok(Built::Conflict(Conflict {
                        commit: self.recipe.source.clone(),
                        paths,
                    }));
                }
            }
        } else {
            merged.tree.write().map_err(fault("write a tree"))?.detach()
        };
        if tree == self.base_tree {
            return Ok(Built::AlreadyInTarget);
        }
        let text = self.summary()?;
        let text = signed_message(text.as_bytes(), Some(&self.recipe.request));
        let head = self.write(tree, base, &Parts { encoding: None, ..tip }, &text)?;
        Ok(Built::Candidate(Candidate { commit: commit_id(head)?, shape: Shape::MergedAsOne }))
    }

    /// The message of a source that became one commit: its newest ordinary subject, and all of
    /// them.
    fn summary(&self) -> Result<String, GitError> {
        let mut subjects = Vec::new();
        self.objects.walk(&self.recipe.source, Some(&self.recipe.base), |_, data| {
            if parse(data).is_some_and(|p| p.parents.len() < 2) {
                subjects.push(message(data).lines().next().unwrap_or_default().to_owned());
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
    fn with_targets_own(&self, tree: ObjectId) -> Result<ObjectId, GitError> {
        if entry(self.objects, tree)? == self.beads {
            return Ok(tree);
        }
        let mut editor = self.objects.repo.edit_tree(tree).map_err(fault("read a tree"))?;
        match self.beads {
            Some((kind, id)) => editor.upsert(FROM_TARGET, kind, id),
            None => editor.remove(FROM_TARGET),
        }
        .map_err(fault("edit a tree"))?;
        Ok(editor.write().map_err(fault("write a tree"))?.detach())
    }

    fn merge(
        &self,
        ancestor: ObjectId,
        ours: ObjectId,
        theirs: ObjectId,
    ) -> Result<Merged, GitError> {
        if ancestor == ours {
            return Ok(Ok(theirs));
        }
        if ancestor == theirs || ours == theirs {
            return Ok(Ok(ours));
        }
        let options = self.objects.repo.tree_merge_options().map_err(fault("merge"))?;
        let labels = gix::merge::blob::builtin_driver::text::Labels::default();
        let mut merged = self
            .objects
            .repo
            .merge_trees(ancestor, ours, theirs, labels, options)
            .map_err(fault("merge"))?;
        if !merged.has_unresolved_conflicts(TreatAsUnresolved::git()) {
            return Ok(Ok(merged.tree.write().map_err(fault("write a tree"))?.detach()));
        }
        // `git merge-tree --merge-base` is younger than the gits that we meet, so the trees get
        // stand-in commits.
        let root = self.stand_in(ancestor, &[])?;
        let (ours, theirs) = (self.stand_in(ours, &[root])?, self.stand_in(theirs, &[root])?);
        self.ask_git(ours, theirs)
    }

    /// A commit that nobody will see, with this tree and these parents.
    fn stand_in(&self, tree: ObjectId, parents: &[ObjectId]) -> Result<ObjectId, GitError> {
        let parents: Vec<String> = parents.iter().map(|p| format!("parent {p}\n")).collect();
        let who = String::from_utf8_lossy(COMMITTER);
        let rest = format!("author {who} 0 +0000\ncommitter {who} 0 +0000\n\nstand-in\n");
        let data = format!("tree {tree}\n{}{rest}", parents.concat());
        self.put(data.as_bytes())
    }

    /// `git merge-tree`: the tree, or the paths in conflict.
    fn ask_git(&self, ours: ObjectId, theirs: ObjectId) -> Result<Merged, GitError> {
        let (ours, theirs) = (ours.to_string(), theirs.to_string());
        let args =
            ["merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", &ours, &theirs];
        let path: &Path = self.objects.repo.path();
        let call = self.git.call(args).repo(path).doing("merge trees").any_exit();
        let out = tokio::runtime::Handle::try_current()
            .map_err(|e| GitError::local("merge trees", e))?
            .block_on(call.output())?;
        let mut fields = out.stdout.split(|b| *b == 0);
        let tree = fields.next().and_then(|f| ObjectId::from_hex(f.trim_ascii()).ok());
        match (out.status.code(), tree) {
            (Some(0), Some(tree)) => Ok(Ok(tree)),
            (Some(1), Some(_)) => {
                let paths: BTreeSet<String> = fields
                    .filter(|f| !f.is_empty())
                    .map(|f| String::from_utf8_lossy(f).into_owned())
                    .collect();
                Ok(Err(paths.into_iter().take(100).collect()))
            }
            _ => Err(crate::spawn::failure("merge trees", &out)),
        }
    }

    fn write(
        &self,
        tree: ObjectId,
        parent: ObjectId,
        source: &Parts<'_>,
        message: &[u8],
    ) -> Result<ObjectId, GitError> {
        let mut data = format!("tree {tree}\nparent {parent}\nauthor ").into_bytes();
        data.extend_from_slice(source.author);
        data.extend_from_slice(b"\ncommitter ");
        data.extend_from_slice(COMMITTER);
        data.push(b' ');
        data.extend_from_slice(source.date);
        data.push(b'\n');
        // Signatures are dropped: they are of the source. So are headers that we do not know.
        if let Some(encoding) = source.encoding {
            data.extend_from_slice(b"encoding ");
            data.extend_from_slice(encoding);
            data.push(b'\n');
        }
        data.push(b'\n');
        data.extend_from_slice(message);
        self.put(&data)
    }

    fn put(&self, commit: &[u8]) -> Result<ObjectId, GitError> {
        let written = self.objects.repo.write_buf(gix::object::Kind::Commit, commit);
        written.map_err(|e| GitError::local("write a commit", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trailer_joins_a_block_of_trailers_and_else_begins_one() {
        let text = |m: &str| String::from_utf8(signed_message(m.as_bytes(), Some("u1"))).unwrap();
        assert_eq!(text("fix: it\n"), "fix: it\n\nGastown-Request: u1\n");
        assert_eq!(text("Fix\n\nBecause.\n"), "Fix\n\nBecause.\n\nGastown-Request: u1\n");
        assert_eq!(
            text("Fix\n\nSigned-off-by: A <a@b>\n"),
            "Fix\n\nSigned-off-by: A <a@b>\nGastown-Request: u1\n"
        );
        assert_eq!(text(""), "\n\nGastown-Request: u1\n");
    }

    #[test]
    fn a_forged_trailer_is_taken_out() {
        let text = signed_message(b"Fix\n\ngastown-request: other\nrest\n", None);
        assert_eq!(text, b"Fix\n\nrest\n");
        assert!(!names_a_request(&text));
    }

    #[test]
    fn a_commit_with_an_odd_author_and_a_signature_is_read_raw() {
        let data = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor \xff <> 12 -9999\ncommitter C <c> x\nencoding latin1\ngpgsig a\n b\n\nm\n";
        let p = parse(data).unwrap();
        assert_eq!(p.author, b"\xff <> 12 -9999");
        assert_eq!(p.date, b"0 +0000");
        assert_eq!(p.encoding, Some(&b"latin1"[..]));
        assert_eq!(p.message, b"m\n");
        assert!(p.parents.is_empty());
    }
}
