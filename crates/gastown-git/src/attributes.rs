//! The `.gitattributes` files of a tree, in a folder that a git in a bare repository takes for its
//! work tree: a merge reads attributes from nowhere else.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use gix::ObjectId;
use tempfile::TempDir;

use crate::error::GitError;
use crate::history::{Objects, gix_error};

const NAME: &[u8] = b".gitattributes";
/// What the files of a tree may take on disk; each takes a block, and so does each folder around it.
const MAX_BYTES: usize = 16 << 20;
const BLOCK: usize = 4096;
/// Folders below more others than this are not looked into: a call for each one is on the stack.
const MAX_DEPTH: usize = 512;

/// The attributes of one tree at a time.
pub(crate) struct Attributes {
    folder: TempDir,
    /// The files in the folder.
    shown: BTreeMap<PathBuf, ObjectId>,
    /// Trees without such a file in them or below.
    without: HashSet<ObjectId>,
}

impl Attributes {
    pub(crate) fn new() -> Result<Self, GitError> {
        Ok(Self { folder: folder()?, shown: BTreeMap::new(), without: HashSet::new() })
    }

    /// The folder with the files that were shown last.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the files by those of `tree`. One sentence in parentheses when they are too large;
    /// then the folder is as before.
    pub(crate) fn show(
        &mut self,
        objects: &Objects,
        tree: ObjectId,
    ) -> Result<Result<(), String>, GitError> {
        let mut found = Found::default();
        self.find(objects, tree, Path::new(""), 0, &mut found)?;
        if found.bytes > MAX_BYTES {
            let mebibytes = MAX_BYTES >> 20;
            return Ok(Err(format!(
                "(the .gitattributes files of the target are larger than {mebibytes} MiB)"
            )));
        }
        if found.files != self.shown {
            self.folder = folder()?;
            self.shown = BTreeMap::new();
            for (path, id) in &found.files {
                self.write(objects, path, *id)?;
            }
            self.shown = found.files;
        }
        Ok(Ok(()))
    }

    /// Finds the files of `tree`, which is at `path`, until they are too large.
    fn find(
        &mut self,
        objects: &Objects,
        tree: ObjectId,
        path: &Path,
        depth: usize,
        found: &mut Found,
    ) -> Result<(), GitError> {
        if depth > MAX_DEPTH || found.bytes > MAX_BYTES || self.without.contains(&tree) {
            return Ok(());
        }
        let before = found.bytes;
        let mut folders = Vec::new();
        let read = objects.repo.find_tree(tree).map_err(gix_error("read a tree"))?;
        for entry in read.iter() {
            let entry = entry.map_err(|e| GitError::local("read a tree", e))?;
            let (mode, name) = (entry.mode(), entry.filename());
            // A name such as `..` would lead out of the folder.
            if mode.is_tree() && gix::validate::path::component(name, None, RULES).is_ok() {
                folders.push((path.join(OsStr::from_bytes(name)), entry.oid().to_owned()));
            } else if mode.is_blob() && name == NAME {
                let header =
                    objects.repo.find_header(entry.oid()).map_err(gix_error("read a file"))?;
                let size = usize::try_from(header.size()).unwrap_or(usize::MAX);
                found.bytes = found.bytes.saturating_add(size).saturating_add(BLOCK * (depth + 1));
                found.files.insert(path.join(OsStr::from_bytes(name)), entry.oid().to_owned());
            }
        }
        drop(read);
        for (path, folder) in folders {
            self.find(objects, folder, &path, depth + 1, found)?;
        }
        if found.bytes == before {
            self.without.insert(tree);
        }
        Ok(())
    }

    fn write(&self, objects: &Objects, path: &Path, id: ObjectId) -> Result<(), GitError> {
        let blob = objects.repo.find_blob(id).map_err(gix_error("read a file"))?;
        let path = self.folder.path().join(path);
        let parent = path.parent().unwrap_or(self.folder.path());
        let written =
            std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&path, &blob.data));
        match written {
            // Such a path cannot be checked out either, so its attributes hold in no clone.
            Err(e) if e.kind() == ErrorKind::InvalidFilename => Ok(()),
            other => other.map_err(|e| GitError::local("write .gitattributes", e)),
        }
    }
}

/// Files by their path in the tree.
#[derive(Default)]
struct Found {
    files: BTreeMap<PathBuf, ObjectId>,
    bytes: usize,
}

const RULES: gix::validate::path::component::Options = gix::validate::path::component::Options {
    protect_windows: false,
    protect_hfs: false,
    protect_ntfs: false,
};

fn folder() -> Result<TempDir, GitError> {
    let folder = tempfile::Builder::new().prefix("gastown-attributes-").tempdir();
    folder.map_err(|e| GitError::local("create a temporary folder", e))
}
