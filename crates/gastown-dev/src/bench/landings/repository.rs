//! Repositories with long histories and large files.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The committer's line of every commit.
const WHO: &str = "committer Ann <ann@example.org> 1735689600 +0000";
/// How many versions of a file a long history has.
pub const VERSIONS: u32 = 64;

/// Bytes that do not compress, the same for the same seed.
struct Noise(u64);

impl Noise {
    /// Of SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Fills an empty repository by `git fast-import`.
fn import(repository: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository).args(["-c", "core.compression=0", "fast-import", "--quiet"]);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let mut git = command.stdin(Stdio::piped()).spawn().context("git is needed")?;
    let mut pipe = BufWriter::with_capacity(1 << 20, git.stdin.take().context("no pipe to git")?);
    let written = write(&mut pipe).and_then(|()| pipe.flush());
    drop(pipe);
    let status = git.wait()?;
    ensure!(status.success(), "git fast-import ended with {status}");
    written.context("writing to git fast-import")
}

fn commit(pipe: &mut dyn Write, branch: &str, from: Option<&str>, message: &str) -> io::Result<()> {
    write!(pipe, "commit refs/heads/{branch}\n{WHO}\ndata {}\n{message}\n", message.len())?;
    from.map_or(Ok(()), |from| writeln!(pipe, "from {from}"))
}

/// The branches of a repository with a long history.
pub const WORK: [&str; 3] = ["work", "kept", "anew"];

/// A file of random bytes in [`VERSIONS`] versions on `main`, `mebibytes` together; and the branches
/// [`WORK`] that each add a small file.
pub fn with_history(repository: &Path, mebibytes: u32) -> Result<()> {
    let words = u64::from(mebibytes) * (1 << 17) / u64::from(VERSIONS);
    import(repository, |pipe| {
        let mut noise = Noise(1);
        for version in 0..VERSIONS {
            commit(pipe, "main", None, &format!("version {version}"))?;
            writeln!(pipe, "M 100644 inline file\ndata {}", words * 8)?;
            for _ in 0..words {
                pipe.write_all(&noise.next().to_le_bytes())?;
            }
            writeln!(pipe)?;
        }
        for branch in WORK {
            commit(pipe, branch, Some("refs/heads/main"), "a small file")?;
            writeln!(pipe, "M 100644 inline small-{branch}\ndata 2\n1\n")?;
        }
        Ok(())
    })
}

/// A file of `mebibytes` of text, of which `main` has changed the first line and `work` the last one.
pub fn with_large_file(repository: &Path, mebibytes: u32) -> Result<()> {
    // A line has 63 digits.
    let lines = u64::from(mebibytes) << 14;
    import(repository, |pipe| {
        let file = |pipe: &mut dyn Write, first: bool, last: bool| {
            let mut noise = Noise(1);
            writeln!(pipe, "M 100644 inline file\ndata {}", lines * 64)?;
            for n in 0..lines {
                let [a, b, c] = [noise.next(), noise.next(), noise.next()];
                let is_changed = (first && n == 0) || (last && n == lines - 1);
                let a = if is_changed { !a } else { a };
                writeln!(pipe, "{a:021}{b:021}{c:021}")?;
            }
            writeln!(pipe)
        };
        commit(pipe, "main", None, "a file")?;
        file(pipe, false, false)?;
        commit(pipe, "work", Some("refs/heads/main"), "the last line")?;
        file(pipe, false, true)?;
        commit(pipe, "main", None, "the first line")?;
        file(pipe, true, false)
    })
}

/// A file on `main`, and branches `work-N` that each add one.
pub fn with_branches(repository: &Path, count: usize) -> Result<()> {
    import(repository, |pipe| {
        commit(pipe, "main", None, "a file")?;
        writeln!(pipe, "M 100644 inline file\ndata 2\n1\n")?;
        for n in 0..count {
            commit(pipe, &format!("work-{n}"), Some("refs/heads/main"), &format!("file {n}"))?;
            writeln!(pipe, "M 100644 inline file-{n}\ndata 2\n1\n")?;
        }
        Ok(())
    })
}

/// The commit of a branch.
pub fn commit_of(repository: &Path, branch: &str) -> Result<String> {
    let head = gastown_fakes::repository::head(repository, branch);
    head.with_context(|| format!("{} has no branch {branch}", repository.display()))
}

#[cfg(test)]
mod tests {
    use gastown_fakes::repository::git;

    use super::*;

    fn bare() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "--quiet", "--bare", "--initial-branch=main"]).unwrap();
        dir
    }

    #[test]
    fn a_long_history_has_the_size_of_all_its_versions() {
        let dir = bare();
        with_history(dir.path(), VERSIONS).unwrap();
        let size = |of: &str| git(dir.path(), &["cat-file", "-s", of]).unwrap();
        assert_eq!(size("main:file"), (1 << 20).to_string());
        assert_eq!(git(dir.path(), &["rev-list", "--count", "work"]).unwrap(), "65");
        let packed = git(dir.path(), &["count-objects", "-v"]).unwrap();
        let kib = packed.lines().find_map(|line| line.strip_prefix("size-pack: ")).unwrap();
        assert!(kib.parse::<u32>().unwrap() > VERSIONS * 1024, "{packed}");
    }

    #[test]
    fn a_large_file_merges() {
        let dir = bare();
        with_large_file(dir.path(), 1).unwrap();
        assert_eq!(
            git(dir.path(), &["cat-file", "-s", "main:file"]).unwrap(),
            (1 << 20).to_string()
        );
        let stat = |a: &str, b: &str| git(dir.path(), &["diff", "--shortstat", a, b]).unwrap();
        assert!(stat("main", "work").ends_with("2 insertions(+), 2 deletions(-)"));
        git(dir.path(), &["merge-tree", "--write-tree", "main", "work"]).unwrap();
    }

    #[test]
    fn each_branch_adds_a_file() {
        let dir = bare();
        with_branches(dir.path(), 2).unwrap();
        assert_eq!(git(dir.path(), &["ls-tree", "--name-only", "work-1"]).unwrap(), "file\nfile-1");
        assert_eq!(commit_of(dir.path(), "main").unwrap().len(), 40);
        assert!(commit_of(dir.path(), "other").is_err());
    }
}
