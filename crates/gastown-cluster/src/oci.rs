//! OCI images without an engine: an image layout as one tar, as `ctr images import` and `kind load
//! image-archive` read it.
//!
//! The same input gives the same bytes: entries are sorted, times are zero, owners are given and
//! never taken from the disk. So an image's digest says whether anything changed, and a node need
//! not be told again what it has.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::Digest as _;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The annotation from which containerd takes the name of an imported image.
const NAME: &str = "io.containerd.image.name";

/// A content address, `sha256:` and 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// The address of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(&sha2::Sha256::digest(bytes))
    }

    fn from_hash(hash: &[u8]) -> Self {
        let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
        let mut text = String::from("sha256:");
        text.extend(hash.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
        Self(text)
    }

    /// The address as written in manifests.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the content lies in an image layout.
    fn blob(&self) -> String {
        format!("blobs/{}", self.0.replace(':', "/"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who owns an entry of a layer: user and group.
pub type Owner = (u64, u64);

#[derive(Clone, Debug)]
enum Entry {
    Dir { mode: u32, owner: Owner },
    Copy { source: PathBuf, mode: u32 },
    Bytes { content: Vec<u8>, mode: u32 },
    Symlink { target: String },
}

/// A layer made of single files. Folders that lead to an entry are added, owned by root with mode
/// 0755.
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

#[derive(Clone, Debug)]
enum Source {
    Built(Layer),
    Tar(PathBuf),
}

/// Builds one image.
#[derive(Clone, Debug)]
pub struct ImageBuilder {
    name: String,
    layers: Vec<Source>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    user: Option<String>,
    workdir: Option<String>,
    env: Vec<String>,
    labels: BTreeMap<String, String>,
    gzip: bool,
}

impl ImageBuilder {
    /// Begins an image with its full name, such as `ghcr.io/gastown-operator/rig-ctl:0.1.0`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            layers: Vec::new(),
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            user: None,
            workdir: None,
            env: Vec::new(),
            labels: BTreeMap::new(),
            gzip: false,
        }
    }

    /// Adds a layer of files of this machine: where in the image, which file, which mode.
    #[must_use]
    pub fn layer_from_files<D: AsRef<str>, S: AsRef<Path>>(self, files: &[(D, S, u32)]) -> Self {
        let layer = files.iter().fold(Layer::new(), |l, (dest, source, mode)| {
            l.file(dest.as_ref(), source.as_ref(), *mode)
        });
        self.layer(layer)
    }

    /// Adds a layer.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(Source::Built(layer));
        self
    }

    /// Adds a layer that is an uncompressed tar already, as it is.
    #[must_use]
    pub fn layer_tar(mut self, path: impl Into<PathBuf>) -> Self {
        self.layers.push(Source::Tar(path.into()));
        self
    }

    /// The program that a container of this image runs.
    #[must_use]
    pub fn entrypoint<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.entrypoint = words.into_iter().map(Into::into).collect();
        self
    }

    /// The words after the entrypoint, unless a container gives its own.
    #[must_use]
    pub fn cmd<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.cmd = words.into_iter().map(Into::into).collect();
        self
    }

    /// The numeric user, or user and group, such as `65532:65532`.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// The folder in which the program starts.
    #[must_use]
    pub fn workdir(mut self, dir: &str) -> Self {
        self.workdir = Some(dir.to_owned());
        self
    }

    /// One variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// One label of the image.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Whether layers are compressed: smaller files, slower loads. Off unless asked for.
    #[must_use]
    pub fn gzip(mut self, on: bool) -> Self {
        self.gzip = on;
        self
    }

    /// Writes the image layout and returns the digest of the manifest, which is the one that
    /// containerd gives to the image. The file appears whole or not at all.
    pub fn write(&self, out: &Path) -> Result<Digest> {
        let dir = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let layers: Vec<Blob> =
            self.layers.iter().map(|l| Blob::of(l, self.gzip, dir)).collect::<Result<_>>()?;
        let config = serde_json::to_vec(&self.config(&layers))?;
        let manifest = serde_json::to_vec(&self.manifest(&config, &layers))?;
        let digest = Digest::of(&manifest);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": MANIFEST,
                "digest": digest.as_str(),
                "size": manifest.len(),
                "platform": {"architecture": architecture(), "os": "linux"},
                "annotations": {NAME: self.name, "org.opencontainers.image.ref.name": tag(&self.name)},
            }],
        });
        let temporary = tempfile::NamedTempFile::new_in(dir)?;
        let mut tar = tar::Builder::new(BufWriter::new(temporary.as_file()));
        // The index stands first, so that a reader who only wants name and digest reads a few
        // hundred bytes.
        add(&mut tar, "index.json", &serde_json::to_vec(&index)?)?;
        add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add(&mut tar, &Digest::of(&config).blob(), &config)?;
        add(&mut tar, &digest.blob(), &manifest)?;
        let mut written: Vec<&Digest> = Vec::new();
        for layer in &layers {
            if !written.contains(&&layer.digest) {
                layer.append_to(&mut tar)?;
                written.push(&layer.digest);
            }
        }
        tar.into_inner()?.flush()?;
        let file = temporary.persist(out).with_context(|| format!("writing {}", out.display()))?;
        // Temporary files are private to their owner; an image is nothing to hide.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        Ok(digest)
    }

    fn config(&self, layers: &[Blob]) -> Value {
        let mut run = serde_json::Map::new();
        let mut put = |key: &str, value: Value, empty: bool| {
            if !empty {
                run.insert(key.to_owned(), value);
            }
        };
        put("Entrypoint", json!(self.entrypoint), self.entrypoint.is_empty());
        put("Cmd", json!(self.cmd), self.cmd.is_empty());
        put("User", json!(self.user), self.user.is_none());
        put("WorkingDir", json!(self.workdir), self.workdir.is_none());
        put("Env", json!(self.env), self.env.is_empty());
        put("Labels", json!(self.labels), self.labels.is_empty());
        json!({
            "architecture": architecture(),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| l.content.as_str()).collect::<Vec<_>>()},
        })
    }

    fn manifest(&self, config: &[u8], layers: &[Blob]) -> Value {
        let media = if self.gzip { LAYER_GZIP } else { LAYER };
        let layer =
            |l: &Blob| json!({"mediaType": media, "digest": l.digest.as_str(), "size": l.size});
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": Digest::of(config).as_str(), "size": config.len()},
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        })
    }
}

