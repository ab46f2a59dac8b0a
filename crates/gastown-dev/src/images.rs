//! `cargo xtask images`: the OCI images of `images/`, built without a container engine.
//!
//! An image is a root file system of Debian packages (or nothing), with our programs on top. The same
//! input gives the same digest; an unchanged image is not built again, and an image that a node has
//! is not loaded again.

mod baseline;
mod built;
mod crates;
mod debs;
mod docker;
mod inspect;
mod lock;
mod names;
mod programs;
mod push;
mod recipe;
mod registry;
mod rootfs;
mod sbom;
mod spdx;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use gastown_api::rbac::Controller;
use gastown_cluster::baselines::Baseline;
use gastown_cluster::cluster::{self, Cluster};
use gastown_cluster::oci::{self, Digest, ImageBuilder, Layer};
use xtask::cli::ImagesArgs;

use crate::util;
pub use built::Built;
use lock::Lock;
pub use names::{Names, version};
pub use programs::{Build, compile};
use recipe::{Agent, Recipe, USER};

/// The image of the pods of agents.
const AGENT: &str = "polecat-agent";

/// Runs it.
pub async fn run(args: ImagesArgs) -> Result<()> {
    // Images that others pull are release builds.
    let is_release = args.release || args.push.is_some();
    let kind = if is_release { Build::Release } else { Build::Dev };
    if args.relock {
        return tokio::task::spawn_blocking(relock).await?;
    }
    if let Some(version) = &args.baseline {
        let built = build_baseline(Baseline::named(version)?).await?;
        for image in &built {
            println!("{}  {}", image.reference, image.digest);
        }
        if args.load {
            load(&built, args.dir.as_deref()).await?;
        }
        return Ok(());
    }
    // Checked before the long build.
    let names = Names::new(args.push.as_deref(), args.tag.as_deref())?;
    let built = build(&args.names, kind).await?;
    for image in &built {
        let size = std::fs::metadata(&image.path)?.len() >> 20;
        println!("{}  {size} MiB  {}", image.reference, image.digest);
        println!("  {}", image.sbom.display());
    }
    if args.load {
        load(&built, args.dir.as_deref()).await?;
    }
    if args.push.is_some() {
        push::push(&built, &names).await?;
    }
    Ok(())
}

/// Locks the newest packages of Debian and the newest dependencies of npm's packages.
fn relock() -> Result<()> {
    let recipes = recipe::read_all(&util::root().join("images"))?;
    let packages: BTreeSet<&str> =
        recipes.values().flat_map(|r| r.packages.iter().map(String::as_str)).collect();
    debs::relock(&packages.into_iter().collect::<Vec<_>>())
}

/// The path that an image's layout is written to.
pub fn layout(name: &str, build: Build) -> PathBuf {
    layout_in(&build.folder(), name)
}

fn layout_in(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.tar"))
}

/// Builds the named images, or all. Those whose inputs have not changed are left as they are.
pub async fn build(names: &[String], build: Build) -> Result<Vec<Built>> {
    let recipes = recipe::read_all(&util::root().join("images"))?;
    let wanted: BTreeMap<String, Recipe> = if names.is_empty() {
        recipes.clone().into_iter().filter(|(_, r)| !r.base).collect()
    } else {
        names.iter().map(|name| pick(&recipes, name)).collect::<Result<_>>()?
    };
    let agents = agents(&wanted).await?;
    // It blocks, and the caller may have to react to a signal meanwhile.
    tokio::task::spawn_blocking(move || build_all(&recipes, &wanted, &agents, build)).await?
}

/// Builds the images of the controllers and of agents with the programs of a baseline. Everything else of
/// them is today's; their tag is that of no release.
async fn build_baseline(baseline: Baseline) -> Result<Vec<Built>> {
    let recipes = recipe::read_all(&util::root().join("images"))?;
    let is_ours = |name: &str| name == AGENT || Controller::ALL.iter().any(|c| c.name() == name);
    let wanted: BTreeMap<String, Recipe> =
        recipes.clone().into_iter().filter(|(name, _)| is_ours(name)).collect();
    let agents = agents(&wanted).await?;
    let build = move || {
        let names = Names::new(None, Some(&baseline.tag()?))?;
        let programs = programs_of(&wanted);
        let binaries = baseline::programs(&baseline, &programs)?;
        let lock = Lock::read()?;
        let parts = Parts {
            binaries: &binaries,
            agents: &agents,
            bases: &bases(&recipes, &wanted, &lock)?,
            build: Build::Dev,
            lock: &lock,
            names: &names,
            folder: &Build::Dev.folder().join(names.tag()),
        };
        std::fs::create_dir_all(parts.folder)
            .with_context(|| format!("creating {}", parts.folder.display()))?;
        wanted.iter().map(|(name, recipe)| build_one(name, recipe, &parts)).collect()
    };
    tokio::task::spawn_blocking(build).await?
}

