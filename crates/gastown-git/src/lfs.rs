//! Git LFS: content of large files, which a repository holds only as pointers. The program git-lfs
//! talks to the server, with the credentials of the repository.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gastown_types::CommitId;

use crate::error::{Class, GitError};
use crate::remote::Remote;
use crate::spawn::{Call, Git};

/// The longest pointer, in bytes: git-lfs takes a longer file for content.
pub const MAX_POINTER: u64 = 1024;
/// How many objects one run of git-lfs uploads: they are on its command line.
const CHUNK: usize = 200;
/// The longest time that one run of git-lfs may take.
const DEADLINE: Duration = Duration::from_secs(3600);
/// The filter that turns content into pointers and back, as `git lfs install` configures it.
pub const FILTER: &str = "[filter \"lfs\"]\n\tclean = git-lfs clean -- %f\n\
    \tsmudge = git-lfs smudge -- %f\n\tprocess = git-lfs filter-process\n\trequired = true\n\
    [lfs]\n\tlocksverify = false\n";

/// What the repository holds in place of a large file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer {
    /// The SHA-256 of the content, in 64 lower-case hexadecimal digits.
    pub oid: String,
    /// The length of the content, in bytes.
    pub size: u64,
}

impl Pointer {
    /// The pointer in a file's text, if it is one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() as u64 > MAX_POINTER {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?;
        let mut lines = text.lines();
        let version = lines.next()?.strip_prefix("version ")?;
        if !version.contains("git-lfs.github.com/spec/") && !version.contains("hawser.github.com") {
            return None;
        }
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let oid = value("oid sha256:")?;
        if !is_oid(oid) {
            return None;
        }
        Some(Self { oid: oid.to_owned(), size: value("size ")?.parse().ok()? })
    }

    /// The path of its content below a folder of LFS objects: `aa/bb/<oid>`.
    pub fn path(&self) -> PathBuf {
        [&self.oid[..2], &self.oid[2..4], &self.oid].iter().collect()
    }
}

/// The file of an LFS object of the bare repository `repo`, if it is there. `oid` may be any text.
pub fn object_in(repo: &Path, oid: &str) -> Option<PathBuf> {
    let pointer = Pointer { oid: oid.to_owned(), size: 0 };
    let file = is_oid(oid).then(|| repo.join("lfs/objects").join(pointer.path()))?;
    file.is_file().then_some(file)
}

fn is_oid(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether files of the commit are kept in LFS, by its `.gitattributes`.
pub async fn is_used(git: &Git, repo: &Path, commit: &CommitId) -> Result<bool, GitError> {
    let args = ["grep", "-q", "-F", "-e", "filter=lfs", commit.as_str(), "--"];
    let call = git
        .call(args.into_iter().chain([":(glob)**/.gitattributes"]))
        .repo(repo)
        .doing("look for git LFS in .gitattributes")
        .any_exit();
    let out = call.output().await?;
    match out.status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(crate::spawn::failure("look for git LFS in .gitattributes", &out)),
    }
}

/// The pointers among the objects that are reachable from `new` and not from `known`.
pub async fn new_pointers(
    git: &Git,
    repo: &Path,
    new: &CommitId,
    known: &[CommitId],
) -> Result<Vec<Pointer>, GitError> {
    let mut input = format!("{new}\n");
    input.extend(known.iter().map(|id| format!("^{id}\n")));
    let doing = "look for new LFS files";
    let objects = git
        .call(["rev-list", "--objects", "--no-object-names", "--stdin"])
        .repo(repo)
        .stdin(input.into_bytes())
        .doing(doing)
        .output()
        .await?;
    let sizes = git
        .call(["cat-file", "--buffer", "--batch-check=%(objectname) %(objecttype) %(objectsize)"])
        .repo(repo)
        .stdin(objects.stdout)
        .doing(doing)
        .output()
        .await?;
    let text = String::from_utf8_lossy(&sizes.stdout).into_owned();
    let small = |row: &&str| {
        let mut parts = row.split(' ').skip(1);
        let size = |s: Option<&str>| s.and_then(|s| s.parse::<u64>().ok());
        parts.next() == Some("blob")
            && size(parts.next()).is_some_and(|n| (100..=MAX_POINTER).contains(&n))
    };
    let ids: String = text.lines().filter(small).filter_map(|r| r.get(..new.as_str().len())).fold(
        String::new(),
        |mut all, id| {
            all.push_str(id);
            all.push('\n');
            all
        },
    );
    let contents = git
        .call(["cat-file", "--buffer", "--batch"])
        .repo(repo)
        .stdin(ids.into_bytes())
        .doing(doing)
        .output()
        .await?;
    let mut pointers = batch(&contents.stdout);
    pointers.sort();
    pointers.dedup();
    Ok(pointers)
}

/// The pointers in the output of `cat-file --batch`.
pub(crate) fn batch(mut output: &[u8]) -> Vec<Pointer> {
    let mut found = Vec::new();
    while let Some(end) = output.iter().position(|b| *b == b'\n') {
        let head = String::from_utf8_lossy(&output[..end]).into_owned();
        let Some(size) = head.rsplit(' ').next().and_then(|n| n.parse::<usize>().ok()) else {
            return found;
        };
        let rest = output.get(end + 1..).unwrap_or_default();
        let Some(body) = rest.get(..size) else { return found };
        found.extend(Pointer::parse(body));
        output = rest.get(size..).and_then(|rest| rest.get(1..)).unwrap_or_default();
    }
    found
}

