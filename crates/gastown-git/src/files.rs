//! Files of a branch without a worktree: reading them, and replacing one of them in a new commit.
//!
//! A repository is not trusted: an entry that is not an ordinary file is reported as what it is and
//! never followed, and nothing is read before its size is known. Everything here blocks: call it
//! from a blocking thread.

use gastown_types::CommitId;
use gix::ObjectId;
use gix::objs::Write as _;
use gix::objs::tree::EntryKind;

use crate::commit;
use crate::error::{Class, GitError};
use crate::history::{Objects, commit_id, gix_error, oid};

/// The kind of an entry in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ordinary file.
    File,
    /// A file that may be run.
    Executable,
    /// A symbolic link.
    Symlink,
    /// A folder.
    Folder,
    /// Another repository's commit.
    Submodule,
}

impl Kind {
    /// The kind in a sentence: `it is …`.
    pub fn words(self) -> &'static str {
        match self {
            Self::File => "a file",
            Self::Executable => "an executable file",
            Self::Symlink => "a symbolic link",
            Self::Folder => "a folder",
            Self::Submodule => "a submodule",
        }
    }
}

impl From<EntryKind> for Kind {
    fn from(kind: EntryKind) -> Self {
        match kind {
            EntryKind::Blob => Self::File,
            EntryKind::BlobExecutable => Self::Executable,
            EntryKind::Link => Self::Symlink,
            EntryKind::Tree => Self::Folder,
            EntryKind::Commit => Self::Submodule,
        }
    }
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    id: ObjectId,
}

/// The result of looking for a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    /// The path does not exist.
    Absent,
    /// This part of the path is something else.
    Other(String, Kind),
    /// The folder, with its entries in git's order.
    Entries(Vec<Entry>),
}

/// A commit that replaces one file of its parent.
#[derive(Clone, Debug)]
pub struct Replacement<'a> {
    /// The parent.
    pub parent: &'a CommitId,
    /// The folder, such as `.beads`.
    pub folder: &'a str,
    /// The file's name in the folder.
    pub name: &'a str,
    /// The file's content.
    pub bytes: &'a [u8],
    /// The author, as `Name <mail>`.
    pub author: &'a str,
    /// The committer, as `Name <mail>`.
    pub committer: &'a str,
    /// The date of author and committer, in seconds since 1970.
    pub second: i64,
    /// The commit's message.
    pub message: &'a str,
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && !name.eq_ignore_ascii_case(".git")
        && !name.contains(['/', '\0'])
}

fn is_person(text: &str) -> bool {
    text.ends_with('>')
        && text.matches('<').count() == 1
        && text.matches('>').count() == 1
        && !text.contains(['\n', '\r', '\0'])
}

impl Objects {
    /// The folder at `path` (parts joined by `/`) in a commit. Links are not followed.
    pub fn folder(&self, commit: &CommitId, path: &str) -> Result<Folder, GitError> {
        self.present(commit)?;
        let commit = self.repo.find_commit(oid(commit)?).map_err(gix_error("read a commit"))?;
        let mut tree = commit.tree_id().map_err(gix_error("read a commit"))?.detach();
        let mut at = String::new();
        for part in path.split('/') {
            if !is_plain(part) {
                return Ok(Folder::Absent);
            }
            at = if at.is_empty() { part.to_owned() } else { format!("{at}/{part}") };
            let found = self.repo.find_tree(tree).map_err(gix_error("read a tree"))?;
            let Some(entry) = found.find_entry(part) else { return Ok(Folder::Absent) };
            let kind = Kind::from(entry.mode().kind());
            if kind != Kind::Folder {
                return Ok(Folder::Other(at, kind));
            }
            tree = entry.oid().to_owned();
        }
        let tree = self.repo.find_tree(tree).map_err(gix_error("read a tree"))?;
        let mut entries = Vec::new();
        for entry in tree.iter() {
            let entry = entry.map_err(gix_error("read a tree"))?;
            let name = String::from_utf8_lossy(entry.filename()).into_owned();
            entries.push(Entry {
                name,
                kind: entry.mode().kind().into(),
                id: entry.oid().to_owned(),
            });
        }
        Ok(Folder::Entries(entries))
    }

