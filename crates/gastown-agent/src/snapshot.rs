//! A working tree with its uncommitted changes as a git tree, built without git: no filter, hook or
//! link of the agent takes effect. Attributes that change bytes (line endings, encodings) do, as in
//! git: otherwise an untouched file would look changed.
//!
//! Only blobs and trees are written, into the sidecar's own repository. A file that cannot be saved
//! (too large, unreadable, not a plain file) keeps what HEAD has for it and is named, so that its
//! absence is not mistaken for a deletion.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};

use gastown_types::text;
use gix::ObjectId;
use gix::objs::tree::{Entry, EntryKind, EntryMode};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{FileType, Stat};

use crate::attributes::{self, Attributes, Clean};
use crate::hostile::{self, Unreadable};

/// Limits of one snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum size of one file, in bytes.
    pub file: u64,
    /// Maximum size of all new objects, in bytes.
    pub total: u64,
    /// Maximum number of files and folders.
    pub entries: usize,
    /// Maximum depth of nested folders.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file: 50 << 20, total: 512 << 20, entries: 500_000, depth: 128 }
    }
}

/// The snapshot could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Our own repository could not be read or written.
    #[error("the snapshot's objects: {0}")]
    Store(String),
    /// The worktree itself cannot be read.
    #[error("the worktree: {0}")]
    Worktree(#[from] Unreadable),
}

fn store(e: impl std::fmt::Display) -> SnapshotError {
    SnapshotError::Store(e.to_string())
}

/// A tree that was written.
#[derive(Debug)]
pub struct Tree {
    /// The tree's id.
    pub id: ObjectId,
    /// The first files that were left out, each with the reason.
    pub skipped: Vec<String>,
    /// The number of files that were left out.
    pub skipped_count: usize,
}

/// The identity of a file when it was last hashed, so that an unchanged one is not read again.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    ino: u64,
    size: i64,
    changed: (i64, i64),
    modified: (i64, i64),
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            ino: stat.st_ino,
            size: stat.st_size,
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
        }
    }
}

/// Hashes of files that did not change between two snapshots.
#[derive(Default)]
pub struct Cache(HashMap<Vec<u8>, (Stamp, ObjectId)>);

/// Files that were left out and are named.
const SKIPPED_MAX: usize = 20;
/// Characters of the name of such a file.
const NAME_MAX: usize = 200;
/// Bytes of a `.gitignore` or `.gitattributes`; a larger one is not read.
const RULES_MAX: u64 = 1 << 20;
/// Bytes of a file of Git LFS that is hashed to see whether it changed.
const LFS_MAX: i64 = 16 << 30;

struct Walk<'a> {
    repo: &'a gix::Repository,
    limits: Limits,
    old: HashMap<Vec<u8>, (Stamp, ObjectId)>,
    new: HashMap<Vec<u8>, (Stamp, ObjectId)>,
    ignores: Vec<(usize, Gitignore)>,
    attributes: Attributes,
    exclude: &'a Excluded,
    entries: usize,
    bytes: u64,
    now: i64,
    skipped: Vec<String>,
    skipped_count: usize,
}

/// One folder of the walk.
struct Folder<'f> {
    fd: &'f OwnedFd,
    /// Its path from the worktree, with a final slash; empty for the worktree itself.
    path: Vec<u8>,
    /// What HEAD has there.
    head: BTreeMap<Vec<u8>, (EntryMode, ObjectId)>,
    /// It is in an ignored folder: only files that HEAD has are saved.
    ignored: bool,
    depth: usize,
}

/// Paths below a working tree that are left out.
pub type Excluded = std::collections::BTreeSet<Vec<u8>>;

