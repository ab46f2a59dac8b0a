//! Root file systems of Debian packages. They are kept in the user's cache folder under a digest of
//! their inputs, so that a second build takes no time and a fresh checkout finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gastown_cluster::oci::Digest;

use super::debs::{self, Repository};
use super::lock::{Lock, RELOCK, SUITE};
use super::recipe::USER;
use crate::util;

/// Folders of /usr/share that are not unpacked.
const EXCLUDED: &[&str] =
    &["doc/*", "man/*", "locale/*", "info/*", "lintian/*", "bash-completion/*", "gitweb/*"];

/// The script that the host runs on the finished tree.
const FINISH: &str = include_str!("finish.sh");

/// The cache folder for root file systems and layers.
fn cache() -> Result<PathBuf> {
    let dir = gastown_toolchain::cache::dir()?.join("images");
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    Ok(dir)
}

/// The tar of a root file system with these packages and what they need, all of them as locked.
pub fn debian(packages: &BTreeSet<String>, lock: &Lock) -> Result<PathBuf> {
    lock.need(packages.iter().map(String::as_str))?;
    let list = packages.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let recipe = format!("2\n{SUITE}\n{list}\n{EXCLUDED:?}\n{FINISH}\n{}", lock.lines());
    let path = cache()?.join(format!("rootfs-{}.tar", short(&Digest::of(recipe.as_bytes()))));
    if path.is_file() {
        return Ok(path);
    }
    util::need_debian(&[("mmdebstrap", "mmdebstrap")])?;
    println!("images: building a root file system with {list} (about 20 s)");
    let built = build(&list, lock, &path);
    built.with_context(|| format!("building a root file system with {list}"))?;
    Ok(path)
}

fn build(list: &str, lock: &Lock, path: &Path) -> Result<()> {
    let repository = Repository::of(lock, &cache()?)?;
    let mut command = debs::mmdebstrap(list)?;
    command.arg("--format=tar");
    for pattern in EXCLUDED {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{pattern}"));
    }
    let mut script = tempfile::NamedTempFile::new()?;
    script.write_all(FINISH.as_bytes())?;
    command.arg(format!("--customize-hook=sh '{}' \"$1\"", script.path().display()));
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    command.arg(SUITE).arg(&partial).arg(repository.source());
    // Times of files are cut down to this one, so that the same packages give the same bytes.
    command.env("SOURCE_DATE_EPOCH", "0");
    let built = util::output(&mut command).and_then(|_| Ok(std::fs::rename(&partial, path)?));
    if built.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    built.with_context(|| format!("a package that is needed and not locked is added by {RELOCK}"))
}

/// The layer that turns `base` into `full`, kept in the same folder. Both are tars of root file
/// systems.
pub fn layer_between(base: &Path, full: &Path) -> Result<PathBuf> {
    let stamp = |p: &Path| -> Result<String> {
        let meta = std::fs::metadata(p)?;
        Ok(format!("{}:{}:{:?}", p.display(), meta.len(), meta.modified()?))
    };
    let key = Digest::of(format!("1\n{}\n{}", stamp(base)?, stamp(full)?).as_bytes());
    let path = cache()?.join(format!("layer-{}.tar", short(&key)));
    if !path.is_file() {
        let temporary = tempfile::NamedTempFile::new_in(cache()?)?;
        difference(base, full, temporary.as_file())?;
        temporary.persist(&path)?;
    }
    Ok(path)
}

/// Writes what must be added to or removed from `base` to get `full`.
fn difference(base: &Path, full: &Path, out: &File) -> Result<()> {
    let mut below = BTreeMap::new();
    each(base, |entry| {
        below.insert(entry.path.clone(), entry.fingerprint());
        Ok(())
    })?;
    let mut tar = tar::Builder::new(BufWriter::with_capacity(1 << 20, out));
    let mut removed: BTreeMap<PathBuf, String> = below.clone();
    each(full, |entry| {
        removed.remove(&entry.path);
        if below.get(&entry.path) == Some(&entry.fingerprint()) {
            Ok(())
        } else {
            entry.append(&mut tar)
        }
    })?;
    for path in removed.keys() {
        // A whiteout marks a file of a lower layer as removed. Files in a removed folder need none of
        // their own.
        if path.ancestors().skip(1).any(|a| removed.contains_key(a)) {
            continue;
        }
        let name = path.file_name().and_then(|n| n.to_str()).context("a name is not UTF-8")?;
        let whiteout = Entry {
            path: path.with_file_name(format!(".wh.{name}")),
            kind: tar::EntryType::Regular,
            ..Entry::default()
        };
        whiteout.append(&mut tar)?;
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

/// One entry of a root file system's tar, with its content.
struct Entry {
    path: PathBuf,
    kind: tar::EntryType,
    mode: u32,
    owner: (u64, u64),
    link: Option<PathBuf>,
    content: Vec<u8>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            kind: tar::EntryType::Regular,
            mode: 0o644,
            owner: (0, 0),
            link: None,
            content: Vec::new(),
        }
    }
}

