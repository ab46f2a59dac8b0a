//! Reading refs of the agent's repositories without git: loose files first, then `packed-refs`, both bounded and
//! without following links.

use std::os::fd::AsFd;

use gastown_types::{BranchName, CommitId};

use crate::hostile::{self, Unreadable};

/// Bytes of a loose ref, which is one line; a larger file is refused.
const LOOSE_MAX: u64 = 512;
/// Bytes of `packed-refs`; a larger file is refused. Ten thousand refs are under 1 MiB.
const PACKED_MAX: u64 = 4 << 20;

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

    proptest! {
        #[test]
        fn no_bytes_break_the_parsers(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            parse_loose(&bytes);
            find_packed(&bytes, "refs/heads/x");
        }

        #[test]
        fn a_packed_ref_is_found_among_noise(before in "[ -~\n]{0,200}", after in "[ -~\n]{0,200}") {
            let text = format!("{before}\n{A} refs/heads/only\n{after}");
            prop_assert_eq!(find_packed(text.as_bytes(), "refs/heads/only").map(String::from), Some(A.to_owned()));
        }
    }
}