/// Writes the tree of the working tree `root` into `repo`. `head` is the tree of its HEAD, which
/// must be in `repo`. The paths in `exclude` are left out.
pub fn take(
    repo: &gix::Repository,
    root: &OwnedFd,
    head: Option<ObjectId>,
    exclude: &Excluded,
    cache: &mut Cache,
    limits: Limits,
) -> Result<Tree, SnapshotError> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64);
    let mut walk = Walk {
        repo,
        limits,
        old: std::mem::take(&mut cache.0),
        new: HashMap::new(),
        ignores: Vec::new(),
        attributes: Attributes::new(repo.object_hash()).map_err(store)?,
        exclude,
        entries: 0,
        bytes: 0,
        now,
        skipped: Vec::new(),
        skipped_count: 0,
    };
    if let Ok(bytes) = hostile::read_below(root, ".git/info/exclude", RULES_MAX) {
        walk.ignores.push((0, matcher(&bytes)));
    }
    if let Ok(bytes) = hostile::read_below(root, ".git/info/attributes", RULES_MAX) {
        walk.attributes.push(b"", &bytes);
    }
    let folder = Folder {
        fd: root,
        path: Vec::new(),
        head: walk.head_entries(head)?,
        ignored: false,
        depth: 0,
    };
    let id = match walk.folder(&folder)? {
        Some(id) => id,
        None => walk.repo.write_object(gix::objs::Tree::empty()).map_err(store)?.detach(),
    };
    cache.0 = walk.new;
    Ok(Tree { id, skipped: walk.skipped, skipped_count: walk.skipped_count })
}

fn matcher(bytes: &[u8]) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    for line in String::from_utf8_lossy(bytes).lines() {
        // An invalid pattern matches nothing, as in git.
        let _ = builder.add_line(None, line);
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

/// Whether git, on any file system, takes this name for its own folder: no tree may hold it.
fn is_git_folder(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b".git") || name.eq_ignore_ascii_case(b"git~1")
}

