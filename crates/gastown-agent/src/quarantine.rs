//! A stranger's objects, brought into our own repository.
//!
//! git never opens the agent's object folders: a FIFO there would hold it, a link would lead it
//! out, an alternates file would lead it on. Loose objects and packs are copied file by file,
//! opened safely, into a folder of ours; packs get an index of our own making. Only that copy is
//! offered to git, as an alternate, for one `pack-objects`; the pack is checked by `index-pack
//! --strict` (which hashes every object and follows every link) before it joins our store.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gastown_git::{Class, Git, GitError};
use gastown_types::CommitId;

use crate::hostile::{self, Unreadable};

/// Bounds of what is copied from the agent.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes in all.
    pub total: u64,
    /// Files in all.
    pub files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: 4 << 30, files: 500_000 }
    }
}

/// Why a commit could not be brought over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The agent's objects are missing, broken, refused by fsck, or too many.
    #[error("{0}")]
    Bad(String),
    /// Ours to mend: disk, git.
    #[error("{0}")]
    Ours(String),
}

fn ours(e: impl std::fmt::Display) -> ImportError {
    ImportError::Ours(e.to_string())
}

/// What a copied file was, so that an unchanged one is not copied again.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, i64, i64, i64);

/// The copies.
pub struct Quarantine {
    git: Git,
    repo: PathBuf,
    at: PathBuf,
    limits: Limits,
    copied: HashMap<String, Stamp>,
    bytes: u64,
}

fn is_hex(name: &[u8], len: usize) -> bool {
    name.len() == len && name.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
}

/// The pack's name without its ending, when it is one that git gives.
fn pack_stem(name: &[u8]) -> Option<&str> {
    let stem = name.strip_suffix(b".pack")?;
    let id = stem.strip_prefix(b"pack-")?;
    (is_hex(id, 40) || is_hex(id, 64)).then(|| std::str::from_utf8(stem).ok()).flatten()
}

impl Quarantine {
    /// Copies go under `tmp`; what is found good joins the bare repository `repo`.
    pub fn new(git: Git, repo: PathBuf, tmp: &Path, limits: Limits) -> Self {
        Self { git, repo, at: tmp.join("quarantine"), limits, copied: HashMap::new(), bytes: 0 }
    }

    /// Brings `commit` and all that it needs from the object folders `from`; no work when it is
    /// here already.
    pub async fn import(
        &mut self,
        commit: &CommitId,
        from: &[OwnedFd],
        known: &[CommitId],
    ) -> Result<(), ImportError> {
        if self.has(commit).await? {
            return Ok(());
        }
        let first = self.attempt(commit, from, known).await;
        if !matches!(first, Err(ImportError::Bad(_))) {
            return first;
        }
        // A copy may be of a file that was being written, or planted first and mended later: once
        // more from nothing.
        self.forget()?;
        let second = self.attempt(commit, from, known).await;
        if second.is_err() {
            self.forget()?;
        }
        second
    }

