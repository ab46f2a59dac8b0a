//! Reading refs of the agent's repositories without git: loose files first, then `packed-refs`, both bounded and
//! without following links.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use gastown_types::{BranchName, CommitId};
use rustix::fs::FileType;

use crate::hostile::{self, Unreadable};

/// Bytes of a loose ref, which is one line; a larger file is refused.
const LOOSE_MAX: u64 = 512;
/// Bytes of `packed-refs`; a larger file is refused. A hundred thousand refs are about 8 MiB.
const PACKED_MAX: u64 = 64 << 20;
/// Bytes of one reflog; of a larger one the end is not read.
const LOG_MAX: u64 = 16 << 20;
/// Loose refs and reflogs of one repository.
const FILES_MAX: usize = 300_000;
/// Depth of the folders below `refs` and `logs`.
const DEPTH_MAX: usize = 32;
/// Linked worktrees of one repository.
const WORKTREES_MAX: usize = 1_000;
/// Refs outside of `refs` that hold a commit which git has just left.
const PSEUDO_REFS: [&str; 6] =
    ["ORIG_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD", "BISECT_HEAD"];

/// What HEAD points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// A branch, which may have no commit yet.
    Branch(BranchName),
    /// A commit.
    Detached(CommitId),
}

/// The content of a loose ref's file.
#[derive(Debug, PartialEq, Eq)]
enum Loose {
    Commit(CommitId),
    Symbolic(String),
}

fn parse_loose(bytes: &[u8]) -> Option<Loose> {
    let line = std::str::from_utf8(bytes).ok()?.trim_end_matches(['\n', '\r', ' ']);
    match line.strip_prefix("ref:") {
        Some(to) => Some(Loose::Symbolic(to.trim_start().to_owned())),
        None => line.parse().ok().map(Loose::Commit),
    }
}

/// The commit of `full` in a `packed-refs` file's text. Invalid lines are skipped.
fn find_packed(bytes: &[u8], full: &str) -> Option<CommitId> {
    bytes.split(|b| *b == b'\n').find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let (id, name) = line.split_once(' ')?;
        (name == full).then(|| id.parse().ok()).flatten()
    })
}

