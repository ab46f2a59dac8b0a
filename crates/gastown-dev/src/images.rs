//! `cargo xtask images`: the OCI images of `images/`, built without a container engine.
//!
//! An image is a root file system of Debian packages (or nothing), with our programs on top. The
//! same input gives the same digest; what has not changed is not built again, and a node that has a
//! digest is not sent it again.

mod recipe;
mod rootfs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use gastown_cluster::cluster::{self, Cluster};
use gastown_cluster::oci::{self, Digest, ImageBuilder, Layer};

use xtask::cli::ImagesArgs;

use crate::util;
use recipe::{Agent, Recipe, USER};

/// What stands before every image's name.
pub const REGISTRY: &str = "ghcr.io/gastown-operator";

/// The triple of `.cargo/config.toml`, for which everything is built.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// One image that is there to be loaded.
#[derive(Clone, Debug)]
pub struct Built {
    /// The full name, with the tag.
    pub reference: String,
    /// The image layout, a tar.
    pub path: PathBuf,
    /// The digest that a node knows it by.
    pub digest: Digest,
}

/// Runs it.
pub async fn run(args: ImagesArgs) -> Result<()> {
    let built = build(&args.names, args.refresh).await?;
    for image in &built {
        let size = std::fs::metadata(&image.path)?.len() >> 20;
        println!("{}  {size} MiB  {}", image.reference, image.digest);
    }
    if args.load {
        load(&built, args.dir.as_deref()).await?;
    }
    Ok(())
}

/// The full name of an image of this version.
pub fn reference(name: &str) -> Result<String> {
    Ok(format!("{REGISTRY}/{name}:{}", version()?))
}

/// The version of everything in this workspace.
pub fn version() -> Result<String> {
    let path = util::root().join("VERSION");
    Ok(std::fs::read_to_string(&path)
        .with_context(|| format!("reading {}", path.display()))?
        .trim()
        .to_owned())
}

/// Where an image's layout is written.
pub fn layout(name: &str) -> PathBuf {
    util::root().join("target/images").join(format!("{name}.tar"))
}

/// Builds the named images, or all; those whose inputs have not changed are left as they are.
pub async fn build(names: &[String], refresh: bool) -> Result<Vec<Built>> {
    let recipes = recipe::read_all(&util::root().join("images"))?;
    let wanted: BTreeMap<String, Recipe> = if names.is_empty() {
        recipes.clone().into_iter().filter(|(_, r)| !r.base).collect()
    } else {
        names.iter().map(|name| pick(&recipes, name)).collect::<Result<_>>()?
    };
    let mut agents = BTreeMap::new();
    for agent in wanted.values().flat_map(|r| r.agents.keys().copied()).collect::<BTreeSet<_>>() {
        let program = match agent {
            Agent::ClaudeCode => gastown_cluster::agents::claude_code().await?,
        };
        agents.insert(agent, program);
    }
    // Other programs do the work, and the caller may want to react to a signal meanwhile.
    tokio::task::spawn_blocking(move || build_all(&recipes, &wanted, &agents, refresh)).await?
}

/// Puts images on the node of the cluster in `dir`, but for those that it has.
pub async fn load(built: &[Built], dir: Option<&Path>) -> Result<()> {
    let dir = dir.map_or_else(cluster::default_dir, |d| Ok(d.to_owned()))?;
    let Some(cluster) = Cluster::find(&dir).await? else {
        bail!("no cluster is up in {}; `cargo xtask cluster up` starts one", dir.display())
    };
    for image in built {
        let start = Instant::now();
        if cluster.load_image(&image.path).await? {
            println!(
                "images: loaded {} in {:.1} s",
                image.reference,
                start.elapsed().as_secs_f32()
            );
        }
    }
    Ok(())
}

