//! Reading an image layout: one tar with an index, a manifest and the blobs that it names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::image::{ImageIndex, ImageManifest};

use super::digest::Digest;

/// The name of the index in a layout.
pub(super) const INDEX: &str = "index.json";
/// The annotation from which containerd takes the name of an imported image.
pub(super) const NAME: &str = "io.containerd.image.name";
/// The largest index or manifest that is read, in bytes.
const MAX_DOCUMENT: u64 = 1 << 20;

/// The name and the manifest's digest of an image that [`super::ImageBuilder::write`] wrote.
pub fn identify(layout: &Path) -> Result<(String, Digest)> {
    let mut tar = tar::Archive::new(open(layout)?);
    for entry in tar.entries()? {
        let entry = entry?;
        if entry.path()?.as_ref() == Path::new(INDEX) {
            return read_index(entry).with_context(|| format!("the index of {}", layout.display()));
        }
    }
    bail!("{} has no {INDEX}: it is not an OCI image layout", layout.display())
}

fn open(layout: &Path) -> Result<BufReader<File>> {
    let file =
        File::open(layout).with_context(|| format!("opening the image {}", layout.display()))?;
    Ok(BufReader::new(file))
}

fn read_index(entry: impl Read) -> Result<(String, Digest)> {
    let index: ImageIndex = serde_json::from_reader(entry.take(MAX_DOCUMENT))?;
    let manifest = index.manifests().first().context("it names no manifest")?;
    let name = manifest.annotations().as_ref().and_then(|all| all.get(NAME));
    let name = name.context("it does not name the image")?;
    Ok((name.clone(), Digest::of_descriptor(manifest)))
}

/// A blob that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// An image layout whose blobs can be read one by one.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
    /// The bytes of each file in the tar, by its path.
    files: BTreeMap<String, Range<u64>>,
    /// The digest of the manifest.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The media type of the manifest.
    pub media_type: String,
    /// The configuration and the layers.
    pub blobs: Vec<BlobRef>,
}

impl Layout {
    /// Reads the manifest of a layout.
    pub fn open(path: &Path) -> Result<Self> {
        let (_, digest) = identify(path)?;
        let mut files = BTreeMap::new();
        let mut tar = tar::Archive::new(open(path)?);
        for entry in tar.entries_with_seek()? {
            let entry = entry?;
            let name = entry.path()?.display().to_string();
            let start = entry.raw_file_position();
            files.insert(name, start..start + entry.size());
        }
        let mut layout = Self {
            path: path.to_owned(),
            files,
            digest,
            manifest: Vec::new(),
            media_type: String::new(),
            blobs: Vec::new(),
        };
        let mut manifest = Vec::new();
        layout.read(&layout.digest)?.take(MAX_DOCUMENT).read_to_end(&mut manifest)?;
        let parsed: ImageManifest = serde_json::from_slice(&manifest)
            .with_context(|| format!("the manifest of {}", path.display()))?;
        layout.media_type = parsed.media_type().clone().map(String::from).unwrap_or_default();
        let descriptors = std::iter::once(parsed.config()).chain(parsed.layers());
        layout.blobs = descriptors
            .map(|d| BlobRef { digest: Digest::of_descriptor(d), size: d.size() })
            .collect();
        layout.manifest = manifest;
        Ok(layout)
    }

    /// The path of the layout.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the layout that are one blob.
    pub fn find(&self, digest: &Digest) -> Result<Range<u64>> {
        let found = self.files.get(&digest.blob());
        found.cloned().with_context(|| format!("{} has no blob {digest}", self.path.display()))
    }

    pub(super) fn read(&self, digest: &Digest) -> Result<impl Read + use<>> {
        let range = self.find(digest)?;
        let mut file = open(&self.path)?;
        file.seek(SeekFrom::Start(range.start))?;
        Ok(file.take(range.end - range.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{ImageBuilder, Layer};

    #[test]
    fn every_blob_of_a_manifest_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.tar");
        let layer = |name: &str| Layer::new().bytes(name, name, 0o644);
        let builder = ImageBuilder::new("x/y:1").layer(layer("/a")).layer(layer("/b"));
        let digest = builder.write(&path).unwrap();
        let layout = Layout::open(&path).unwrap();
        assert_eq!(layout.digest, digest);
        assert_eq!(Digest::of(&layout.manifest), digest);
        assert_eq!(layout.media_type, "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(layout.blobs.len(), 3);
        for blob in &layout.blobs {
            let mut bytes = Vec::new();
            layout.read(&blob.digest).unwrap().read_to_end(&mut bytes).unwrap();
            assert_eq!((bytes.len() as u64, Digest::of(&bytes)), (blob.size, blob.digest.clone()));
        }
        assert!(layout.read(&Digest::of(b"none")).is_err());
    }

    #[test]
    fn another_tar_is_not_a_layout() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.tar");
        let layer = Layer::new().bytes("/a", "a", 0o644);
        layer.write_tar(File::create(&path).unwrap()).unwrap();
        assert!(identify(&path).unwrap_err().to_string().contains("not an OCI image layout"));
    }
}