/// The commit of a branch in the git folder `git_dir`; `None` when there is no such branch.
pub fn branch(git_dir: impl AsFd, branch: &BranchName) -> Result<Option<CommitId>, Unreadable> {
    let full = branch.full();
    match hostile::read_below(&git_dir, &full, LOOSE_MAX) {
        // git makes no symbolic branches here: one is not followed.
        Ok(bytes) => match parse_loose(&bytes) {
            Some(Loose::Commit(id)) => return Ok(Some(id)),
            _ => return Err(Unreadable::NotPlain),
        },
        Err(Unreadable::Missing) => {}
        Err(e) => return Err(e),
    }
    match hostile::read_below(&git_dir, "packed-refs", PACKED_MAX) {
        Ok(bytes) => Ok(find_packed(&bytes, &full)),
        Err(Unreadable::Missing) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What HEAD of the git folder `git_dir` points to; `None` when it is not valid.
pub fn head(git_dir: impl AsFd) -> Result<Option<Head>, Unreadable> {
    let bytes = hostile::read_below(&git_dir, "HEAD", LOOSE_MAX)?;
    Ok(match parse_loose(&bytes) {
        Some(Loose::Commit(id)) => Some(Head::Detached(id)),
        Some(Loose::Symbolic(to)) => {
            to.strip_prefix("refs/heads/").and_then(|b| b.parse().ok()).map(Head::Branch)
        }
        None => None,
    })
}

/// HEAD's commit; `None` when its branch has no commit yet.
pub fn head_commit(git_dir: impl AsFd) -> Result<Option<CommitId>, Unreadable> {
    match head(&git_dir)? {
        Some(Head::Detached(id)) => Ok(Some(id)),
        Some(Head::Branch(name)) => branch(&git_dir, &name),
        None => Ok(None),
    }
}

/// Every commit that a repository's refs and reflogs name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AllRefs {
    /// Refs with their full names, such as `refs/heads/main`.
    pub refs: Vec<(String, CommitId)>,
    /// The commits that HEAD, the HEADs of linked worktrees (with their names) and refs such as
    /// `ORIG_HEAD` hold. The first is HEAD's own, where it has one.
    pub heads: Vec<(String, CommitId)>,
    /// All commits in reflogs.
    pub logs: BTreeSet<CommitId>,
    /// What could not be read.
    pub unreadable: Vec<String>,
}

/// Reads every ref and reflog of the git folder `git_dir`. What cannot be read is named, and hides
/// nothing else.
pub fn all(git_dir: &OwnedFd) -> AllRefs {
    let mut all = AllRefs::default();
    if stat_is_dir(git_dir, "reftable") {
        all.unreadable.push("its refs are in the reftable format, which is not read".to_owned());
    }
    let mut files = 0;
    all.read_packed(git_dir);
    all.read_loose(git_dir, &mut files);
    all.read_head(git_dir, "HEAD");
    for name in PSEUDO_REFS {
        all.read_pseudo(git_dir, name, name);
    }
    all.read_logs(git_dir, &mut files);
    let Ok(worktrees) = hostile::open_dir(git_dir, "worktrees".as_ref()) else { return all };
    let Ok((names, _)) = hostile::list(&worktrees, WORKTREES_MAX) else { return all };
    for name in names {
        let Ok(folder) = hostile::open_dir(&worktrees, hostile::name(&name)) else { continue };
        let label = format!("HEAD of worktree {}", String::from_utf8_lossy(&name));
        all.read_detached(&folder, &label);
        for pseudo in PSEUDO_REFS {
            all.read_pseudo(&folder, pseudo, pseudo);
        }
        all.read_loose(&folder, &mut files);
        all.read_logs(&folder, &mut files);
    }
    all
}

/// Whether a file is git's lock of a ref.
fn is_lock(name: &str) -> bool {
    std::path::Path::new(name).extension().is_some_and(|extension| extension == "lock")
}

fn stat_is_dir(dir: &OwnedFd, name: &str) -> bool {
    hostile::stat(dir, name.as_ref())
        .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
}

impl AllRefs {
    fn read_packed(&mut self, git_dir: &OwnedFd) {
        match hostile::read_below(git_dir, "packed-refs", PACKED_MAX) {
            Ok(bytes) => self.refs.extend(parse_packed(&bytes)),
            Err(Unreadable::Missing) => {}
            Err(e) => self.unreadable.push(format!("packed-refs: {e}")),
        }
    }

    /// Loose refs below `folder`. A loose ref is newer than a packed one of the same name; both are
    /// kept, since both are commits of the workspace.
    fn read_loose(&mut self, git_dir: &OwnedFd, files: &mut usize) {
        self.each_file(git_dir, "refs", files, &mut |all, folder, name, label| {
            let read = hostile::read_file(folder, name, LOOSE_MAX);
            match read.map(|(bytes, _)| parse_loose(&bytes)) {
                Ok(Some(Loose::Commit(id))) => all.refs.push((label, id)),
                // A symbolic ref names another ref, which is read anyway.
                Ok(Some(Loose::Symbolic(_))) | Err(Unreadable::Missing) => {}
                Ok(None) if is_lock(&label) => {}
                Ok(None) => all.unreadable.push(format!("{label}: not a ref")),
                Err(e) => all.unreadable.push(format!("{label}: {e}")),
            }
        });
    }

    fn read_logs(&mut self, git_dir: &OwnedFd, files: &mut usize) {
        self.each_file(git_dir, "logs", files, &mut |all, folder, name, label| {
            match hostile::read_file(folder, name, LOG_MAX) {
                Ok((bytes, _)) => all.logs.extend(parse_log(&bytes)),
                Err(Unreadable::Missing) => {}
                Err(e) => all.unreadable.push(format!("{label}: {e}")),
            }
        });
    }

    /// Calls `read` for each plain file below the folder `top` of `git_dir`, with its folder, its name
    /// and its path for messages. A name may be any bytes, in a ref too.
    fn each_file(
        &mut self,
        git_dir: &OwnedFd,
        top: &str,
        files: &mut usize,
        read: &mut dyn FnMut(&mut Self, &OwnedFd, &OsStr, String),
    ) {
        let Ok(folder) = hostile::open_dir(git_dir, top.as_ref()) else { return };
        let mut open = vec![(folder, top.to_owned(), 0)];
        while let Some((folder, path, depth)) = open.pop() {
            let room = FILES_MAX.saturating_sub(*files);
            let Ok((mut entries, cut)) = hostile::entries(&folder, room) else { continue };
            *files += entries.len();
            if cut || depth > DEPTH_MAX {
                self.unreadable.push(format!("{path}: too many files"));
                continue;
            }
            entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            for (name, kind) in entries {
                let below = format!("{path}/{}", String::from_utf8_lossy(&name));
                let name = hostile::name(&name);
                match kind {
                    FileType::Directory => match hostile::open_dir(&folder, name) {
                        Ok(inner) => open.push((inner, below, depth + 1)),
                        Err(Unreadable::Missing) => {}
                        Err(e) => self.unreadable.push(format!("{below}: {e}")),
                    },
                    FileType::RegularFile => read(self, &folder, name, below),
                    _ => {}
                }
            }
        }
    }

    fn read_head(&mut self, git_dir: &OwnedFd, label: &str) {
        if let Ok(Some(commit)) = head_commit(git_dir) {
            self.heads.push((label.to_owned(), commit));
        }
    }

    /// HEAD of a linked worktree, when it is not on a branch (which is read with the refs).
    fn read_detached(&mut self, folder: &OwnedFd, label: &str) {
        if let Ok(Some(Head::Detached(commit))) = head(folder) {
            self.heads.push((label.to_owned(), commit));
        }
    }

    fn read_pseudo(&mut self, git_dir: &OwnedFd, name: &str, label: &str) {
        if let Ok((bytes, _)) = hostile::read_file(git_dir, name.as_ref(), LOOSE_MAX)
            && let Some(Loose::Commit(commit)) = parse_loose(&bytes)
        {
            self.heads.push((label.to_owned(), commit));
        }
    }
}

/// The refs of a `packed-refs` file. Invalid lines, and those with a peeled tag, are skipped.
fn parse_packed(bytes: &[u8]) -> impl Iterator<Item = (String, CommitId)> {
    bytes.split(|b| *b == b'\n').filter_map(|line| {
        let at = line.iter().position(|b| *b == b' ')?;
        let name = String::from_utf8_lossy(&line[at + 1..]).trim_end().to_owned();
        name.starts_with("refs/").then_some(())?;
        Some((name, std::str::from_utf8(&line[..at]).ok()?.parse().ok()?))
    })
}

/// The commits of a reflog: each line begins with the old and the new one, and goes on with a name
/// in any encoding. An id of zeros stands for none.
fn parse_log(bytes: &[u8]) -> impl Iterator<Item = CommitId> {
    bytes.split(|b| *b == b'\n').flat_map(|line| {
        line.split(|b| *b == b' ')
            .take(2)
            .filter(|id| id.iter().any(|b| *b != b'0'))
            .filter_map(|id| std::str::from_utf8(id).ok()?.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn repo() -> (tempfile::TempDir, BranchName) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("refs/heads/feature")).unwrap();
        (dir, "feature/x".parse().unwrap())
    }

    fn read(dir: &tempfile::TempDir, name: &BranchName) -> Result<Option<CommitId>, Unreadable> {
        branch(hostile::open_root(dir.path()).unwrap(), name)
    }

    #[test]
    fn a_loose_ref_wins_over_a_packed_one() {
        let (dir, name) = repo();
        std::fs::write(
            dir.path().join("packed-refs"),
            format!("# pack-refs\n{A} refs/heads/feature/x\n^{B}\n"),
        )
        .unwrap();
        assert_eq!(read(&dir, &name).unwrap().unwrap().as_str(), A);
        std::fs::write(dir.path().join("refs/heads/feature/x"), format!("{B}\n")).unwrap();
        assert_eq!(read(&dir, &name).unwrap().unwrap().as_str(), B);
    }

    #[test]
    fn links_fifos_and_huge_files_are_refused_and_not_followed() {
        let (dir, name) = repo();
        let at = dir.path().join("refs/heads/feature/x");
        std::fs::write(dir.path().join("secret"), format!("{A}\n")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), &at).unwrap();
        assert!(matches!(read(&dir, &name), Err(Unreadable::NotPlain)));
        std::fs::remove_file(&at).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &at,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        assert!(matches!(read(&dir, &name), Err(Unreadable::NotPlain)));
        std::fs::remove_file(&at).unwrap();
        std::fs::File::create(dir.path().join("packed-refs")).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(read(&dir, &name), Err(Unreadable::TooLarge(_))));
        std::fs::remove_dir_all(dir.path().join("refs/heads")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("refs/heads")).unwrap();
        assert!(matches!(read(&dir, &name), Err(Unreadable::NotPlain)));
    }

    #[test]
    fn a_symbolic_branch_is_not_followed() {
        let (dir, name) = repo();
        std::fs::write(dir.path().join("refs/heads/feature/x"), "ref: refs/heads/main\n").unwrap();
        assert!(read(&dir, &name).is_err());
    }

    #[test]
    fn head_is_a_branch_or_a_commit() {
        let (dir, name) = repo();
        let fd = hostile::open_root(dir.path()).unwrap();
        std::fs::write(dir.path().join("HEAD"), "ref: refs/heads/feature/x\n").unwrap();
        assert_eq!(head(&fd).unwrap(), Some(Head::Branch(name)));
        assert_eq!(head_commit(&fd).unwrap(), None);
        std::fs::write(dir.path().join("HEAD"), A).unwrap();
        assert_eq!(head_commit(&fd).unwrap().unwrap().as_str(), A);
        std::fs::write(dir.path().join("HEAD"), "ref: ../../etc/passwd").unwrap();
        assert_eq!(head(&fd).unwrap(), None);
    }

    #[test]
    fn every_ref_head_and_reflog_is_found_and_what_cannot_be_read_hides_nothing() {
        let (dir, _) = repo();
        let at = |path: &str| {
            let at = dir.path().join(path);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            at
        };
        let id = |c: char| String::from(c).repeat(40);
        std::fs::write(at("packed-refs"), format!("# pack-refs\n{A} refs/tags/v1\n^{B}\nx\n"))
            .unwrap();
        std::fs::write(at("refs/heads/side"), format!("{B}\n")).unwrap();
        std::fs::write(at("refs/heads/broken"), "garbage").unwrap();
        std::fs::write(at("refs/heads/side.lock"), "").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("refs/heads/link")).unwrap();
        std::fs::write(at("HEAD"), "ref: refs/heads/side\n").unwrap();
        std::fs::write(at("ORIG_HEAD"), format!("{}\n", id('c'))).unwrap();
        std::fs::write(at("worktrees/wt/HEAD"), format!("{}\n", id('d'))).unwrap();
        std::fs::write(at("worktrees/on/HEAD"), "ref: refs/heads/side\n").unwrap();
        let zero = id('0');
        std::fs::write(
            at("logs/refs/stash"),
            format!("{zero} {} T <t@e> 1 +0000\tWIP\n{} {A} T\nbad\n", id('e'), id('e')),
        )
        .unwrap();
        std::fs::write(at("worktrees/wt/logs/HEAD"), format!("{zero} {} T\t\n", id('f'))).unwrap();
        let all = all(&hostile::open_root(dir.path()).unwrap());
        let named = |name: &str, id: &str| (name.to_owned(), id.parse::<CommitId>().unwrap());
        assert_eq!(all.refs, [named("refs/tags/v1", A), named("refs/heads/side", B)]);
        assert_eq!(
            all.heads,
            [
                named("HEAD", B),
                named("ORIG_HEAD", &id('c')),
                named("HEAD of worktree wt", &id('d'))
            ]
        );
        let logs: Vec<&str> = all.logs.iter().map(CommitId::as_str).collect();
        assert_eq!(logs, [A, &id('e'), &id('f')]);
        assert_eq!(all.unreadable, ["refs/heads/broken: not a ref"]);
    }

    #[test]
    fn names_in_another_encoding_hide_no_commit() {
        let (dir, _) = repo();
        let latin = |text: &str| hostile::name(&[text.as_bytes(), b"\xe4"].concat()).to_owned();
        let id = |c: char| String::from(c).repeat(40);
        std::fs::write(dir.path().join("refs/heads").join(latin("l")), format!("{A}\n")).unwrap();
        std::fs::create_dir_all(dir.path().join("refs/heads").join(latin("d"))).unwrap();
        let inside = dir.path().join("refs/heads").join(latin("d")).join("x");
        std::fs::write(inside, format!("{B}\n")).unwrap();
        let packed = [id('c').as_bytes(), b" refs/heads/p\xe4\n"].concat();
        std::fs::write(dir.path().join("packed-refs"), packed).unwrap();
        std::fs::create_dir_all(dir.path().join("logs").join(latin("d"))).unwrap();
        let mut log = format!("{} {} ", id('0'), id('d')).into_bytes();
        log.extend(b"J\xe4ger <j@e> 1 +0000\tx\n");
        std::fs::write(dir.path().join("logs").join(latin("d")).join("y"), log).unwrap();
        let all = all(&hostile::open_root(dir.path()).unwrap());
        let mut found: Vec<&str> = all.refs.iter().map(|(_, id)| id.as_str()).collect();
        found.extend(all.logs.iter().map(CommitId::as_str));
        found.sort_unstable();
        assert_eq!(found, [A, B, id('c').as_str(), id('d').as_str()]);
        assert!(all.unreadable.is_empty(), "{:?}", all.unreadable);
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_parsers(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            parse_loose(&bytes);
            find_packed(&bytes, "refs/heads/x");
            parse_packed(&bytes).count();
            parse_log(&bytes).count();
        }

        #[test]
        fn a_packed_ref_is_found_among_noise(before in "[ -~\n]{0,200}", after in "[ -~\n]{0,200}") {
            let text = format!("{before}\n{A} refs/heads/only\n{after}");
            prop_assert_eq!(find_packed(text.as_bytes(), "refs/heads/only").map(String::from), Some(A.to_owned()));
        }
    }
}
