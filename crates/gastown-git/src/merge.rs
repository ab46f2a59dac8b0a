//! Merging with `git merge-tree`, which sees the attributes of our side as in a clone.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use gix::ObjectId;
use rustix::process::Signal;

use crate::attributes::Attributes;
use crate::error::{GitError, tail};
use crate::history::Objects;
use crate::spawn::{Git, Output};
use crate::trailer::COMMITTER;

/// A merged tree, or the paths in conflict.
pub(crate) type Merged = Result<ObjectId, Vec<String>>;

/// How many paths in conflict are named.
const MAX_PATHS: usize = 100;
/// The signals with which a program ends because of its own bug.
const CRASHES: [i32; 2] = [Signal::ABORT.as_raw(), Signal::SEGV.as_raw()];

/// Merges in a bare repository.
pub(crate) struct Merger<'a> {
    git: &'a Git,
    objects: &'a Objects,
    attributes: Attributes,
}

impl<'a> Merger<'a> {
    pub(crate) fn new(git: &'a Git, objects: &'a Objects) -> Result<Self, GitError> {
        Ok(Self { git, objects, attributes: Attributes::new()? })
    }

    /// Merges three trees, with the attributes of `ours`: what `git rebase` does with each commit.
    pub(crate) fn trees(
        &mut self,
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
        // `git merge-tree --merge-base` is newer than the gits in use, so the trees get temporary
        // commits.
        let root = self.temporary_commit(ancestor, &[])?;
        let left = self.temporary_commit(ours, &[root])?;
        let right = self.temporary_commit(theirs, &[root])?;
        self.commits(left, right, ours)
    }

    /// Merges two commits, with the attributes of the tree `attributes`.
    pub(crate) fn commits(
        &mut self,
        ours: ObjectId,
        theirs: ObjectId,
        attributes: ObjectId,
    ) -> Result<Merged, GitError> {
        if let Err(too_much) = self.attributes.show(self.objects, attributes)? {
            return Ok(Err(vec![too_much]));
        }
        let (ours, theirs) = (ours.to_string(), theirs.to_string());
        let args =
            ["merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", &ours, &theirs];
        let path: &Path = self.objects.repo.path();
        let call = self.git.call(args).repo(path).work_tree(self.attributes.folder());
        let out = tokio::runtime::Handle::try_current()
            .map_err(|e| GitError::local("merge trees", e))?
            .block_on(call.doing("merge trees").any_exit().output())?;
        read(&out)
    }

    /// A temporary commit with this tree and these parents, as an input for a merge.
    pub(crate) fn temporary_commit(
        &self,
        tree: ObjectId,
        parents: &[ObjectId],
    ) -> Result<ObjectId, GitError> {
        let parents: Vec<String> = parents.iter().map(|p| format!("parent {p}\n")).collect();
        let who = COMMITTER;
        let rest = format!("author {who} 0 +0000\ncommitter {who} 0 +0000\n\nstand-in\n");
        let data = format!("tree {tree}\n{}{rest}", parents.concat());
        self.objects.put_commit(data.as_bytes())
    }
}

/// What a `git merge-tree` that has ended made of it.
fn read(out: &Output) -> Result<Merged, GitError> {
    let mut fields = out.stdout.split(|b| *b == 0);
    let tree = fields.next().and_then(|f| ObjectId::from_hex(f.trim_ascii()).ok());
    match (out.status.code(), tree) {
        (Some(0), Some(tree)) => Ok(Ok(tree)),
        (Some(1), Some(_)) => {
            let paths: BTreeSet<String> = fields
                .filter(|f| !f.is_empty())
                .map(|f| String::from_utf8_lossy(f).into_owned())
                .collect();
            Ok(Err(paths.into_iter().take(MAX_PATHS).collect()))
        }
        // A bug of git that the content brings out: it must not hold up what can be merged.
        _ if out.status.signal().is_some_and(|s| CRASHES.contains(&s)) => {
            Ok(Err(vec![format!("(git cannot merge them: {})", tail(&out.stderr, 200))]))
        }
        _ => Err(crate::spawn::failure("merge trees", out)),
    }
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use super::*;

    /// A git that ended with this wait status.
    fn ended(status: i32, stdout: &str, stderr: &str) -> Output {
        Output {
            status: ExitStatus::from_raw(status),
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    }

    #[test]
    fn a_bug_of_git_is_a_conflict_and_a_failure_is_an_error() {
        let merged = read(&ended(6, "", "BUG: merge-ort.c:1: this shouldn't happen\n")).unwrap();
        let paths = merged.unwrap_err();
        assert_eq!(paths, ["(git cannot merge them: BUG: merge-ort.c:1: this shouldn't happen)"]);
        for status in [128 << 8, 9, 0] {
            let error = read(&ended(status, "", "fatal: out of memory\n")).unwrap_err();
            assert!(error.detail.contains("out of memory"), "{error:?}");
        }
    }

    #[test]
    fn the_paths_in_conflict_are_sorted_and_named_once() {
        let tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
        assert_eq!(read(&ended(0, &format!("{tree}\0"), "")).unwrap().unwrap().to_string(), tree);
        let merged = read(&ended(1 << 8, &format!("{tree}\0b\0a\0b\0\0"), "")).unwrap();
        assert_eq!(merged.unwrap_err(), ["a", "b"]);
    }
}