/// A layer as it goes into the layout.
struct Blob {
    /// The address of what is stored.
    digest: Digest,
    /// The address of the uncompressed tar.
    content: Digest,
    size: u64,
    file: File,
}

impl Blob {
    fn of(source: &Source, gzip: bool, dir: &Path) -> Result<Self> {
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

    fn append_to<W: Write>(&self, tar: &mut tar::Builder<W>) -> Result<()> {
        let mut file = &self.file;
        file.rewind()?;
        let mut header = plain(self.size);
        tar.append_data(&mut header, self.digest.blob(), BufReader::with_capacity(1 << 20, file))?;
        Ok(())
    }
}

/// A writer that knows the hash and length of what went through it.
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

fn plain(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn add<W: Write>(tar: &mut tar::Builder<W>, path: &str, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut plain(bytes.len() as u64), path, bytes)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn tag(name: &str) -> &str {
    let last = name.rfind('/').map_or(0, |at| at + 1);
    name[last..].find(':').map_or("latest", |at| &name[last + at + 1..])
}

/// The name and the manifest's digest of an image that [`ImageBuilder::write`] wrote.
pub fn identify(layout: &Path) -> Result<(String, Digest)> {
    let file =
        File::open(layout).with_context(|| format!("opening the image {}", layout.display()))?;
    let mut tar = tar::Archive::new(BufReader::new(file));
    for entry in tar.entries()? {
        let mut entry = entry?;
        if entry.path()?.as_ref() != Path::new("index.json") {
            continue;
        }
        let mut text = String::new();
        entry.by_ref().take(1 << 20).read_to_string(&mut text)?;
        let index: Value = serde_json::from_str(&text)
            .with_context(|| format!("the index of {}", layout.display()))?;
        let manifest = &index["manifests"][0];
        let name = manifest["annotations"][NAME].as_str().context("the index names no image")?;
        let digest = manifest["digest"].as_str().context("the index has no digest")?;
        return Ok((name.to_owned(), Digest(digest.to_owned())));
    }
    bail!("{} holds no index.json: not an OCI image layout", layout.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(dir: &Path) -> ImageBuilder {
        let program = dir.join("program");
        std::fs::write(&program, b"\x7fELF and so on").unwrap();
        ImageBuilder::new("ghcr.io/gastown-operator/sample:1.2.3")
            .layer_from_files(&[("/usr/local/bin/program", &program, 0o755)])
            .layer(Layer::new().bytes("/etc/passwd", "nobody", 0o644).dir(
                "/home/nonroot",
                0o750,
                (65532, 65532),
            ))
            .entrypoint(["/usr/local/bin/program"])
            .user("65532:65532")
            .env("HOME", "/home/nonroot")
            .label("org.opencontainers.image.version", "1.2.3")
    }

    fn entries(layout: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(File::open(layout).unwrap());
        let read = |e: io::Result<tar::Entry<'_, File>>| {
            let mut e = e.unwrap();
            let mut bytes = Vec::new();
            e.read_to_end(&mut bytes).unwrap();
            (e.path().unwrap().display().to_string(), bytes)
        };
        tar.entries().unwrap().map(read).collect()
    }

    #[test]
    fn the_same_input_gives_the_same_bytes_whatever_the_clock_says() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.tar"), dir.path().join("b.tar"));
        let first = sample(dir.path()).write(&a).unwrap();
        let later = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_hours(400_000);
        let image = sample(dir.path());
        File::open(dir.path().join("program")).unwrap().set_modified(later).unwrap();
        assert_eq!(first, image.write(&b).unwrap());
        assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    }

    #[test]
    fn another_file_gives_another_digest() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a.tar");
        let first = sample(dir.path()).write(&out).unwrap();
        let image = sample(dir.path());
        std::fs::write(dir.path().join("program"), "changed").unwrap();
        assert_ne!(first, image.write(&out).unwrap());
    }

