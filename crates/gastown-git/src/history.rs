//! Reading a repository's history in process. Everything here blocks: call it from a blocking
//! thread.

use std::path::Path;

use gastown_types::{CommitId, Identity};
use gix::ObjectId;
use gix::objs::Write as _;

use crate::error::{Class, GitError};
use crate::trailer;

/// A bare repository opened for reading and writing objects. Opening takes a millisecond; open it
/// again after a fetch.
pub struct Objects {
    pub(crate) repo: gix::Repository,
}

/// Turns an error of gix while `doing` into ours.
pub(crate) fn gix_error(doing: &str) -> impl Fn(gix::Error) -> GitError + '_ {
    move |e| {
        let class = match () {
            () if e.is_not_found() => Class::RefNotFound,
            () if e.is_corrupted() => Class::Corrupt,
            () => Class::Local,
        };
        let detail: Vec<String> = e.iter_errors().map(ToString::to_string).take(4).collect();
        GitError::new(class, doing, detail.join(": "))
    }
}

pub(crate) fn oid(id: &CommitId) -> Result<ObjectId, GitError> {
    ObjectId::from_hex(id.as_str().as_bytes()).map_err(|e| GitError::local("read a commit id", e))
}

pub(crate) fn commit_id(id: ObjectId) -> Result<CommitId, GitError> {
    id.to_string().parse().map_err(|e| GitError::local("write a commit id", e))
}

impl Objects {
    /// Opens a bare repository with no configuration but its own.
    pub fn open(path: &Path) -> Result<Self, GitError> {
        let what = format!("open {}", path.display());
        let opened = gix::open_opts(path, gix::open::Options::isolated());
        let mut repo =
            opened.map_err(|e| GitError { class: Class::Corrupt, ..gix_error(&what)(e) })?;
        repo.object_cache_size_if_unset(16 << 20);
        Ok(Self { repo })
    }

    /// Whether the repository has the commit.
    pub fn has(&self, id: &CommitId) -> bool {
        oid(id).is_ok_and(|id| self.repo.find_commit(id).is_ok())
    }

    /// The best common ancestor, or `None` for unrelated histories.
    pub fn merge_base(&self, a: &CommitId, b: &CommitId) -> Result<Option<CommitId>, GitError> {
        self.present(a)?;
        self.present(b)?;
        let base =
            self.repo.merge_base(oid(a)?, oid(b)?).map_err(gix_error("find a merge base"))?;
        base.map(|id| commit_id(id.detach())).transpose()
    }

    /// Whether `a` is `b` or an ancestor of it.
    pub fn is_ancestor(&self, a: &CommitId, b: &CommitId) -> Result<bool, GitError> {
        Ok(a == b && self.has(a) || self.merge_base(a, b)?.as_ref() == Some(a))
    }

    /// The newest commit that we made for the request `uid` (it has the request's trailer and our
    /// default committer or the given one), reachable from `target` and not from `since`.
    pub fn contains_trailer(
        &self,
        target: &CommitId,
        since: Option<&CommitId>,
        uid: &str,
        committer: Option<&Identity>,
    ) -> Result<Option<CommitId>, GitError> {
        let mut found = None;
        self.walk(target, since, |id, data| {
            if trailer::is_of_request(data, uid, committer) {
                found = Some(id);
            }
            found.is_none()
        })?;
        found.map(commit_id).transpose()
    }

    /// The commit of a ref, or `None` when the ref does not exist.
    pub fn resolve(&self, name: &str) -> Result<Option<CommitId>, GitError> {
        let found = self.repo.try_find_reference(name).map_err(gix_error("read a ref"))?;
        found.and_then(|r| r.try_id().map(gix::Id::detach)).map(commit_id).transpose()
    }

    /// Writes a commit object.
    pub(crate) fn put_commit(&self, commit: &[u8]) -> Result<ObjectId, GitError> {
        let written = self.repo.write_buf(gix::object::Kind::Commit, commit);
        written.map_err(|e| GitError::local("write a commit", e))
    }

    /// Fails with [`Class::RefNotFound`] when the repository does not have the commit.
    pub(crate) fn present(&self, id: &CommitId) -> Result<(), GitError> {
        self.repo.find_commit(oid(id)?).map(drop).map_err(|e| {
            let mut e = gix_error("read a commit")(e);
            if e.class != Class::Corrupt {
                e = GitError::new(
                    Class::RefNotFound,
                    format!("read the commit {}", id.short()),
                    "",
                );
            }
            e
        })
    }

    /// Visits the commits reachable from `tip` and from none of `hidden`, newest first, until `visit`
    /// returns `false`.
    pub(crate) fn walk<'a>(
        &self,
        tip: &CommitId,
        hidden: impl IntoIterator<Item = &'a CommitId>,
        mut visit: impl FnMut(ObjectId, &[u8]) -> bool,
    ) -> Result<(), GitError> {
        self.present(tip)?;
        let mut hide = Vec::new();
        for id in hidden {
            self.present(id)?;
            hide.push(oid(id)?);
        }
        let walk = self
            .repo
            .rev_walk([oid(tip)?])
            .with_hidden(hide)
            .all()
            .map_err(gix_error("walk the history"))?;
        for info in walk {
            let info = info.map_err(gix_error("walk the history"))?;
            let commit = self.repo.find_commit(info.id).map_err(gix_error("read a commit"))?;
            if !visit(info.id, &commit.data) {
                break;
            }
        }
        Ok(())
    }
}
