//! The agent's git objects, checked and brought into our own repository.
//!
//! git never opens the agent's object folders: a FIFO there would block it, a link or an alternates
//! file would lead it to other folders. Loose objects and packs are copied file by file,
//! opened safely, into a folder of ours; packs get an index of our own making. Only that copy is
//! offered to git, as an alternate, for one `pack-objects`; the pack is checked by `index-pack
//! --strict` (which hashes every object and follows every link) before it joins our store.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gastown_git::{Class, Git, GitError};
use gastown_types::CommitId;

use crate::hostile::{self, Unreadable};

/// Limits of what is copied from the agent.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum size of all files, in bytes.
    pub total: u64,
    /// Maximum number of files.
    pub files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: 4 << 30, files: 500_000 }
    }
}

/// A commit could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The agent's objects are missing, broken, refused by fsck, or too many.
    #[error("{0}")]
    Invalid(String),
    /// Our own disk or git failed.
    #[error("{0}")]
    Internal(String),
}

fn internal(e: impl std::fmt::Display) -> ImportError {
    ImportError::Internal(e.to_string())
}

/// The identity of a copied file, so that an unchanged one is not copied again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Stamp(u64, i64, i64, i64);

/// The folder with the copies, and what is known of it.
pub struct Quarantine {
    git: Git,
    repo: PathBuf,
    at: PathBuf,
    limits: Limits,
    copied: HashMap<String, Stamp>,
    /// Packs that git could not read, which are not copied again.
    broken: HashSet<(String, Stamp)>,
    bytes: u64,
    /// Files were left out, since there are too many or they are too large.
    is_cut: bool,
}

fn is_hex(name: &[u8], len: usize) -> bool {
    name.len() == len && name.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
}

/// The name of a pack without its extension; `None` when git would not name a pack so.
fn pack_stem(name: &[u8]) -> Option<&str> {
    let stem = name.strip_suffix(b".pack")?;
    let id = stem.strip_prefix(b"pack-")?;
    (is_hex(id, 40) || is_hex(id, 64)).then(|| std::str::from_utf8(stem).ok()).flatten()
}

impl Quarantine {
    /// Copies go under `tmp`; objects that pass the check go to the bare repository `repo`.
    pub fn new(git: Git, repo: PathBuf, tmp: &Path, limits: Limits) -> Self {
        Self {
            git,
            repo,
            at: tmp.join("quarantine"),
            limits,
            copied: HashMap::new(),
            broken: HashSet::new(),
            bytes: 0,
            is_cut: false,
        }
    }

    /// Imports `commit` and all objects that it needs beyond the commits `known` from the object
    /// folders `from`. Does nothing when the repository has it already.
    pub async fn import(
        &mut self,
        commit: &CommitId,
        from: &[OwnedFd],
        known: &[CommitId],
    ) -> Result<(), ImportError> {
        self.import_all(std::slice::from_ref(commit), from, known).await
    }

    /// As [`Quarantine::import`], for several commits: all of them, or none.
    pub async fn import_all(
        &mut self,
        commits: &[CommitId],
        from: &[OwnedFd],
        known: &[CommitId],
    ) -> Result<(), ImportError> {
        if self.has(commits).await? {
            return Ok(());
        }
        let first = self.attempt(commits, from, known).await;
        if !matches!(first, Err(ImportError::Invalid(_))) {
            return first;
        }
        // A file may have been copied while it was being written, or replaced later by a good one:
        // one more attempt with new copies.
        self.clear()?;
        let second = self.attempt(commits, from, known).await;
        if second.is_err() {
            self.clear()?;
        }
        second
    }

    /// Copies the objects of the folders `from`, so that [`Quarantine::peel`] and
    /// [`Quarantine::own`] see them. What was copied before and did not change is not copied again.
    pub async fn copy_all(&mut self, from: &[OwnedFd]) -> Result<(), ImportError> {
        let objects = self.objects();
        fs::create_dir_all(objects.join("pack")).map_err(internal)?;
        for folder in from {
            self.copy_loose(folder, &objects)?;
            self.copy_packs(folder, &objects).await?;
        }
        Ok(())
    }

