//! Layers as files of a layout, with their addresses.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::Digest as _;

use super::digest::Digest;
use super::layer::Layer;

/// The content of a layer.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Single files.
    Built(Layer),
    /// An uncompressed tar.
    Tar(PathBuf),
}

/// A layer as it is stored in the layout.
pub(super) struct Blob {
    /// The address of the stored bytes.
    pub digest: Digest,
    /// The address of the uncompressed tar.
    pub content: Digest,
    /// The number of stored bytes.
    pub size: u64,
    file: File,
}

impl Blob {
    /// Reads or writes a layer.
    pub fn of(source: &Source, gzip: bool, dir: &Path) -> Result<Self> {
        match source {
            Source::Tar(path) if !gzip => {
                let file = File::open(path)
                    .with_context(|| format!("reading the layer {}", path.display()))?;
                let mut hashed = Hashed::new(io::sink());
                io::copy(&mut BufReader::with_capacity(1 << 20, &file), &mut hashed)?;
                let (digest, size, _) = hashed.done();
                Ok(Self { content: digest.clone(), digest, size, file })
            }
            Source::Tar(path) => {
                let mut from = File::open(path)
                    .with_context(|| format!("reading the layer {}", path.display()))?;
                Self::build(gzip, dir, |out| {
                    io::copy(&mut from, out)?;
                    Ok(())
                })
            }
            Source::Built(layer) => Self::build(gzip, dir, |out| layer.write_tar(out)),
        }
    }

    fn build(
        gzip: bool,
        dir: &Path,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<Self> {
        let stored = Hashed::new(BufWriter::with_capacity(1 << 20, tempfile::tempfile_in(dir)?));
        let (content, digest, size, writer) = if gzip {
            let mut inner =
                Hashed::new(flate2::write::GzEncoder::new(stored, flate2::Compression::fast()));
            write(&mut inner)?;
            let (content, _, encoder) = inner.done();
            let (digest, size, writer) = encoder.finish()?.done();
            (content, digest, size, writer)
        } else {
            let mut stored = stored;
            write(&mut stored)?;
            let (digest, size, writer) = stored.done();
            (digest.clone(), digest, size, writer)
        };
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Self { digest, content, size, file })
    }

    /// Writes the layer into a layout.
    pub fn append_to<W: Write>(&self, tar: &mut tar::Builder<W>) -> Result<()> {
        let mut file = &self.file;
        file.rewind()?;
        let mut header = plain(self.size);
        tar.append_data(&mut header, self.digest.blob(), BufReader::with_capacity(1 << 20, file))?;
        Ok(())
    }
}

/// A writer that computes the hash and the length of what is written.
struct Hashed<W> {
    inner: W,
    hash: sha2::Sha256,
    size: u64,
}

impl<W: Write> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: sha2::Sha256::new(), size: 0 }
    }

    fn done(self) -> (Digest, u64, W) {
        (Digest::from_hash(&self.hash.finalize()), self.size, self.inner)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hash.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The header of a file in a layout.
pub(super) fn plain(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// Adds a file to a layout.
pub(super) fn add<W: Write>(tar: &mut tar::Builder<W>, path: &str, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut plain(bytes.len() as u64), path, bytes)
}