impl Remote {
    /// A run of git-lfs in `repo` for this remote, which it knows as `origin`.
    fn lfs_call(&self, git: &Git, repo: &Path, args: &[&str], doing: &str) -> Call {
        git.call(std::iter::once("lfs").chain(args.iter().copied()))
            .repo(repo)
            .config("remote.origin.url", self.url.as_str())
            .config("lfs.concurrentTransfers", "8")
            .config("lfs.locksVerify", "false")
            .config("filter.lfs.clean", "git-lfs clean -- %f")
            .config("filter.lfs.smudge", "git-lfs smudge -- %f")
            .config("filter.lfs.process", "git-lfs filter-process")
            .env("GIT_LFS_FORCE_PROGRESS", "1")
            .doing(format!("{doing} {}", self.url))
            // git-lfs tries some refusals again without end, which looks like progress.
            .deadline(DEADLINE)
            .patient()
    }

    /// Fetches the content of the LFS files of the commit that is checked out in `work_tree`, whose
    /// repository is `git_dir`, into the folder `storage`, and replaces the pointers by it. The
    /// server is the repository's own, or the one that `.lfsconfig` names, unless `server` does.
    pub async fn fill_lfs(
        &self,
        git: &Git,
        git_dir: &Path,
        work_tree: &Path,
        commit: &CommitId,
        storage: &Path,
        server: Option<&str>,
    ) -> Result<(), GitError> {
        let files = self.credential_files(git)?;
        let doing = "fetch the LFS files of";
        let storage = storage.display().to_string();
        let fetch = ["fetch", "origin", commit.as_str()];
        let call = self
            .lfs_call(git, git_dir, &fetch, doing)
            .work_tree(work_tree)
            .config("lfs.storage", &storage)
            .lfs_server(server);
        files.apply(call, &self.url).output().await.map_err(explained)?;
        self.lfs_call(git, git_dir, &["checkout"], "check out the LFS files of")
            .work_tree(work_tree)
            .config("lfs.storage", &storage)
            .output()
            .await
            .map_err(explained)?;
        Ok(())
    }

    /// Fetches the content of the LFS files of a commit into the bare repository `repo`.
    pub async fn fetch_lfs(
        &self,
        git: &Git,
        repo: &Path,
        commit: &CommitId,
        server: Option<&str>,
    ) -> Result<(), GitError> {
        let files = self.credential_files(git)?;
        let args = ["fetch", "origin", commit.as_str()];
        let call = self.lfs_call(git, repo, &args, "fetch the LFS files of").lfs_server(server);
        files.apply(call, &self.url).output().await.map(drop).map_err(explained)
    }

    /// Uploads LFS objects of the bare repository `repo` (in its folder `lfs/objects`) that the
    /// server does not have.
    pub async fn push_lfs(
        &self,
        git: &Git,
        repo: &Path,
        pointers: &[Pointer],
    ) -> Result<(), GitError> {
        let files = self.credential_files(git)?;
        for chunk in pointers.chunks(CHUNK) {
            let mut args = vec!["push", "--object-id", "origin"];
            args.extend(chunk.iter().map(|p| p.oid.as_str()));
            let call = self.lfs_call(git, repo, &args, "upload LFS files to");
            files.apply(call, &self.url).output().await.map_err(explained)?;
        }
        Ok(())
    }
}

impl Call {
    /// Has git-lfs use this server, where one is given.
    fn lfs_server(self, server: Option<&str>) -> Self {
        match server {
            Some(url) => self.config("lfs.url", url),
            None => self,
        }
    }
}

/// A failure of git-lfs, with what to do where git's own text lacks it.
fn explained(e: GitError) -> GitError {
    let text = e.detail.to_ascii_lowercase();
    if text.contains("'lfs' is not a git command") {
        let detail = "this image has no git-lfs".to_owned();
        return GitError { class: Class::MissingProgram, detail, ..e };
    }
    let class = match () {
        () if text.contains("batch response: ") && text.contains("credentials") => {
            Class::AuthFailed
        }
        () if text.contains("authentication required") || text.contains("authorization error") => {
            Class::AuthFailed
        }
        () if text.contains("server error") || text.contains("dial tcp") => Class::Unreachable,
        () => e.class,
    };
    GitError { class, ..e }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_git_lfs_has_a_class_of_its_own() {
        let text = "git: 'lfs' is not a git command. See 'git --help'.".to_owned();
        let e = explained(GitError::new(Class::Local, "fetch the LFS files of u", text));
        assert_eq!(
            (e.class, e.detail.as_str()),
            (Class::MissingProgram, "this image has no git-lfs")
        );
    }

    fn text(oid: &str) -> String {
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 12\n")
    }

    #[test]
    fn a_pointer_is_read_and_nothing_else_is_one() {
        let oid = "0a".repeat(32);
        let pointer = Pointer::parse(text(&oid).as_bytes()).unwrap();
        assert_eq!((pointer.oid.as_str(), pointer.size), (oid.as_str(), 12));
        assert_eq!(pointer.path(), Path::new("0a/0a").join(&oid));
        for bad in [
            text("../../../etc"),
            text(&"0A".repeat(32)),
            text(&oid).replace("size", "s"),
            "x".into(),
        ] {
            assert_eq!(Pointer::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Pointer::parse(format!("{}{}", text(&oid), " ".repeat(2000)).as_bytes()), None);
    }

    #[test]
    fn pointers_are_found_among_other_small_files() {
        let oid = "0b".repeat(32);
        let mut output = b"aaaa blob 3\nfoo\n".to_vec();
        output.extend(format!("bbbb blob {}\n{}\n", text(&oid).len(), text(&oid)).into_bytes());
        output.extend(b"cccc missing\n");
        assert_eq!(batch(&output), [Pointer { oid, size: 12 }]);
    }
}