    /// Makes the index of a copied pack; without one git does not read it. `false` when it is broken,
    /// and gone.
    async fn index(&self, pack: &str) -> Result<bool, ImportError> {
        let path = self.objects().join("pack").join(format!("{pack}.pack"));
        let call = self
            .git
            .call([OsStr::new("index-pack"), path.as_os_str()])
            .repo(&self.repo)
            .doing("index the agent's pack");
        let Err(e) = call.output().await else { return Ok(true) };
        tracing::warn!(error = %e, pack, "a broken pack of the agent is skipped");
        fs::remove_file(&path).map_err(internal)?;
        Ok(false)
    }

    /// The commits that `ids` name, in their order: the commit itself, the one of a tag, or `None`
    /// where there is no such object among the copies and in the repository.
    pub async fn peel(&self, ids: &[CommitId]) -> Result<Vec<Option<CommitId>>, ImportError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut input = String::new();
        for id in ids {
            input.extend([id.as_str(), "^{commit}\n"]);
        }
        let call = self
            .git
            .call(["cat-file", "--batch-check=%(objectname) %(objecttype)"])
            .repo(&self.repo)
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", self.objects())
            .stdin(input.into_bytes())
            .doing("look for the agent's commits");
        let output = call.output().await.map_err(internal)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found: Vec<Option<CommitId>> = text
            .lines()
            .map(|line| line.strip_suffix(" commit").and_then(|id| id.parse().ok()))
            .collect();
        if found.len() == ids.len() {
            Ok(found)
        } else {
            Err(internal("git did not answer for each commit"))
        }
    }

    /// The commits that `tips` reach and `known` do not, each with its parents, newest first.
    pub async fn own(
        &self,
        tips: &[CommitId],
        known: &[CommitId],
    ) -> Result<Vec<(CommitId, Vec<CommitId>)>, ImportError> {
        if tips.is_empty() {
            return Ok(Vec::new());
        }
        let call = self
            .git
            .call(["rev-list", "--parents", "--stdin"])
            .repo(&self.repo)
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", self.objects())
            .stdin(revisions(tips, known).into_bytes())
            .doing("list the agent's commits");
        let output = call.output().await.map_err(|e| classify(&e))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let parse = |line: &str| {
            let mut ids = line.split(' ').filter_map(|id| id.parse().ok());
            Some((ids.next()?, ids.collect()))
        };
        Ok(text.lines().filter_map(parse).collect())
    }

    /// Whether the histories of two commits have a commit in common.
    pub async fn are_related(&self, a: &CommitId, b: &CommitId) -> bool {
        let call = self
            .git
            .call(["merge-base", a.as_str(), b.as_str()])
            .repo(&self.repo)
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", self.objects());
        call.any_exit().output().await.is_ok_and(|o| o.status.success())
    }

    /// A bare repository that sees the copies and our repository, to compare with; what is written
    /// to it is thrown away with the copies.
    pub async fn scratch(&self) -> Result<PathBuf, ImportError> {
        let scratch = self.at.join("scratch.git");
        if scratch.exists() {
            return Ok(scratch);
        }
        let format = self.git.call(["rev-parse", "--show-object-format"]).repo(&self.repo);
        let format = format.output().await.map_err(internal)?;
        let sha256 = format.stdout.trim_ascii() == b"sha256";
        gastown_git::remote::init_bare(&self.git, &scratch, sha256).await.map_err(internal)?;
        let info = scratch.join("objects/info");
        fs::create_dir_all(&info).map_err(internal)?;
        let stores = [self.objects(), self.repo.join("objects")];
        let lines: Vec<String> = stores.iter().map(|s| format!("{}\n", s.display())).collect();
        fs::write(info.join("alternates"), lines.concat()).map_err(internal)?;
        Ok(scratch)
    }

    fn objects(&self) -> PathBuf {
        self.at.join("objects")
    }

    fn clear(&mut self) -> Result<(), ImportError> {
        self.copied.clear();
        (self.bytes, self.is_cut) = (0, false);
        match fs::remove_dir_all(&self.at) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(internal(e)),
            _ => Ok(()),
        }
    }

    /// Whether the repository itself has all of the commits.
    async fn has(&self, commits: &[CommitId]) -> Result<bool, ImportError> {
        let mut input = String::new();
        for commit in commits {
            input.extend([commit.as_str(), "\n"]);
        }
        let call = self
            .git
            .call(["cat-file", "--batch-check=%(objecttype)"])
            .repo(&self.repo)
            .stdin(input.into_bytes());
        let output = call.output().await.map_err(internal)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().count() == commits.len() && text.lines().all(|line| line == "commit"))
    }

    async fn attempt(
        &mut self,
        commits: &[CommitId],
        from: &[OwnedFd],
        known: &[CommitId],
    ) -> Result<(), ImportError> {
        self.copy_all(from).await?;
        self.pack(commits, known).await
    }

    /// Packs what `commits` need beyond `known`, checks the pack, and moves it into our repository.
    async fn pack(&self, commits: &[CommitId], known: &[CommitId]) -> Result<(), ImportError> {
        let out = self.at.join("out");
        // Packs of an interrupted attempt must not get into the repository unchecked.
        let _ = fs::remove_dir_all(&out);
        fs::create_dir_all(&out).map_err(internal)?;
        self.pack_objects(commits, known, &out).await?;
        // The check writes an index of its own.
        for index in files_with_extension(&out, "idx")? {
            fs::remove_file(&index).map_err(internal)?;
        }
        for pack in files_with_extension(&out, "pack")? {
            self.check(&pack).await?;
            self.move_to_repository(&pack)?;
        }
        let _ = fs::remove_dir_all(&out);
        if self.has(commits).await? {
            return Ok(());
        }
        let names: Vec<&str> = commits.iter().take(5).map(CommitId::short).collect();
        Err(ImportError::Invalid(format!("not a commit: {}", names.join(", "))))
    }

    /// Has git write a pack into `out` from our repository and the copied objects.
    async fn pack_objects(
        &self,
        commits: &[CommitId],
        known: &[CommitId],
        out: &Path,
    ) -> Result<(), ImportError> {
        let base = out.join("pack");
        let call = self
            .git
            .call([
                "pack-objects".as_ref(),
                "--revs".as_ref(),
                "--quiet".as_ref(),
                "--delta-base-offset".as_ref(),
                base.as_os_str(),
            ])
            .repo(&self.repo)
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", self.objects())
            .config("core.bigFileThreshold", "32m")
            .config("pack.windowMemory", "64m")
            .config("pack.threads", "1")
            .stdin(revisions(commits, known).into_bytes())
            .doing("collect the agent's objects")
            .deadline(Duration::from_mins(5));
        call.output().await.map(drop).map_err(|e| match classify(&e) {
            ImportError::Invalid(message) if self.is_cut => ImportError::Invalid(format!(
                "{message}; object files beyond {} MiB or {} files were left out",
                self.limits.total >> 20,
                self.limits.files
            )),
            other => other,
        })
    }

    /// Has git check every object of a pack and every link between them.
    async fn check(&self, pack: &Path) -> Result<(), ImportError> {
        let check: [&OsStr; 4] = [
            "index-pack".as_ref(),
            "--strict".as_ref(),
            "--fsck-objects".as_ref(),
            pack.as_os_str(),
        ];
        let check = self
            .git
            .call(check)
            .repo(&self.repo)
            .doing("check the agent's objects")
            .config("core.bigFileThreshold", "32m");
        check.output().await.map(drop).map_err(|e| classify(&e))
    }

    /// Moves a checked pack into our repository; the index last, since git finds a pack by it.
    fn move_to_repository(&self, pack: &Path) -> Result<(), ImportError> {
        let store = self.repo.join("objects/pack");
        fs::create_dir_all(&store).map_err(internal)?;
        for ending in ["pack", "idx"] {
            let from = pack.with_extension(ending);
            let name = from.file_name().ok_or_else(|| internal("a pack without a name"))?;
            fs::rename(&from, store.join(name)).map_err(internal)?;
        }
        Ok(())
    }

    fn copy_loose(&mut self, objects: impl AsFd, to: &Path) -> Result<(), ImportError> {
        for prefix in 0..=255u8 {
            let prefix = format!("{prefix:02x}");
            let Ok(folder) = hostile::open_dir(&objects, prefix.as_ref()) else { continue };
            let (names, _) = hostile::list(&folder, self.limits.files).map_err(internal)?;
            for name in names.iter().filter(|n| is_hex(n, 38) || is_hex(n, 62)) {
                let Ok(text) = std::str::from_utf8(name) else { continue };
                self.copy(&folder, name, &format!("{prefix}/{text}"), &to.join(&prefix))?;
            }
        }
        Ok(())
    }

    async fn copy_packs(&mut self, objects: &OwnedFd, to: &Path) -> Result<(), ImportError> {
        let Ok(folder) = hostile::open_dir(objects, "pack".as_ref()) else { return Ok(()) };
        let (names, _) = hostile::list(&folder, self.limits.files).map_err(internal)?;
        for name in &names {
            let Some(stem) = pack_stem(name) else { continue };
            let (key, before) = (format!("pack/{stem}"), self.bytes);
            if !self.copy(&folder, name, &key, &to.join("pack"))? || self.index(stem).await? {
                continue;
            }
            // One broken pack must not hide the good ones, nor take their room. One that was just
            // written may be complete a moment later under the same stamp.
            self.bytes = before;
            let stamp = self.copied.get(&key).copied();
            if let Some(stamp) = stamp.filter(|stamp| stamp.2 + 2 < crate::now_ms() / 1000) {
                self.broken.insert((key, stamp));
            }
        }
        Ok(())
    }

    /// Copies one file unless it was copied before; `true` when it was copied now. A file that cannot
    /// be read is skipped: if the commit needs it, packing fails and names the object.
    fn copy(
        &mut self,
        dir: impl AsFd,
        name: &[u8],
        key: &str,
        to: &Path,
    ) -> Result<bool, ImportError> {
        let (file, stat) = match hostile::open_file(dir, hostile::name(name)) {
            Ok(opened) => opened,
            Err(e @ (Unreadable::Os(_) | Unreadable::Io(_))) => {
                tracing::warn!(error = %e, key, "an object file of the agent cannot be read");
                return Ok(false);
            }
            Err(_) => return Ok(false),
        };
        let stamp = Stamp(
            stat.st_ino as i64 as u64,
            stat.st_size,
            stat.st_ctime,
            stat.st_ctime_nsec as i64,
        );
        if self.copied.get(key) == Some(&stamp) || self.broken.contains(&(key.to_owned(), stamp)) {
            return Ok(false);
        }
        let room = self.limits.total.saturating_sub(self.bytes);
        if stat.st_size as u64 > room || self.copied.len() >= self.limits.files {
            // It must not hide the others: packing fails when something in it is needed.
            tracing::warn!(key, size = stat.st_size, "an object file of the agent is left out");
            self.is_cut = true;
            return Ok(false);
        }
        if key.starts_with("pack/") && !begins_as_pack(&file) {
            return Ok(false);
        }
        fs::create_dir_all(to).map_err(internal)?;
        let path = to.join(hostile::name(name));
        // The size is read before the copy: a file that grows meanwhile is cut, and refused as
        // broken.
        let mut copy = fs::File::create(&path).map_err(internal)?;
        self.bytes +=
            std::io::copy(&mut file.take(stat.st_size as u64), &mut copy).map_err(internal)?;
        self.copied.insert(key.to_owned(), stamp);
        Ok(true)
    }
}

/// Whether a file begins like a pack: a huge one that does not is not copied.
fn begins_as_pack(file: &fs::File) -> bool {
    use std::os::unix::fs::FileExt as _;
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, 0).is_ok() && magic == *b"PACK"
}

/// What git reads as "these commits, and not those".
fn revisions(wanted: &[CommitId], known: &[CommitId]) -> String {
    let mut text = String::new();
    for commit in wanted {
        text.extend([commit.as_str(), "\n"]);
    }
    for commit in known {
        text.extend(["^", commit.as_str(), "\n"]);
    }
    text
}

/// The files of `folder` with this extension.
fn files_with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, ImportError> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder).map_err(internal)? {
        let path = file.map_err(internal)?.path();
        if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The class of git's error: a full disk and a timeout are internal; nearly all other errors are
/// about the agent's objects.
fn classify(e: &GitError) -> ImportError {
    let disk = e.detail.contains("No space left");
    if e.class == Class::Timeout || disk {
        ImportError::Internal(e.to_string())
    } else {
        ImportError::Invalid(e.to_string())
    }
}
