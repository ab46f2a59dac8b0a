//! Finding the git repositories and working trees below the workspace, as a stranger's: no link is
//! followed, no configuration is read, everything has a bound.

use std::os::fd::OwnedFd;

use gastown_types::{CommitId, text};
use rustix::fs::FileType;

use crate::hostile;
use crate::refs;

/// Limits of one walk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of files and folders that are looked at.
    pub entries: usize,
    /// Maximum depth of nested folders.
    pub depth: usize,
    /// Maximum number of repositories.
    pub repositories: usize,
    /// Maximum number of working trees.
    pub trees: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 3_000_000, depth: 128, repositories: 200, trees: 1_000 }
    }
}

/// A git folder: that of a clone, of a submodule, or a bare repository.
#[derive(Debug)]
pub struct Repository {
    /// Its path below the workspace, such as `repo/.git`.
    pub path: String,
    /// The folder.
    pub git_dir: OwnedFd,
}

/// A working tree: a folder with a `.git`.
#[derive(Debug)]
pub struct Tree {
    /// Its path below the workspace, such as `repo`.
    pub path: String,
    /// The folder.
    pub root: OwnedFd,
    /// HEAD's commit, where its git folder is below the workspace and has one.
    pub head: Option<CommitId>,
}

/// What the walk found.
#[derive(Debug, Default)]
pub struct Found {
    /// All repositories, in the order of their paths.
    pub repositories: Vec<Repository>,
    /// All working trees, in the order of their paths.
    pub trees: Vec<Tree>,
    /// What was not looked at, each with the reason.
    pub skipped: Vec<String>,
}

struct Walk {
    limits: Limits,
    seen: usize,
    found: Found,
    /// Working trees whose `.git` is a file, with the path that it names.
    linked: Vec<(String, OwnedFd, String)>,
}

/// Bytes of a `.git` file.
const GITFILE_MAX: u64 = 4 << 10;
/// Folders that were not looked at and are named.
const SKIPPED_MAX: usize = 20;

/// The agent's origin, below the workspace. It is a repository whatever the agent did to it.
const ORIGIN: &str = "origin.git";
/// What is looked at before anything else in its folder.
const FIRST: [&[u8]; 3] = [ORIGIN.as_bytes(), b"repo", b".git"];

/// Looks through everything below `root`, whose absolute path is `root_path`.
pub fn walk(root: &OwnedFd, root_path: &str, limits: Limits) -> Found {
    let mut walk = Walk { limits, seen: 0, found: Found::default(), linked: Vec::new() };
    walk.folder(root, "", 0);
    for (path, folder, to) in std::mem::take(&mut walk.linked) {
        let head = linked_head(root, root_path, &path, &to);
        walk.found.trees.push(Tree { path, root: folder, head });
    }
    walk.found.repositories.sort_by(|a, b| a.path.cmp(&b.path));
    walk.found.trees.sort_by(|a, b| a.path.cmp(&b.path));
    walk.found
}

/// HEAD of the git folder that a `.git` file names, when that is below the workspace.
fn linked_head(root: &OwnedFd, root_path: &str, tree: &str, to: &str) -> Option<CommitId> {
    let below = match to.strip_prefix(root_path) {
        Some(rest) => rest.trim_start_matches('/').to_owned(),
        None if to.starts_with('/') => return None,
        None => normalise(&format!("{tree}/{to}"))?,
    };
    let folder = hostile::descend(root, &below).ok()?;
    match refs::head(&folder).ok()?? {
        refs::Head::Detached(commit) => Some(commit),
        refs::Head::Branch(branch) => {
            // The branches of a linked worktree are in the repository that it belongs to.
            let common = below.split_once("/worktrees/").map_or(below.as_str(), |(c, _)| c);
            let common = hostile::descend(root, common).ok()?;
            refs::branch(&common, &branch).ok()?
        }
    }
}