/// The programs in some images.
fn programs_of(wanted: &BTreeMap<String, Recipe>) -> BTreeSet<&str> {
    wanted.values().flat_map(|r| r.binaries.keys()).map(String::as_str).collect()
}

/// The coding agents of some images.
async fn agents(wanted: &BTreeMap<String, Recipe>) -> Result<BTreeMap<Agent, PathBuf>> {
    let mut agents = BTreeMap::new();
    for agent in wanted.values().flat_map(|r| r.agents.keys().copied()).collect::<BTreeSet<_>>() {
        let program = match agent {
            Agent::ClaudeCode => gastown_cluster::agents::claude_code().await?,
        };
        agents.insert(agent, program);
    }
    Ok(agents)
}

/// Loads images into the node of the cluster in `dir`, except those that it has.
pub async fn load(built: &[Built], dir: Option<&Path>) -> Result<()> {
    let dir = dir.map_or_else(cluster::default_dir, |d| Ok(d.to_owned()))?;
    let Some(cluster) = Cluster::find(&dir).await? else {
        bail!("no cluster runs in {}; `cargo xtask cluster up` starts one", dir.display())
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
    build: Build,
) -> Result<Vec<Built>> {
    util::need_debian(&[("strip", "binutils")])?;
    let binaries = compile(&programs_of(wanted), build)?;
    let lock = Lock::read()?;
    let bases = bases(recipes, wanted, &lock)?;
    let (names, folder) = (&Names::new(None, None)?, &build.folder());
    let parts =
        Parts { binaries: &binaries, agents, bases: &bases, build, lock: &lock, names, folder };
    let images = wanted.iter().map(|(name, recipe)| build_one(name, recipe, &parts));
    let images = images.collect::<Result<Vec<_>>>()?;
    write_sboms(wanted, &images, &parts)?;
    Ok(images)
}

fn pick(recipes: &BTreeMap<String, Recipe>, name: &str) -> Result<(String, Recipe)> {
    match recipes.get(name) {
        Some(recipe) if !recipe.base => Ok((name.to_owned(), recipe.clone())),
        _ => {
            let known: Vec<&str> =
                recipes.iter().filter(|(_, r)| !r.base).map(|(n, _)| n.as_str()).collect();
            bail!("image `{name}` does not exist; the images are: {}", known.join(", "))
        }
    }
}

/// A base: its packages and the tar of its root file system.
struct Base {
    packages: BTreeSet<String>,
    rootfs: PathBuf,
}

fn bases<'a>(
    all: &BTreeMap<String, Recipe>,
    wanted: &'a BTreeMap<String, Recipe>,
    lock: &Lock,
) -> Result<BTreeMap<&'a str, Base>> {
    let needed: BTreeSet<&str> = wanted
        .values()
        .flat_map(|r| r.from.iter().chain(r.copy.iter().map(|c| &c.from)))
        .map(String::as_str)
        .collect();
    let base = |name: &'a str| {
        let packages: BTreeSet<String> = all[name].packages.iter().cloned().collect();
        Ok((name, Base { rootfs: rootfs::debian(&packages, lock)?, packages }))
    };
    needed.into_iter().map(base).collect()
}

/// The inputs of images.
struct Parts<'a> {
    binaries: &'a BTreeMap<String, PathBuf>,
    agents: &'a BTreeMap<Agent, PathBuf>,
    bases: &'a BTreeMap<&'a str, Base>,
    build: Build,
    lock: &'a Lock,
    names: &'a Names,
    /// The folder of the images.
    folder: &'a Path,
}

fn build_one(name: &str, recipe: &Recipe, parts: &Parts<'_>) -> Result<Built> {
    let reference = parts.names.reference(name);
    let image = assemble(&reference, recipe, parts).with_context(|| format!("image {name}"))?;
    let path = layout_in(parts.folder, name);
    let stamp = path.with_extension("inputs");
    let inputs = Digest::of(format!("{image:?}\n{}", times(&image.files)?).as_bytes()).to_string();
    let sbom = path.with_extension("spdx.json");
    let built =
        |digest| Built { name: name.to_owned(), reference, path: path.clone(), sbom, digest };
    if path.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|before| before == inputs) {
        let (_, digest) = oci::identify(&path)?;
        return Ok(built(digest));
    }
    println!("images: writing {name}");
    let start = Instant::now();
    let digest = image.builder.write(&path)?;
    inspect::check(&path, recipe)?;
    std::fs::write(&stamp, inputs)?;
    println!("images: {name} in {:.1} s", start.elapsed().as_secs_f32());
    Ok(built(digest))
}

