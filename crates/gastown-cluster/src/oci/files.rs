//! What a container of an image sees: the files of all layers, one over the other.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result};

use super::layout::Layout;

/// The first bytes of what gzip wrote.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// One file, folder or link of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Whether it is a folder.
    pub is_dir: bool,
    /// The permission bits, with those that change the user or group of what runs it.
    pub mode: u32,
    /// The user and the group that own it.
    pub owner: (u64, u64),
}

impl Layout {
    /// The files by their paths, which begin without a slash.
    pub fn files(&self) -> Result<BTreeMap<String, FileEntry>> {
        let mut files = BTreeMap::new();
        // The first blob is the configuration.
        for layer in self.blobs.iter().skip(1) {
            let shown = || format!("reading layer {} of {}", layer.digest, self.path().display());
            let mut start = [0; 2];
            self.read(&layer.digest)?.read_exact(&mut start).with_context(shown)?;
            let blob = self.read(&layer.digest)?;
            let tar: Box<dyn Read> = if start == GZIP {
                Box::new(flate2::read::GzDecoder::new(blob))
            } else {
                Box::new(blob)
            };
            add(&mut files, tar).with_context(shown)?;
        }
        Ok(files)
    }
}

fn add(files: &mut BTreeMap<String, FileEntry>, tar: impl Read) -> Result<()> {
    for entry in tar::Archive::new(tar).entries()? {
        let entry = entry?;
        let path = entry.path()?.display().to_string();
        let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
        if let Some(removed) = whiteout(&path) {
            let below = format!("{removed}/");
            files.retain(|path, _| *path != removed && !path.starts_with(&below));
            continue;
        }
        let header = entry.header();
        let owner = (header.uid()?, header.gid()?);
        let (is_dir, mode) = (header.entry_type().is_dir(), header.mode()? & 0o7777);
        files.insert(path, FileEntry { is_dir, mode, owner });
    }
    Ok(())
}

/// The path that an entry removes from the layers below.
fn whiteout(path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let name = name.strip_prefix(".wh.")?;
    Some(if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{ImageBuilder, Layer};

    #[test]
    fn a_container_sees_all_layers_without_what_later_ones_remove() {
        let dir = tempfile::tempdir().unwrap();
        for gzip in [false, true] {
            let path = dir.path().join("image.tar");
            let below = Layer::new().bytes("/bin/sh", "x", 0o4755).bytes("/opt/a/b", "x", 0o644);
            let above = Layer::new().bytes("/opt/.wh.a", "", 0o644).dir("/tmp", 0o1777, (0, 0));
            let image = ImageBuilder::new("x/y:1").layer(below).layer(above).gzip(gzip);
            image.write(&path).unwrap();
            let files = Layout::open(&path).unwrap().files().unwrap();
            let paths: Vec<&str> = files.keys().map(String::as_str).collect();
            assert_eq!(paths, ["bin", "bin/sh", "opt", "tmp"]);
            assert_eq!(files["bin/sh"], FileEntry { is_dir: false, mode: 0o4755, owner: (0, 0) });
        }
    }
}