    #[test]
    fn the_index_names_the_image_and_every_blob_is_what_its_address_says() {
        let dir = tempfile::tempdir().unwrap();
        for gzip in [false, true] {
            let out = dir.path().join("a.tar");
            let digest = sample(dir.path()).gzip(gzip).write(&out).unwrap();
            assert_eq!(
                identify(&out).unwrap(),
                ("ghcr.io/gastown-operator/sample:1.2.3".to_owned(), digest.clone())
            );
            let all = entries(&out);
            for (path, bytes) in all.iter().filter(|(path, _)| path.starts_with("blobs/")) {
                assert_eq!(path, &Digest::of(bytes).blob());
            }
            let manifest: Value = serde_json::from_slice(&all[&digest.blob()]).unwrap();
            for layer in manifest["layers"].as_array().unwrap() {
                let blob = &all[&Digest(layer["digest"].as_str().unwrap().to_owned()).blob()];
                assert_eq!(layer["size"], blob.len());
            }
            let config = Digest(manifest["config"]["digest"].as_str().unwrap().to_owned());
            let config: Value = serde_json::from_slice(&all[&config.blob()]).unwrap();
            assert_eq!(config["config"]["User"], "65532:65532");
            assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
        }
    }

    #[test]
    fn compression_changes_what_is_stored_and_not_what_it_means() {
        let dir = tempfile::tempdir().unwrap();
        let diff_ids = |gzip: bool| {
            let out = dir.path().join("a.tar");
            let digest = sample(dir.path()).gzip(gzip).write(&out).unwrap();
            let all = entries(&out);
            let manifest: Value = serde_json::from_slice(&all[&digest.blob()]).unwrap();
            let config = Digest(manifest["config"]["digest"].as_str().unwrap().to_owned());
            let config: Value = serde_json::from_slice(&all[&config.blob()]).unwrap();
            config["rootfs"]["diff_ids"].clone()
        };
        assert_eq!(diff_ids(true), diff_ids(false));
    }

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

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let image = ImageBuilder::new("x/y:1").layer_from_files(&[("/a", "/no/such/file", 0o644)]);
        let error = format!("{:#}", image.write(&dir.path().join("a.tar")).unwrap_err());
        assert!(error.contains("/no/such/file"), "{error}");
    }

    #[test]
    fn the_tag_is_what_follows_the_name_not_a_port() {
        assert_eq!(tag("ghcr.io/a/b:1.0"), "1.0");
        assert_eq!(tag("localhost:5000/b"), "latest");
    }
}