impl Entry {
    fn fingerprint(&self) -> String {
        format!(
            "{:?} {:o} {:?} {:?} {}",
            self.kind,
            self.mode,
            self.owner,
            self.link,
            Digest::of(&self.content)
        )
    }

    fn append<W: Write>(&self, tar: &mut tar::Builder<W>) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(0);
        header.set_size(self.content.len() as u64);
        match &self.link {
            Some(target) => tar.append_link(&mut header, &self.path, target)?,
            None => tar.append_data(&mut header, &self.path, self.content.as_slice())?,
        }
        Ok(())
    }
}

/// Calls `visit` with each entry of a tar.
fn each(path: &Path, mut visit: impl FnMut(Entry) -> Result<()>) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 20, file));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let mut content = Vec::new();
        let header = entry.header();
        let (kind, mode, owner) =
            (header.entry_type(), header.mode()? & 0o7777, (header.uid()?, header.gid()?));
        let name = entry.path()?.components().collect::<PathBuf>();
        let name = name.strip_prefix(".").unwrap_or(&name).to_owned();
        let link = entry.link_name()?.map(std::borrow::Cow::into_owned);
        entry.read_to_end(&mut content)?;
        if !name.as_os_str().is_empty() {
            visit(Entry { path: name, kind, mode, owner, link, content })?;
        }
    }
    Ok(())
}

/// The content of one file in the tar of a root file system.
pub fn file_of(rootfs: &Path, wanted: &str) -> Result<Vec<u8>> {
    let mut found = None;
    each(rootfs, |entry| {
        if entry.path == Path::new(wanted.trim_start_matches('/'))
            && entry.kind == tar::EntryType::Regular
        {
            found = Some(entry.content);
        }
        Ok(())
    })?;
    found.with_context(|| format!("{wanted} is not a file of {}", rootfs.display()))
}

fn short(digest: &Digest) -> &str {
    &digest.as_str()[7..23]
}

/// `/etc/passwd` and `/etc/group` for an image that begins empty.
pub fn accounts() -> [(&'static str, String); 2] {
    [
        (
            "/etc/passwd",
            format!(
                "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:{USER}:{USER}:nonroot:/home/nonroot:/sbin/nologin\n"
            ),
        ),
        ("/etc/group", format!("root:x:0:\nnonroot:x:{USER}:\n")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(dir: &Path, name: &str, entries: &[Entry]) -> PathBuf {
        let path = dir.join(name);
        let mut tar = tar::Builder::new(File::create(&path).unwrap());
        for entry in entries {
            entry.append(&mut tar).unwrap();
        }
        tar.finish().unwrap();
        path
    }

    fn file(path: &str, content: &str) -> Entry {
        Entry { path: path.into(), content: content.into(), ..Entry::default() }
    }

    #[test]
    fn a_difference_holds_what_is_new_changed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Entry {
            path: "old".into(),
            kind: tar::EntryType::Directory,
            mode: 0o755,
            ..Entry::default()
        };
        let link = Entry {
            path: "sh".into(),
            kind: tar::EntryType::Symlink,
            link: Some("dash".into()),
            ..Entry::default()
        };
        let again = Entry {
            path: "sh".into(),
            kind: tar::EntryType::Symlink,
            link: Some("dash".into()),
            ..Entry::default()
        };
        let base = tar_of(
            dir.path(),
            "base",
            &[file("same", "1"), file("changed", "1"), link, folder, file("old/inner", "1")],
        );
        let script = Entry { mode: 0o755, ..file("same-bytes-other-mode", "1") };
        let full = tar_of(
            dir.path(),
            "full",
            &[file("same", "1"), file("changed", "2"), again, file("new", "1"), script],
        );
        let layer = dir.path().join("layer");
        difference(&base, &full, &File::create(&layer).unwrap()).unwrap();
        let mut seen = Vec::new();
        each(&layer, |e| {
            seen.push(e.path.display().to_string());
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["changed", "new", "same-bytes-other-mode", ".wh.old"]);
    }

    #[test]
    fn one_file_is_read_out_of_a_tree() {
        let dir = tempfile::tempdir().unwrap();
        let tree = tar_of(dir.path(), "tree", &[file("./etc/ssl/ca.crt", "CA"), file("b", "2")]);
        assert_eq!(file_of(&tree, "/etc/ssl/ca.crt").unwrap(), b"CA");
        assert!(file_of(&tree, "/etc/none").is_err());
    }
}
