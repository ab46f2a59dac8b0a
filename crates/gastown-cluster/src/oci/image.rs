//! Writing an image.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::image::{
    Arch, Config, ImageConfiguration, ImageConfigurationBuilder, ImageIndex, ImageIndexBuilder,
    ImageManifest, ImageManifestBuilder, MediaType, Os, Platform, RootFs, SCHEMA_VERSION,
};
use serde::Serialize;

use super::blob::{Blob, Source, add};
use super::digest::Digest;
use super::layer::Layer;
use super::layout::{INDEX, NAME};

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
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let layers: Vec<Blob> =
            self.layers.iter().map(|l| Blob::of(l, self.gzip, dir)).collect::<Result<_>>()?;
        let config = canonical(&self.configuration(&layers)?)?;
        let manifest = canonical(&self.manifest(&config, &layers)?)?;
        let digest = Digest::of(&manifest);
        let index = canonical(&self.index(&digest, manifest.len() as u64)?)?;
        let temporary = tempfile::NamedTempFile::new_in(dir)?;
        let mut tar = tar::Builder::new(BufWriter::new(temporary.as_file()));
        // The index is first, so that who needs only the name and the digest reads a few hundred
        // bytes.
        add(&mut tar, INDEX, &index)?;
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
        // Temporary files are private to their owner; an image is not secret.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        Ok(digest)
    }

    fn configuration(&self, layers: &[Blob]) -> Result<ImageConfiguration> {
        let mut config = Config::default();
        let some = |words: &Vec<String>| (!words.is_empty()).then(|| words.clone());
        config.set_entrypoint(some(&self.entrypoint));
        config.set_cmd(some(&self.cmd));
        config.set_env(some(&self.env));
        config.set_user(self.user.clone());
        config.set_working_dir(self.workdir.clone());
        let labels: HashMap<String, String> = self.labels.clone().into_iter().collect();
        config.set_labels((!labels.is_empty()).then_some(labels));
        let mut rootfs = RootFs::default();
        rootfs.set_diff_ids(layers.iter().map(|layer| layer.content.to_string()).collect());
        Ok(ImageConfigurationBuilder::default()
            .created("1970-01-01T00:00:00Z")
            .architecture(architecture())
            .os(Os::Linux)
            .config(config)
            .rootfs(rootfs)
            .build()?)
    }

    fn manifest(&self, config: &[u8], layers: &[Blob]) -> Result<ImageManifest> {
        let media_type = if self.gzip { MediaType::ImageLayerGzip } else { MediaType::ImageLayer };
        let descriptor = |layer: &Blob| layer.digest.descriptor(media_type.clone(), layer.size);
        let layers = layers.iter().map(descriptor).collect::<Result<Vec<_>>>()?;
        Ok(ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(Digest::of(config).descriptor(MediaType::ImageConfig, config.len() as u64)?)
            .layers(layers)
            .build()?)
    }

    fn index(&self, manifest: &Digest, size: u64) -> Result<ImageIndex> {
        let mut platform = Platform::default();
        platform.set_architecture(architecture());
        platform.set_os(Os::Linux);
        let mut descriptor = manifest.descriptor(MediaType::ImageManifest, size)?;
        descriptor.set_platform(Some(platform));
        descriptor.set_annotations(Some(HashMap::from([
            (NAME.to_owned(), self.name.clone()),
            ("org.opencontainers.image.ref.name".to_owned(), tag(&self.name).to_owned()),
        ])));
        Ok(ImageIndexBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![descriptor])
            .build()?)
    }
}

/// JSON with sorted keys: the types of the specification keep labels and annotations in hash maps,
/// whose order changes from run to run.
fn canonical(document: &impl Serialize) -> Result<Vec<u8>> {
    let mut value = serde_json::to_value(document)?;
    value.sort_all_objects();
    Ok(serde_json::to_vec(&value)?)
}

fn architecture() -> Arch {
    match std::env::consts::ARCH {
        "x86_64" => Arch::Amd64,
        "aarch64" => Arch::ARM64,
        other => Arch::Other(other.to_owned()),
    }
}

/// The tag of a full name.
fn tag(name: &str) -> &str {
    let last = name.rfind('/').map_or(0, |at| at + 1);
    name[last..].find(':').map_or("latest", |at| &name[last + at + 1..])
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{self, Read as _};

    use serde_json::Value;

    use super::super::identify;
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
            .label("a", "1")
            .label("b", "2")
            .label("c", "3")
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

    fn blob_of(digest: &Value) -> String {
        format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"))
    }

    #[test]
    fn the_same_input_gives_the_same_bytes_at_any_time() {
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
    fn the_index_names_the_image_and_every_blob_has_its_digest() {
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
                let blob = &all[&blob_of(&layer["digest"])];
                assert_eq!(layer["size"], blob.len());
            }
            let config = &all[&blob_of(&manifest["config"]["digest"])];
            let config: Value = serde_json::from_slice(config).unwrap();
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
            let config = &all[&blob_of(&manifest["config"]["digest"])];
            let config: Value = serde_json::from_slice(config).unwrap();
            config["rootfs"]["diff_ids"].clone()
        };
        assert_eq!(diff_ids(true), diff_ids(false));
    }

    #[test]
    fn a_missing_file_is_named() {
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