impl Walk<'_> {
    fn head_entries(
        &self,
        tree: Option<ObjectId>,
    ) -> Result<BTreeMap<Vec<u8>, (EntryMode, ObjectId)>, SnapshotError> {
        let Some(id) = tree else { return Ok(BTreeMap::new()) };
        let tree = self.repo.find_tree(id).map_err(store)?;
        let entries = tree
            .iter()
            .map(|e| e.map(|e| (e.filename().to_vec(), (e.mode(), e.object_id()))).map_err(store));
        entries.collect()
    }

    fn skip(&mut self, path: &[u8], why: impl std::fmt::Display) {
        self.skipped_count += 1;
        if self.skipped.len() < SKIPPED_MAX {
            let name = text::line(&String::from_utf8_lossy(path), NAME_MAX);
            self.skipped.push(format!("{name}: {why}"));
        }
    }

    fn is_ignored(&self, path: &[u8], is_dir: bool) -> bool {
        for (prefix, rules) in self.ignores.iter().rev() {
            let matched = rules.matched(hostile::name(&path[*prefix..]), is_dir);
            if !matched.is_none() {
                return matched.is_ignore();
            }
        }
        false
    }

    fn folder(&mut self, folder: &Folder<'_>) -> Result<Option<ObjectId>, SnapshotError> {
        let own_rules = hostile::read_file(folder.fd, hostile::name(b".gitignore"), RULES_MAX).ok();
        if let Some((bytes, _)) = &own_rules {
            self.ignores.push((folder.path.len(), matcher(bytes)));
        }
        let attributes =
            hostile::read_file(folder.fd, hostile::name(b".gitattributes"), RULES_MAX).ok();
        if let Some((bytes, _)) = &attributes {
            self.attributes.push(&folder.path, bytes);
        }
        let (names, cut) =
            hostile::list(folder.fd, self.limits.entries.saturating_sub(self.entries))?;
        let mut tree = gix::objs::Tree::empty();
        for name in &names {
            if is_git_folder(name) {
                continue;
            }
            self.entries += 1;
            if let Some((mode, oid)) = self.entry(folder, name)? {
                tree.entries.push(Entry { mode, filename: name.as_slice().into(), oid });
            }
        }
        if cut {
            self.skip(&folder.path, "too many files; the rest is as in HEAD");
            let seen: std::collections::HashSet<&Vec<u8>> = names.iter().collect();
            let rest = folder.head.iter().filter(|(name, _)| !seen.contains(name));
            tree.entries.extend(rest.map(|(n, (mode, oid))| Entry {
                mode: *mode,
                filename: n.as_slice().into(),
                oid: *oid,
            }));
        }
        if own_rules.is_some() {
            self.ignores.pop();
        }
        if attributes.is_some() {
            self.attributes.pop();
        }
        if tree.entries.is_empty() {
            return Ok(None);
        }
        tree.entries.sort();
        Ok(Some(self.repo.write_object(&tree).map_err(store)?.detach()))
    }

    /// The snapshot's entry for `name`: of the working tree, or of HEAD when the file cannot be read;
    /// `None` when it does not exist.
    fn entry(
        &mut self,
        folder: &Folder<'_>,
        name: &[u8],
    ) -> Result<Option<(EntryMode, ObjectId)>, SnapshotError> {
        let mut path = folder.path.clone();
        path.extend_from_slice(name);
        if self.exclude.contains(&path) {
            return Ok(None);
        }
        let head = folder.head.get(name).copied();
        let stat = match hostile::stat(folder.fd, hostile::name(name)) {
            Ok(stat) => stat,
            Err(Unreadable::Missing) => return Ok(None),
            Err(e) => {
                self.skip(&path, e);
                return Ok(head);
            }
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let ignored = folder.ignored || self.is_ignored(&path, kind == FileType::Directory);
        if ignored && head.is_none() {
            return Ok(None);
        }
        let read = match kind {
            // A submodule's folder is another repository: its commit is the one that HEAD has.
            FileType::Directory if head.is_some_and(|(m, _)| m.is_commit()) => return Ok(head),
            FileType::Directory => return self.subfolder(folder, name, path, ignored),
            FileType::RegularFile => self.file(folder.fd, name, &path, head),
            FileType::Symlink => self.link(folder.fd, name),
            _ => Ok(Err(Unreadable::NotPlain)),
        }?;
        match read {
            Ok(entry) => Ok(Some(entry)),
            Err(Unreadable::Missing) => Ok(None),
            Err(e) => {
                self.skip(&path, e);
                Ok(head)
            }
        }
    }

    fn subfolder(
        &mut self,
        above: &Folder<'_>,
        name: &[u8],
        mut path: Vec<u8>,
        ignored: bool,
    ) -> Result<Option<(EntryMode, ObjectId)>, SnapshotError> {
        let head = above.head.get(name).copied();
        let fd = match hostile::open_dir(above.fd, hostile::name(name)) {
            Ok(fd) if above.depth < self.limits.depth => fd,
            Ok(_) => {
                self.skip(&path, "the folders are nested too deep");
                return Ok(head);
            }
            Err(e) => {
                self.skip(&path, e);
                return Ok(head);
            }
        };
        let tree = head.filter(|(mode, _)| mode.is_tree()).map(|(_, id)| id);
        let entries = self.head_entries(tree)?;
        path.push(b'/');
        let folder = Folder { fd: &fd, path, head: entries, ignored, depth: above.depth + 1 };
        match self.folder(&folder) {
            Ok(id) => Ok(id.map(|id| (EntryKind::Tree.into(), id))),
            // A folder that may be entered and not listed is as unreadable as a file.
            Err(SnapshotError::Worktree(e)) => {
                self.skip(&folder.path, e);
                Ok(head)
            }
            Err(e) => Err(e),
        }
    }

    fn file(
        &mut self,
        dir: impl AsFd,
        name: &[u8],
        path: &[u8],
        head: Option<(EntryMode, ObjectId)>,
    ) -> FileEntry {
        let stat = match hostile::open_file(&dir, hostile::name(name)) {
            Ok((_, stat)) => stat,
            Err(e) => return Ok(Err(e)),
        };
        let kind =
            if stat.st_mode & 0o100 == 0 { EntryKind::Blob } else { EntryKind::BlobExecutable };
        let stamp = Stamp::of(&stat);
        if let Some((was, id)) = self.old.get(path).filter(|(was, _)| *was == stamp) {
            self.new.insert(path.to_vec(), (*was, *id));
            return Ok(Ok((kind.into(), *id)));
        }
        let head = head.filter(|(mode, _)| mode.is_blob()).map(|(_, id)| id);
        let saved = match self.lfs_unchanged(&dir, name, path, &stat, head) {
            Some(id) => Ok(id),
            None => match hostile::read_file(&dir, hostile::name(name), self.limits.file) {
                Ok((bytes, _)) => self.clean_blob(&bytes, path, head)?,
                Err(e) => Err(e),
            },
        };
        match saved {
            Ok(id) => {
                // Changed within the clock's grain, it could change once more under the same stamp.
                if stat.st_ctime + 2 < self.now {
                    self.new.insert(path.to_vec(), (stamp, id));
                }
                Ok(Ok((kind.into(), id)))
            }
            Err(e) => Ok(Err(e)),
        }
    }

    /// HEAD's blob, when it is the Git LFS pointer of the file's content. The content of a changed
    /// one is saved like that of any other file.
    fn lfs_unchanged(
        &mut self,
        dir: impl AsFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        head: Option<ObjectId>,
    ) -> Option<ObjectId> {
        let head = head?;
        if stat.st_size > LFS_MAX || !self.attributes.is_lfs(path) {
            return None;
        }
        let pointer = self.head_blob(head)?;
        if !pointer.ends_with(format!("\nsize {}\n", stat.st_size).as_bytes()) {
            return None;
        }
        let (file, _) = hostile::open_file(dir, hostile::name(name)).ok()?;
        let own = attributes::lfs_pointer(file.take(stat.st_size as u64)).ok()?;
        (own == pointer).then_some(head)
    }

    /// A blob of HEAD's, when it is no larger than a file that is saved.
    fn head_blob(&self, id: ObjectId) -> Option<Vec<u8>> {
        let header = self.repo.find_header(id).ok()?;
        if header.size() > self.limits.file {
            return None;
        }
        self.repo.find_blob(id).ok().map(|mut blob| blob.take_data())
    }

    /// The blob that git would store for a file of this content.
    fn clean_blob(
        &mut self,
        bytes: &[u8],
        path: &[u8],
        head: Option<ObjectId>,
    ) -> Result<Result<ObjectId, Unreadable>, SnapshotError> {
        let raw = self.hash(bytes)?;
        if head == Some(raw) {
            return Ok(Ok(raw));
        }
        let before = head.and_then(|id| self.head_blob(id));
        match self.attributes.clean(path, bytes, before.as_deref()) {
            Clean::Same => self.blob(bytes),
            Clean::Converted(converted) => self.blob(&converted),
        }
    }

    fn hash(&self, bytes: &[u8]) -> Result<ObjectId, SnapshotError> {
        gix::objs::compute_hash(self.repo.object_hash(), gix::objs::Kind::Blob, bytes)
            .map_err(store)
    }

    fn link(&mut self, dir: impl AsFd, name: &[u8]) -> FileEntry {
        match hostile::read_link(&dir, hostile::name(name)) {
            Ok(to) => Ok(self.blob(&to)?.map(|id| (EntryKind::Link.into(), id))),
            Err(e) => Ok(Err(e)),
        }
    }

    fn blob(&mut self, bytes: &[u8]) -> Result<Result<ObjectId, Unreadable>, SnapshotError> {
        let id = self.hash(bytes)?;
        if !self.repo.has_object(id) {
            // Only new objects count: most of a large repository is in HEAD already.
            if self.bytes + bytes.len() as u64 > self.limits.total {
                return Ok(Err(Unreadable::TooLarge(self.limits.total - self.bytes)));
            }
            self.bytes += bytes.len() as u64;
            self.repo.write_blob(bytes).map_err(store)?;
        }
        Ok(Ok(id))
    }
}

/// An entry, or why the file could not be read; the outer error is a failure of our repository.
type FileEntry = Result<Result<(EntryMode, ObjectId), Unreadable>, SnapshotError>;