fn build_all(
    recipes: &BTreeMap<String, Recipe>,
    wanted: &BTreeMap<String, Recipe>,
    agents: &BTreeMap<Agent, PathBuf>,
    refresh: bool,
) -> Result<Vec<Built>> {
    util::need_debian(&[("strip", "binutils")])?;
    let binaries =
        binaries(wanted.values().flat_map(|r| r.binaries.keys()).map(String::as_str).collect())?;
    let bases = bases(recipes, wanted, refresh)?;
    let parts = Parts { binaries: &binaries, agents, bases: &bases, refresh };
    wanted.iter().map(|(name, recipe)| build_one(name, recipe, &parts)).collect()
}

fn pick(recipes: &BTreeMap<String, Recipe>, name: &str) -> Result<(String, Recipe)> {
    match recipes.get(name) {
        Some(recipe) if !recipe.base => Ok((name.to_owned(), recipe.clone())),
        _ => {
            let known: Vec<&str> =
                recipes.iter().filter(|(_, r)| !r.base).map(|(n, _)| n.as_str()).collect();
            bail!("there is no image `{name}`; there are: {}", known.join(", "))
        }
    }
}

/// Builds programs of this workspace in one go and answers with stripped copies.
pub fn binaries(wanted: BTreeSet<&str>) -> Result<BTreeMap<String, PathBuf>> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    println!("images: compiling {}", wanted.iter().copied().collect::<Vec<_>>().join(", "));
    // The whole workspace is selected, so that features are those of every other build and nothing
    // is compiled twice.
    let mut cargo = util::cargo();
    cargo.args(["build", "--quiet"]);
    util::run(cargo.args(wanted.iter().flat_map(|name| ["--bin", name])))?;
    let from = util::target_dir().join(TRIPLE).join("debug");
    let to = util::root().join("target/images/bin");
    std::fs::create_dir_all(&to)?;
    wanted
        .into_iter()
        .map(|name| Ok((name.to_owned(), stripped(&from.join(name), &to.join(name))?)))
        .collect()
}

/// A copy without symbols, made anew when the program is younger.
fn stripped(from: &Path, to: &Path) -> Result<PathBuf> {
    let built = std::fs::metadata(from)
        .with_context(|| format!("looking for {}", from.display()))?
        .modified()?;
    if std::fs::metadata(to).and_then(|m| m.modified()).ok() != Some(built) {
        // Put in place whole: another build may read it.
        let partial = to.with_extension(format!("{}.partial", std::process::id()));
        util::run(Command::new("strip").arg("--strip-all").arg("-o").arg(&partial).arg(from))?;
        std::fs::File::options().write(true).open(&partial)?.set_modified(built)?;
        std::fs::rename(&partial, to)?;
    }
    Ok(to.to_owned())
}

/// A base that is needed: its packages and the tar of its root file system.
struct Base {
    packages: BTreeSet<String>,
    rootfs: PathBuf,
}

fn bases<'a>(
    all: &BTreeMap<String, Recipe>,
    wanted: &'a BTreeMap<String, Recipe>,
    refresh: bool,
) -> Result<BTreeMap<&'a str, Base>> {
    let needed: BTreeSet<&str> = wanted
        .values()
        .flat_map(|r| r.from.iter().chain(r.copy.iter().map(|c| &c.from)))
        .map(String::as_str)
        .collect();
    let base = |name: &'a str| {
        let packages: BTreeSet<String> = all[name].packages.iter().cloned().collect();
        Ok((name, Base { rootfs: rootfs::debian(&packages, refresh)?, packages }))
    };
    needed.into_iter().map(base).collect()
}

/// What images are put together from.
struct Parts<'a> {
    binaries: &'a BTreeMap<String, PathBuf>,
    agents: &'a BTreeMap<Agent, PathBuf>,
    bases: &'a BTreeMap<&'a str, Base>,
    refresh: bool,
}