    fn forget(&mut self) -> Result<(), ImportError> {
        self.copied.clear();
        self.bytes = 0;
        match fs::remove_dir_all(&self.at) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(ours(e)),
            _ => Ok(()),
        }
    }

    async fn has(&self, commit: &CommitId) -> Result<bool, ImportError> {
        let found = self
            .git
            .call(["cat-file", "-e", &format!("{commit}^{{commit}}")])
            .repo(&self.repo)
            .any_exit()
            .output()
            .await;
        found.map(|o| o.status.success()).map_err(ours)
    }

    async fn attempt(
        &mut self,
        commit: &CommitId,
        from: &[OwnedFd],
        known: &[CommitId],
    ) -> Result<(), ImportError> {
        let objects = self.at.join("objects");
        fs::create_dir_all(objects.join("pack")).map_err(ours)?;
        let mut packs = Vec::new();
        for folder in from {
            self.copy_loose(folder, &objects)?;
            self.copy_packs(folder, &objects, &mut packs)?;
        }
        for pack in packs {
            let path = objects.join("pack").join(format!("{pack}.pack"));
            let call = self
                .git
                .call([std::ffi::OsStr::new("index-pack"), path.as_os_str()])
                .repo(&self.repo)
                .doing("index the agent's pack");
            if let Err(e) = call.output().await {
                // One broken pack must not hide the good ones.
                tracing::warn!(error = %e, pack, "a pack of the agent is left out");
                fs::remove_file(&path).map_err(ours)?;
            }
        }
        self.pack(commit, &objects, known).await
    }

    /// Packs what `commit` needs beyond `known`, checks it, and moves it into our store.
    async fn pack(
        &self,
        commit: &CommitId,
        objects: &Path,
        known: &[CommitId],
    ) -> Result<(), ImportError> {
        let out = self.at.join("out");
        // What an interrupted attempt left must not join the store unchecked.
        let _ = fs::remove_dir_all(&out);
        fs::create_dir_all(&out).map_err(ours)?;
        let mut wanted = format!("{commit}\n");
        for have in known {
            wanted.extend(["^", have.as_str(), "\n"]);
        }
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
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", objects)
            .config("core.bigFileThreshold", "32m")
            .config("pack.windowMemory", "64m")
            .config("pack.threads", "1")
            .stdin(wanted.into_bytes())
            .doing("collect the agent's objects")
            .deadline(Duration::from_secs(300));
        call.output().await.map_err(|e| bad(&e))?;
        for file in fs::read_dir(&out).map_err(ours)? {
            let path = file.map_err(ours)?.path();
            if path.extension().is_some_and(|e| e == "idx") {
                fs::remove_file(&path).map_err(ours)?;
            }
        }
        for file in fs::read_dir(&out).map_err(ours)? {
            let path = file.map_err(ours)?.path();
            let check: [&std::ffi::OsStr; 4] = [
                "index-pack".as_ref(),
                "--strict".as_ref(),
                "--fsck-objects".as_ref(),
                path.as_os_str(),
            ];
            if path.extension().is_some_and(|e| e == "pack") {
                let check = self
                    .git
                    .call(check)
                    .repo(&self.repo)
                    .doing("check the agent's objects")
                    .config("core.bigFileThreshold", "32m");
                check.output().await.map_err(|e| bad(&e))?;
                self.adopt(&path)?;
            }
        }
        let _ = fs::remove_dir_all(&out);
        if self.has(commit).await? {
            Ok(())
        } else {
            Err(ImportError::Bad(format!("{} is no commit", commit.short())))
        }
    }

    /// Moves a checked pack into our store; the index last, since git finds a pack by it.
    fn adopt(&self, pack: &Path) -> Result<(), ImportError> {
        let store = self.repo.join("objects/pack");
        fs::create_dir_all(&store).map_err(ours)?;
        for ending in ["pack", "idx"] {
            let from = pack.with_extension(ending);
            let name = from.file_name().ok_or_else(|| ours("a pack without a name"))?;
            fs::rename(&from, store.join(name)).map_err(ours)?;
        }
        Ok(())
    }

    fn copy_loose(&mut self, objects: impl AsFd, to: &Path) -> Result<(), ImportError> {
        for prefix in 0..=255u8 {
            let prefix = format!("{prefix:02x}");
            let Ok(folder) = hostile::open_dir(&objects, prefix.as_ref()) else { continue };
            let (names, _) = hostile::list(&folder, self.limits.files).map_err(ours)?;
            for name in names.iter().filter(|n| is_hex(n, 38) || is_hex(n, 62)) {
                let Ok(text) = std::str::from_utf8(name) else { continue };
                self.copy(&folder, name, &format!("{prefix}/{text}"), &to.join(&prefix))?;
            }
        }
        Ok(())
    }

    fn copy_packs(
        &mut self,
        objects: impl AsFd,
        to: &Path,
        packs: &mut Vec<String>,
    ) -> Result<(), ImportError> {
        let Ok(folder) = hostile::open_dir(&objects, "pack".as_ref()) else { return Ok(()) };
        let (names, _) = hostile::list(&folder, self.limits.files).map_err(ours)?;
        for name in &names {
            let Some(stem) = pack_stem(name) else { continue };
            if self.copy(&folder, name, &format!("pack/{stem}"), &to.join("pack"))? {
                packs.push(stem.to_owned());
            }
        }
        Ok(())
    }

    /// Copies one file unless that very file was copied before. What cannot be read is passed over:
    /// if it mattered, the pack will lack it and say so.
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
        if self.copied.get(key) == Some(&stamp) {
            return Ok(false);
        }
        let room = self.limits.total.saturating_sub(self.bytes);
        if stat.st_size as u64 > room || self.copied.len() >= self.limits.files {
            return Err(ImportError::Bad(format!(
                "the repository's objects are more than {} MiB or {} files",
                self.limits.total >> 20,
                self.limits.files
            )));
        }
        fs::create_dir_all(to).map_err(ours)?;
        let path = to.join(hostile::name(name));
        // The size is taken before the copy: a file that grows meanwhile is cut, and refused as
        // broken.
        let mut copy = fs::File::create(&path).map_err(ours)?;
        self.bytes +=
            std::io::copy(&mut file.take(stat.st_size as u64), &mut copy).map_err(ours)?;
        self.copied.insert(key.to_owned(), stamp);
        Ok(true)
    }
}

/// git's verdict on the agent's objects. What it says of a full disk is ours; nearly all else is
/// the objects'.
fn bad(e: &GitError) -> ImportError {
    let disk = e.detail.contains("No space left");
    if e.class == Class::Timeout || disk {
        ImportError::Ours(e.to_string())
    } else {
        ImportError::Bad(e.to_string())
    }
}