/// A path without `.` and `..`; `None` when it leaves the root.
fn normalise(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

impl Walk {
    fn skip(&mut self, path: &str, why: impl std::fmt::Display) {
        if self.found.skipped.len() < SKIPPED_MAX {
            self.found.skipped.push(format!("{}: {why}", text::line(path, 200)));
        }
    }

    fn folder(&mut self, folder: &OwnedFd, path: &str, depth: usize) {
        let room = self.limits.entries.saturating_sub(self.seen);
        let (mut entries, cut) = match hostile::entries(folder, room) {
            Ok(read) => read,
            Err(e) => return self.skip(path, e),
        };
        self.seen += entries.len();
        if cut || depth > self.limits.depth {
            return self.skip(path, "too many files or folders to look for repositories in");
        }
        let is = |name: &[u8], kind: FileType| entries.iter().any(|(n, k)| n == name && *k == kind);
        let bare = (path == ORIGIN || is(b"HEAD", FileType::RegularFile))
            && is(b"objects", FileType::Directory)
            && (is(b"refs", FileType::Directory) || is(b"packed-refs", FileType::RegularFile));
        if bare {
            return self.repository(folder, path, depth);
        }
        // The bounds must not leave out the clone and its origin.
        entries.sort_by_key(|(name, _)| !FIRST.contains(&name.as_slice()));
        for (name, kind) in entries {
            // A name may be any bytes; its text is for messages.
            let text = String::from_utf8_lossy(&name);
            let below = joined(path, &text);
            match kind {
                FileType::Directory => {
                    let opened = match hostile::open_dir(folder, hostile::name(&name)) {
                        Ok(opened) => opened,
                        // Deleted meanwhile, or replaced by something else.
                        Err(hostile::Unreadable::Missing | hostile::Unreadable::NotPlain) => {
                            continue;
                        }
                        Err(e) => {
                            self.skip(&below, e);
                            continue;
                        }
                    };
                    if text == ".git" {
                        self.tree(folder, path, refs::head_commit(&opened).ok().flatten());
                        self.repository(&opened, &below, depth + 1);
                    } else {
                        self.folder(&opened, &below, depth + 1);
                    }
                }
                FileType::RegularFile if text == ".git" => self.linked(folder, path),
                _ => {}
            }
        }
    }

    fn tree(&mut self, folder: &OwnedFd, path: &str, head: Option<CommitId>) {
        if !self.has_room(path) {
            return;
        }
        match rustix::io::dup(folder) {
            Ok(root) => self.found.trees.push(Tree { path: path.to_owned(), root, head }),
            Err(e) => self.skip(path, e),
        }
    }

    /// Whether one more working tree is looked at.
    fn has_room(&mut self, path: &str) -> bool {
        let has = self.found.trees.len() + self.linked.len() < self.limits.trees;
        if !has {
            self.skip(path, "too many working trees");
        }
        has
    }

    fn linked(&mut self, folder: &OwnedFd, path: &str) {
        if !self.has_room(path) {
            return;
        }
        let read = hostile::read_file(folder, ".git".as_ref(), GITFILE_MAX);
        let text = read.map(|(bytes, _)| String::from_utf8_lossy(&bytes).into_owned());
        let to = text.ok().and_then(|t| t.strip_prefix("gitdir:").map(|t| t.trim().to_owned()));
        match rustix::io::dup(folder) {
            Ok(root) => self.linked.push((path.to_owned(), root, to.unwrap_or_default())),
            Err(e) => self.skip(path, e),
        }
    }

    /// A git folder, and those of its submodules.
    fn repository(&mut self, git_dir: &OwnedFd, path: &str, depth: usize) {
        if self.found.repositories.len() == self.limits.repositories {
            return self.skip(path, "too many repositories");
        }
        match rustix::io::dup(git_dir) {
            Ok(own) => {
                self.found.repositories.push(Repository { path: path.to_owned(), git_dir: own });
            }
            Err(e) => return self.skip(path, e),
        }
        if let Ok(modules) = hostile::open_dir(git_dir, "modules".as_ref()) {
            self.folder(&modules, &joined(path, "modules"), depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn bare(at: &Path, head: &str) {
        fs::create_dir_all(at.join("objects")).unwrap();
        fs::create_dir_all(at.join("refs/heads")).unwrap();
        fs::write(at.join("HEAD"), format!("{head}\n")).unwrap();
    }

    fn found(dir: &Path, limits: Limits) -> Found {
        walk(&hostile::open_root(dir).unwrap(), dir.to_str().unwrap(), limits)
    }

    #[test]
    fn repositories_worktrees_submodules_and_nested_clones_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        bare(&at("repo/.git"), "ref: refs/heads/side");
        fs::write(at("repo/.git/refs/heads/side"), format!("{a}\n")).unwrap();
        bare(&at("repo/.git/modules/lib/deep"), &b);
        fs::create_dir_all(at("repo/.git/worktrees/wt")).unwrap();
        fs::write(at("repo/.git/worktrees/wt/HEAD"), "ref: refs/heads/side\n").unwrap();
        fs::create_dir_all(at("repo/sub/src")).unwrap();
        fs::write(at("repo/sub/.git"), "gitdir: ../.git/modules/lib/deep\n").unwrap();
        fs::create_dir_all(at("wt")).unwrap();
        let names = format!("gitdir: {}\n", at("repo/.git/worktrees/wt").display());
        fs::write(at("wt/.git"), names).unwrap();
        bare(&at("origin.git"), "ref: refs/heads/main");
        bare(&at("repo/build/nested/.git"), &b);
        // What leads out of the workspace is not followed.
        fs::create_dir_all(at("out")).unwrap();
        fs::write(at("out/.git"), "gitdir: /etc\n").unwrap();
        fs::create_dir_all(at("up")).unwrap();
        fs::write(at("up/.git"), "gitdir: ../../../etc\n").unwrap();
        std::os::unix::fs::symlink("/", at("root")).unwrap();

        let found = found(dir.path(), Limits::default());
        let repositories: Vec<&str> = found.repositories.iter().map(|r| r.path.as_str()).collect();
        assert_eq!(
            repositories,
            ["origin.git", "repo/.git", "repo/.git/modules/lib/deep", "repo/build/nested/.git"]
        );
        let trees: Vec<(&str, Option<&str>)> = found
            .trees
            .iter()
            .map(|t| (t.path.as_str(), t.head.as_ref().map(CommitId::as_str)))
            .collect();
        assert_eq!(
            trees,
            [
                ("out", None),
                ("repo", Some(a.as_str())),
                ("repo/build/nested", Some(b.as_str())),
                ("repo/sub", Some(b.as_str())),
                ("up", None),
                ("wt", Some(a.as_str())),
            ]
        );
        assert!(found.skipped.is_empty(), "{:?}", found.skipped);
    }

    #[test]
    fn a_folder_with_a_name_in_another_encoding_is_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        bare(&dir.path().join(hostile::name(b"l\xe4")).join(".git"), "ref: refs/heads/main");
        let found = found(dir.path(), Limits::default());
        assert_eq!((found.repositories.len(), found.trees.len()), (1, 1));
    }

    #[test]
    fn the_walk_is_bounded_and_names_what_it_left() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b/c/d")).unwrap();
        let limits = Limits { depth: 2, ..Limits::default() };
        assert_eq!(found(dir.path(), limits).skipped.len(), 1);
        let limits = Limits { entries: 2, ..Limits::default() };
        assert_eq!(found(dir.path(), limits).skipped.len(), 1);
        for n in 0..3 {
            bare(&dir.path().join(format!("r{n}")), "ref: refs/heads/main");
        }
        let limits = Limits { repositories: 2, ..Limits::default() };
        let found = |limits| self::found(dir.path(), limits);
        assert_eq!((found(limits).repositories.len(), found(limits).skipped.len()), (2, 1));
        for n in 0..5 {
            fs::create_dir_all(dir.path().join(format!("t{n}"))).unwrap();
            fs::write(dir.path().join(format!("t{n}/.git")), "gitdir: x\n").unwrap();
            bare(&dir.path().join(format!("n{n}/.git")), "ref: refs/heads/main");
        }
        bare(&dir.path().join("repo/.git"), "ref: refs/heads/main");
        bare(&dir.path().join("repo/a/.git"), "ref: refs/heads/main");
        fs::create_dir_all(dir.path().join("origin.git/objects")).unwrap();
        fs::create_dir_all(dir.path().join("origin.git/refs")).unwrap();
        let limits = Limits { repositories: 2, trees: 1, ..Limits::default() };
        let first: Vec<String> = found(limits).repositories.into_iter().map(|r| r.path).collect();
        assert_eq!(first, ["origin.git", "repo/.git"]);
        assert_eq!(found(limits).trees[0].path, "repo");
    }
}