    /// The content of a file of at most `limit` bytes; a larger one is an error of class
    /// [`Class::TooMuchOutput`] and is not read.
    pub fn read_file(&self, entry: &Entry, limit: u64) -> Result<Vec<u8>, GitError> {
        let what = format!("read {}", entry.name);
        if entry.kind != Kind::File {
            return Err(GitError::local(what, format_args!("it is {}", entry.kind.words())));
        }
        let header = self.repo.find_header(entry.id).map_err(gix_error(&what))?;
        if header.size() > limit {
            return Err(GitError::new(
                Class::TooMuchOutput,
                what,
                format!("it has {} bytes; at most {limit} are read", header.size()),
            ));
        }
        let mut blob = self.repo.find_blob(entry.id).map_err(gix_error(&what))?;
        Ok(blob.take_data())
    }

    /// The values of the trailer `key` in the commits that `committer` made, reachable from `tip`
    /// and from none of `since`, oldest commit first, each with its commit.
    pub fn trailers(
        &self,
        tip: &CommitId,
        since: &[CommitId],
        committer: &str,
        key: &str,
    ) -> Result<Vec<(CommitId, String)>, GitError> {
        let prefix = format!("{key}: ");
        let mut commits = Vec::new();
        self.walk(tip, since, |id, data| {
            if commit::is_by(data, committer.as_bytes()) {
                let message = commit::message(data);
                let values: Vec<String> = message
                    .lines()
                    .filter_map(|l| l.strip_prefix(&prefix))
                    .map(|v| v.trim().to_owned())
                    .collect();
                commits.push((id, values));
            }
            true
        })?;
        let mut all = Vec::new();
        for (id, values) in commits.into_iter().rev() {
            let id = commit_id(id)?;
            all.extend(values.into_iter().map(|value| (id.clone(), value)));
        }
        Ok(all)
    }

    /// Writes a commit on `parent` that replaces one file and nothing else. No ref is moved. The path
    /// must be free or an ordinary file, and its folder free or a folder.
    pub fn replace(&self, wanted: &Replacement<'_>) -> Result<CommitId, GitError> {
        let Replacement { parent, folder, name, bytes, author, committer, second, message } =
            wanted;
        let what = format!("write {folder}/{name}");
        if !folder.split('/').all(is_plain) || !is_plain(name) {
            return Err(GitError::local(what, "it is not a path in a repository"));
        }
        if !is_person(author) || !is_person(committer) {
            return Err(GitError::local(
                what,
                "the author or the committer is not of the form `Name <mail>`",
            ));
        }
        match self.folder(parent, folder)? {
            Folder::Absent => {}
            Folder::Other(at, kind) => {
                return Err(GitError::local(what, format_args!("{at} is {}", kind.words())));
            }
            Folder::Entries(entries) => {
                if let Some(other) =
                    entries.iter().find(|e| e.name == **name && e.kind != Kind::File)
                {
                    return Err(GitError::local(
                        what,
                        format_args!("it is {}", other.kind.words()),
                    ));
                }
            }
        }
        let blob = self.repo.write_blob(bytes).map_err(gix_error(&what))?.detach();
        let commit = self.repo.find_commit(oid(parent)?).map_err(gix_error("read a commit"))?;
        let tree = commit.tree_id().map_err(gix_error("read a commit"))?.detach();
        let mut editor = self.repo.edit_tree(tree).map_err(gix_error(&what))?;
        editor
            .upsert(format!("{folder}/{name}"), EntryKind::Blob, blob)
            .map_err(gix_error(&what))?;
        let tree = editor.write().map_err(gix_error(&what))?.detach();
        let message = message.trim_end().replace('\0', " ");
        let data = format!(
            "tree {tree}\nparent {parent}\nauthor {author} {second} +0000\ncommitter {committer} {second} +0000\n\n{message}\n"
        );
        let written = self
            .repo
            .write_buf(gix::object::Kind::Commit, data.as_bytes())
            .map_err(|e| GitError::local(what, e))?;
        commit_id(written)
    }
}