fn build_one(name: &str, recipe: &Recipe, parts: &Parts<'_>) -> Result<Built> {
    let reference = reference(name)?;
    let image = assemble(&reference, recipe, parts).with_context(|| format!("image {name}"))?;
    let path = layout(name);
    let stamp = path.with_extension("inputs");
    let inputs = Digest::of(format!("{image:?}\n{}", times(&image.files)?).as_bytes()).to_string();
    if path.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|before| before == inputs) {
        let (_, digest) = oci::identify(&path)?;
        return Ok(Built { reference, path, digest });
    }
    println!("images: writing {name}");
    let start = Instant::now();
    let digest = image.builder.write(&path)?;
    std::fs::write(&stamp, inputs)?;
    println!("images: {name} in {:.1} s", start.elapsed().as_secs_f32());
    Ok(Built { reference, path, digest })
}

/// An image to write and the files that go into it.
#[derive(Debug)]
struct Assembled {
    builder: ImageBuilder,
    files: BTreeSet<PathBuf>,
}

fn assemble(reference: &str, recipe: &Recipe, parts: &Parts<'_>) -> Result<Assembled> {
    let mut files = BTreeSet::new();
    let mut builder = ImageBuilder::new(reference)
        .user(&format!("{USER}:{USER}"))
        .env("HOME", "/home/nonroot")
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .label("org.opencontainers.image.description", &recipe.summary)
        .label("org.opencontainers.image.source", env!("CARGO_PKG_REPOSITORY"))
        .label("org.opencontainers.image.version", &version()?)
        .entrypoint(&recipe.entrypoint);
    for (name, value) in &recipe.env {
        builder = builder.env(name, value);
    }
    let mut top = Layer::new();
    if let Some(base) = recipe.from.as_deref() {
        for layer in root_layers(&parts.bases[base], &recipe.packages, parts.refresh)? {
            files.insert(layer.clone());
            builder = builder.layer_tar(layer);
        }
    } else {
        for (path, text) in rootfs::accounts() {
            top = top.bytes(path, text, 0o644);
        }
        top = top.dir("/home/nonroot", 0o770, (USER, 0)).dir("/tmp", 0o1777, (0, 0));
    }
    // Where the runtime mounts its own: root file systems come without.
    top = top.dir("/dev", 0o755, (0, 0));
    for copy in &recipe.copy {
        top = top.bytes(
            &copy.path,
            rootfs::file_of(&parts.bases[copy.from.as_str()].rootfs, &copy.path)?,
            0o644,
        );
    }
    // The agent is large and changes seldom, our programs are small and change often: a layer each.
    let mut fetched = Layer::new();
    for (agent, path) in &recipe.agents {
        let file = parts.agents[agent].clone();
        files.insert(file.clone());
        fetched = fetched.file(path, file, 0o755);
    }
    if !recipe.agents.is_empty() {
        builder = builder.layer(fetched);
    }
    for (name, path) in &recipe.binaries {
        let file = parts.binaries[name].clone();
        files.insert(file.clone());
        top = top.file(path, file, 0o755);
    }
    builder = builder.layer(top);
    Ok(Assembled { builder, files })
}

/// The layers of a root file system: the base that several images share, and what this one adds.
fn root_layers(base: &Base, packages: &[String], refresh: bool) -> Result<Vec<PathBuf>> {
    if packages.is_empty() {
        return Ok(vec![base.rootfs.clone()]);
    }
    let all = base.packages.iter().chain(packages).cloned().collect();
    let full = rootfs::debian(&all, refresh)?;
    Ok(vec![base.rootfs.clone(), rootfs::layer_between(&base.rootfs, &full)?])
}

/// Which files, how long and how old: what tells that an image must be written again.
fn times(files: &BTreeSet<PathBuf>) -> Result<String> {
    let line = |path: &PathBuf| {
        let meta = std::fs::metadata(path)?;
        Ok(format!("{} {} {:?}\n", path.display(), meta.len(), meta.modified()?))
    };
    files.iter().map(line).collect()
}
