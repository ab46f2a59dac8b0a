//! Layers that are made of single files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The owner of an entry of a layer: user and group.
pub type Owner = (u64, u64);

#[derive(Clone, Debug)]
enum Entry {
    Dir { mode: u32, owner: Owner },
    Copy { source: PathBuf, mode: u32 },
    Bytes { content: Vec<u8>, mode: u32 },
    Symlink { target: String },
}

/// A layer of single files. The folders of an entry are added, owned by root with mode 0755.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    entries: BTreeMap<String, Entry>,
}

impl Layer {
    /// An empty layer.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of a file of this machine, owned by root.
    #[must_use]
    pub fn file(self, dest: &str, source: impl Into<PathBuf>, mode: u32) -> Self {
        self.entry(dest, Entry::Copy { source: source.into(), mode })
    }

    /// A file with the given content, owned by root.
    #[must_use]
    pub fn bytes(self, dest: &str, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.entry(dest, Entry::Bytes { content: content.into(), mode })
    }

    /// A folder.
    #[must_use]
    pub fn dir(self, dest: &str, mode: u32, owner: Owner) -> Self {
        self.entry(dest, Entry::Dir { mode, owner })
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, dest: &str, target: &str) -> Self {
        self.entry(dest, Entry::Symlink { target: target.to_owned() })
    }

    fn entry(mut self, dest: &str, entry: Entry) -> Self {
        let dest = dest.trim_matches('/').to_owned();
        for (at, _) in dest.match_indices('/') {
            self.entries
                .entry(dest[..at].to_owned())
                .or_insert(Entry::Dir { mode: 0o755, owner: (0, 0) });
        }
        self.entries.insert(dest, entry);
        self
    }

    /// Writes the layer as a tar, sorted, with all times zero.
    pub fn write_tar(&self, out: impl Write) -> Result<()> {
        let mut tar = tar::Builder::new(out);
        for (dest, entry) in &self.entries {
            append(&mut tar, dest, entry)
                .with_context(|| format!("adding {dest} to an image's layer"))?;
        }
        tar.finish()?;
        Ok(())
    }
}

fn append<W: Write>(tar: &mut tar::Builder<W>, dest: &str, entry: &Entry) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match entry {
        Entry::Dir { mode, owner } => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(*mode);
            header.set_uid(owner.0);
            header.set_gid(owner.1);
            tar.append_data(&mut header, format!("{dest}/"), io::empty())
        }
        Entry::Copy { source, mode } => {
            let file = File::open(source)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", source.display())))?;
            header.set_mode(*mode);
            header.set_size(file.metadata()?.len());
            tar.append_data(&mut header, dest, BufReader::new(file))
        }
        Entry::Bytes { content, mode } => {
            header.set_mode(*mode);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, dest, content.as_slice())
        }
        Entry::Symlink { target } => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            tar.append_link(&mut header, dest, target)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_lists_folders_before_what_they_hold() {
        let layer = Layer::new().bytes("/a/b/c", "x", 0o600).symlink("/a/link", "b/c").dir(
            "/tmp",
            0o1777,
            (0, 0),
        );
        let mut bytes = Vec::new();
        layer.write_tar(&mut bytes).unwrap();
        let mut tar = tar::Archive::new(bytes.as_slice());
        let seen: Vec<(String, u32)> = tar
            .entries()
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.path().unwrap().display().to_string(), e.header().mode().unwrap()))
            .collect();
        let expected =
            [("a/", 0o755), ("a/b/", 0o755), ("a/b/c", 0o600), ("a/link", 0o777), ("tmp/", 0o1777)];
        assert_eq!(seen, expected.map(|(p, m)| (p.to_owned(), m)));
    }
}
