//! LFS files that the agent made: their content is copied out of the agent's folders, checked, and
//! uploaded with the repository's credentials.
//!
//! The agent commits pointers; the content is in `lfs/objects` of its clone, or of `origin.git` when
//! git-lfs pushed it there. Both are a stranger's: read without following links, bounded, and taken
//! only when length and SHA-256 are those of the pointer.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use gastown_git::lfs::{Pointer, new_pointers};
use gastown_git::{Git, GitError, Remote};
use gastown_types::CommitId;
use sha2::{Digest as _, Sha256};

use crate::hostile::{self, Unreadable};

/// Bytes of LFS content that are taken for one upload.
const MAX_BYTES: u64 = 8 << 30;

/// What became of the LFS files of some commits.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// How many are on the server now, those that were there before included.
    pub count: usize,
    /// Those whose content is nowhere in the agent's folders, or is not what the pointer names.
    /// Commits of others may have brought such pointers: then the server has the content.
    pub missing: Vec<Pointer>,
}

/// Uploads the content of the LFS files in the commits that are reachable from `new` and not from
/// `known`. Call it before the branch is pushed. `repo` is our own bare repository, which has the
/// commits; `agents` are the agent's folders of LFS objects.
pub async fn upload(
    git: &Git,
    remote: &Remote,
    repo: &Path,
    new: &CommitId,
    known: &[CommitId],
    agents: &[OwnedFd],
) -> Result<Uploaded, GitError> {
    let pointers = new_pointers(git, repo, new, known).await?;
    let mut left = MAX_BYTES;
    let (mut here, mut missing) = (Vec::new(), Vec::new());
    for pointer in pointers {
        let at = repo.join("lfs/objects").join(pointer.path());
        let taken = at.is_file() || agents.iter().any(|dir| take(dir, &pointer, &at, &mut left));
        if taken { here.push(pointer) } else { missing.push(pointer) }
    }
    remote.push_lfs(git, repo, &here).await?;
    Ok(Uploaded { count: here.len(), missing })
}

/// Copies the content of a pointer from a folder of the agent to `to`; `false` when it is not there
/// or is something else.
fn take(dir: &OwnedFd, pointer: &Pointer, to: &Path, left: &mut u64) -> bool {
    if pointer.size > *left {
        tracing::warn!(
            oid = pointer.oid,
            size = pointer.size,
            "an LFS file is too large to upload"
        );
        return false;
    }
    match copy(dir, pointer, to) {
        Ok(()) => {
            *left -= pointer.size;
            true
        }
        Err(Unreadable::Missing) => false,
        Err(e) => {
            tracing::warn!(oid = pointer.oid, error = %e, "an LFS file of the agent is not taken");
            false
        }
    }
}

fn copy(dir: &OwnedFd, pointer: &Pointer, to: &Path) -> Result<(), Unreadable> {
    let (folder, name) = (format!("{}/{}", &pointer.oid[..2], &pointer.oid[2..4]), &pointer.oid);
    let folder = hostile::descend(dir, &folder)?;
    let (from, stat) = hostile::open_file(&folder, std::ffi::OsStr::new(name))?;
    if stat.st_size as u64 != pointer.size {
        return Err(Unreadable::NotPlain);
    }
    let parent = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    let (mut digest, mut chunk, mut length) = (Sha256::new(), vec![0; 256 << 10], 0);
    // It may grow while it is read: one byte past the bound shows that it did.
    let mut from = from.take(pointer.size + 1);
    loop {
        let n = from.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        digest.update(&chunk[..n]);
        file.write_all(&chunk[..n])?;
        length += n as u64;
    }
    let sum = hex::encode(digest.finalize());
    if length != pointer.size || sum != pointer.oid {
        return Err(Unreadable::NotPlain);
    }
    file.as_file().sync_all()?;
    file.persist(to).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_content_that_is_what_its_name_states_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let sum = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
        let (agents, ours) = (dir.path().join("agents"), dir.path().join("ours"));
        let good = Pointer { oid: sum(b"content"), size: 7 };
        let forged = Pointer { oid: sum(b"another"), size: 7 };
        let linked = Pointer { oid: sum(b"secret!"), size: 7 };
        fs::write(dir.path().join("secret"), "secret!").unwrap();
        for (pointer, text) in
            [(&good, Some("content")), (&forged, Some("content")), (&linked, None)]
        {
            let at = agents.join(pointer.path());
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            match text {
                Some(text) => fs::write(&at, text).unwrap(),
                None => std::os::unix::fs::symlink(dir.path().join("secret"), &at).unwrap(),
            }
        }
        let folder = hostile::open_root(&agents).unwrap();
        let mut left = 10;
        let mut taken = |p: &Pointer| take(&folder, p, &ours.join(p.path()), &mut left);
        assert!(!taken(&forged) && !taken(&linked) && taken(&good));
        assert_eq!(fs::read(ours.join(good.path())).unwrap(), b"content");
        assert!(!ours.join(forged.path()).exists());
        assert!(!taken(&good), "beyond the bound");
    }
}
