//! Reading folders that a hostile agent may be writing at the same time.
//!
//! Every step is an `openat` of one name with `O_NOFOLLOW`, so no link planted anywhere on the way
//! leads out of the folder; `O_NONBLOCK` keeps a FIFO from holding us; what is not a regular file
//! is refused after the open, on the descriptor, where it cannot be exchanged any more; every read
//! has a bound.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// A file or folder could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It does not exist.
    #[error("does not exist")]
    Missing,
    /// It is a link, a FIFO, a socket or a device where a file or folder is expected.
    #[error("neither a plain file nor a folder")]
    NotPlain,
    /// It is larger than the bound.
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    /// The system call failed.
    #[error("{0}")]
    Os(#[from] Errno),
    /// Reading failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

fn class(e: Errno) -> Unreadable {
    match e {
        Errno::NOENT => Unreadable::Missing,
        // ELOOP: a link under O_NOFOLLOW. ENOTDIR: something else where a folder is wanted. ENXIO:
        // a socket.
        Errno::LOOP | Errno::NOTDIR | Errno::NXIO => Unreadable::NotPlain,
        other => Unreadable::Os(other),
    }
}

/// Opens a folder by its path. Links are refused in the last name only: the folders before it must
/// not be writable by the agent (a mount point).
pub fn open_root(path: &Path) -> Result<OwnedFd, Unreadable> {
    rustix::fs::open(path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(class)
}

/// Opens the folder `name` of `dir`.
pub fn open_dir(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd, Unreadable> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(class)
}

/// Opens the folder at `path` below `dir`, one name at a time.
pub fn descend(dir: impl AsFd, path: &str) -> Result<OwnedFd, Unreadable> {
    let mut at = rustix::io::dup(dir)?;
    for name in path.split('/').filter(|n| !n.is_empty()) {
        if name == ".." {
            return Err(Unreadable::NotPlain);
        }
        at = open_dir(&at, OsStr::new(name))?;
    }
    Ok(at)
}

/// Opens the plain file `name` of `dir` for reading, and returns its metadata.
pub fn open_file(dir: impl AsFd, name: &OsStr) -> Result<(File, Stat), Unreadable> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(class)?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Unreadable::NotPlain);
    }
    Ok((File::from(fd), stat))
}

/// Reads the plain file `name` of `dir`, at most `max` bytes of it.
pub fn read_file(dir: impl AsFd, name: &OsStr, max: u64) -> Result<(Vec<u8>, Stat), Unreadable> {
    let (file, stat) = open_file(dir, name)?;
    if stat.st_size as u64 > max {
        return Err(Unreadable::TooLarge(max));
    }
    let mut bytes = Vec::with_capacity(stat.st_size as usize);
    // It may grow while it is read: one byte past the bound shows that it did.
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max { Err(Unreadable::TooLarge(max)) } else { Ok((bytes, stat)) }
}

/// Reads the plain file at `path` below `dir`, one name at a time.
pub fn read_below(dir: impl AsFd, path: &str, max: u64) -> Result<Vec<u8>, Unreadable> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = descend(dir, folder)?;
    read_file(&folder, OsStr::new(name), max).map(|(bytes, _)| bytes)
}

/// The metadata of `name` of `dir`; a link is not followed.
pub fn stat(dir: impl AsFd, name: &OsStr) -> Result<Stat, Unreadable> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(class)
}

/// Where the link `name` of `dir` points, as bytes.
pub fn read_link(dir: impl AsFd, name: &OsStr) -> Result<Vec<u8>, Unreadable> {
    rustix::fs::readlinkat(dir, name, Vec::new()).map(CString::into_bytes).map_err(class)
}

/// The sorted names in `dir`, at most `max` of them; `true` when there are more.
pub fn list(dir: impl AsFd, max: usize) -> Result<(Vec<Vec<u8>>, bool), Unreadable> {
    // A second open: reading a folder moves the descriptor's offset.
    let own = rustix::fs::openat(dir, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(class)?;
    let mut names = Vec::new();
    for entry in Dir::new(own)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() == max {
            return Ok((names, true));
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok((names, false))
}

/// The name of a file or folder, and its kind.
pub type Entry = (Vec<u8>, FileType);

/// The entries of `dir` with their kinds, in no order, at most `max` of them; `true` when there are
/// more. A kind that the file system does not report is read with a `stat`.
pub fn entries(dir: impl AsFd, max: usize) -> Result<(Vec<Entry>, bool), Unreadable> {
    let own = rustix::fs::openat(&dir, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(class)?;
    let mut found = Vec::new();
    for entry in Dir::new(own)? {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes().to_vec();
        if bytes == b"." || bytes == b".." {
            continue;
        }
        if found.len() == max {
            return Ok((found, true));
        }
        let kind = match entry.file_type() {
            FileType::Unknown => stat(&dir, name(&bytes))
                .map_or(FileType::Unknown, |s| FileType::from_raw_mode(s.st_mode)),
            known => known,
        };
        found.push((bytes, kind));
    }
    Ok((found, false))
}

/// Bytes as a file name.
pub fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