/// Writes the lists of what is in images that have none of this digest.
fn write_sboms(
    wanted: &BTreeMap<String, Recipe>,
    built: &[Built],
    parts: &Parts<'_>,
) -> Result<()> {
    let is_old = |image: &&Built| {
        let written = std::fs::read_to_string(&image.sbom).unwrap_or_default();
        !written.contains(image.digest.as_str().trim_start_matches("sha256:"))
    };
    let old: Vec<&Built> = built.iter().filter(is_old).collect();
    if old.is_empty() {
        return Ok(());
    }
    let (created, linked) = (sbom::created()?, sbom::linked()?);
    let owners = programs::owners(&programs_of(wanted))?;
    let graph = crates::Graph::of(&owners.values().cloned().collect(), parts.build)?;
    for image in old {
        let recipe = &wanted[&image.name];
        let npm = recipe.agents.keys().map(|agent| agent.package()).collect::<Result<Vec<_>>>()?;
        let contents = sbom::Parts {
            name: &image.name,
            version: &version()?,
            digest: &image.digest,
            debian: &debian_packages(recipe, parts)?,
            lock: parts.lock,
            programs: &recipe
                .binaries
                .keys()
                .map(|name| (name.clone(), owners[name].clone()))
                .collect(),
            crates: Some(&graph),
            linked: &linked,
            npm: &npm,
        };
        let document = sbom::document(&contents, created.clone())
            .with_context(|| format!("the list of what is in {}", image.name))?;
        std::fs::write(&image.sbom, serde_json::to_string_pretty(&document)?)
            .with_context(|| format!("writing {}", image.sbom.display()))?;
    }
    Ok(())
}

/// The Debian packages whose files an image has.
fn debian_packages(recipe: &Recipe, parts: &Parts<'_>) -> Result<BTreeSet<String>> {
    let mut packages: BTreeSet<String> = recipe.copy.iter().map(|c| c.package.clone()).collect();
    if let Some(base) = recipe.from.as_deref() {
        let all = parts.bases[base].packages.iter().chain(&recipe.packages).cloned().collect();
        let status = rootfs::file_of(&rootfs::debian(&all, parts.lock)?, "/var/lib/dpkg/status")?;
        packages.extend(sbom::installed(&String::from_utf8_lossy(&status)));
    }
    Ok(packages)
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
        // What travels to registries and nodes is compressed; a node of this machine reads it faster
        // as it is.
        .gzip(parts.build == Build::Release)
        .user(&format!("{USER}:{USER}"))
        .env("HOME", "/home/nonroot")
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .label("org.opencontainers.image.description", &recipe.summary)
        .label("org.opencontainers.image.source", env!("CARGO_PKG_REPOSITORY"))
        .label("org.opencontainers.image.version", parts.names.tag())
        .entrypoint(&recipe.entrypoint);
    for (name, value) in &recipe.env {
        builder = builder.env(name, value);
    }
    let mut top = Layer::new();
    if let Some(base) = recipe.from.as_deref() {
        for layer in root_layers(&parts.bases[base], &recipe.packages, parts.lock)? {
            files.insert(layer.clone());
            builder = builder.layer_tar(layer);
        }
    } else {
        for (path, text) in rootfs::accounts() {
            top = top.bytes(path, text, 0o644);
        }
        top = top.dir("/home/nonroot", 0o770, (USER, 0)).dir("/tmp", 0o1777, (0, 0));
    }
    // The runtime mounts its own /dev, which the root file systems do not have.
    top = top.dir("/dev", 0o755, (0, 0));
    for copy in &recipe.copy {
        top = top.bytes(
            &copy.path,
            rootfs::file_of(&parts.bases[copy.from.as_str()].rootfs, &copy.path)?,
            0o644,
        );
    }
    // The agent is large and changes seldom, our programs are small and change often: each has its
    // own layer.
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

/// The layers of a root file system: the base that several images share, and what this image adds.
fn root_layers(base: &Base, packages: &[String], lock: &Lock) -> Result<Vec<PathBuf>> {
    if packages.is_empty() {
        return Ok(vec![base.rootfs.clone()]);
    }
    let all = base.packages.iter().chain(packages).cloned().collect();
    let full = rootfs::debian(&all, lock)?;
    Ok(vec![base.rootfs.clone(), rootfs::layer_between(&base.rootfs, &full)?])
}

/// Paths, lengths and times of files: when they change, the image is written again.
fn times(files: &BTreeSet<PathBuf>) -> Result<String> {
    let line = |path: &PathBuf| {
        let meta = std::fs::metadata(path)?;
        Ok(format!("{} {} {:?}\n", path.display(), meta.len(), meta.modified()?))
    };
    files.iter().map(line).collect()
}
