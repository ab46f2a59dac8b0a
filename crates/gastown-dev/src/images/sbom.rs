//! What is in an image, as an SPDX document beside it: Debian packages, the crates of our programs,
//! packages of npm, and what is linked into the programs from the machine that compiles them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result};
use base64::Engine as _;
use gastown_cluster::oci::Digest;
use gastown_toolchain::NpmPackage;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::crates::{Crate, Graph};
use super::lock::{Lock, SUITE};
use super::spdx::{Contents, Document, NO_ASSERTION, Package};
use crate::util;

/// What package URLs write as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// What an image holds.
pub struct Parts<'a> {
    /// The image's name, such as `rig-ctl`.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// The digest of its manifest.
    pub digest: &'a Digest,
    /// The names of its Debian packages.
    pub debian: &'a BTreeSet<String>,
    /// Their versions.
    pub lock: &'a Lock,
    /// Its programs and the packages of this workspace that they are built from.
    pub programs: &'a BTreeMap<String, String>,
    /// What these are compiled of.
    pub crates: Option<&'a Graph>,
    /// What is linked into each program besides crates.
    pub linked: &'a [Package],
    /// Packages of npm.
    pub npm: &'a [NpmPackage],
}

/// Writes the document. `created` is a time in RFC 3339, in UTC and whole seconds.
pub fn document(parts: &Parts<'_>, created: String) -> Result<Document> {
    let Parts { name, version, digest, .. } = *parts;
    let mut contents = Contents::default();
    let encoded = encode(digest.as_str());
    let purl = format!("pkg:oci/{name}@{encoded}?tag={}", encode(version));
    let hex = digest.as_str().trim_start_matches("sha256:");
    let image = Package::new(&purl, name, version, "CONTAINER").hash("SHA256", hex);
    let image = contents.add(image.license(env!("CARGO_PKG_LICENSE")));
    for package in parts.debian {
        let id = contents.add(debian(parts.lock, package)?);
        contents.relate(&image, "CONTAINS", &id);
    }
    for package in parts.npm {
        let id = contents.add(npm(package)?);
        contents.relate(&image, "CONTAINS", &id);
    }
    for (program, package) in parts.programs {
        let graph = parts.crates.context("no crates are known")?;
        let root = add_crates(&mut contents, graph, package)?;
        let purl = format!("pkg:generic/{program}@{version}");
        let id = contents.add(
            Package::new(&purl, program, version, "APPLICATION").license(env!("CARGO_PKG_LICENSE")),
        );
        contents.relate(&image, "CONTAINS", &id);
        contents.relate(&id, "GENERATED_FROM", &root);
        for linked in parts.linked {
            let linked = contents.add(linked.clone());
            contents.relate(&id, "STATIC_LINK", &linked);
        }
    }
    let namespace = format!("{}/spdx/{name}-{version}-{hex}", env!("CARGO_PKG_REPOSITORY"));
    Ok(contents.document(&image, name, &namespace, created))
}

fn debian(lock: &Lock, name: &str) -> Result<Package> {
    let locked = lock.packages.get(name);
    let locked = locked.with_context(|| format!("{name} is in an image and not in the lock"))?;
    let purl = format!(
        "pkg:deb/debian/{}@{}?arch={}&distro={SUITE}",
        encode(name),
        encode(&locked.version),
        locked.architecture
    );
    let location = format!("http://deb.debian.org/{}/{}", locked.archive, locked.path);
    let package = Package::new(&purl, name, &locked.version, "OTHER");
    Ok(package.from(&location).hash("SHA256", &locked.sha256))
}

fn npm(package: &NpmPackage) -> Result<Package> {
    let NpmPackage { name, version, integrity } = package;
    let (scope, base) = name.split_once('/').map_or((None, name.as_str()), |(s, b)| (Some(s), b));
    let scope = scope.map(|scope| encode(scope) + "/").unwrap_or_default();
    let purl = format!("pkg:npm/{scope}{}@{}", encode(base), encode(version));
    let hash = integrity.strip_prefix("sha512-").context("npm's hash is not a SHA-512")?;
    let hash = base64::prelude::BASE64_STANDARD.decode(hash).context("npm's hash is not base64")?;
    Ok(Package::new(&purl, name, version, "APPLICATION").hash("SHA512", &hex::encode(hash)))
}

/// Adds a package of this workspace and all that is compiled into it; returns its id.
fn add_crates(contents: &mut Contents, graph: &Graph, package: &str) -> Result<String> {
    let root = graph.root(package)?;
    for (one, called) in graph.below(root) {
        let id = contents.add(of_crate(graph, one));
        for other in called {
            contents.relate(&id, "DEPENDS_ON", &of_crate(graph, other).id);
        }
    }
    Ok(of_crate(graph, root).id)
}

fn of_crate(graph: &Graph, one: &Crate) -> Package {
    let Crate { name, version, license } = one;
    let purl = format!("pkg:cargo/{}@{}", encode(name), encode(version));
    let license = if license.is_empty() { NO_ASSERTION } else { license };
    let package = Package::new(&purl, name, version, "LIBRARY").license(license);
    match graph.hash(one) {
        Some(hash) => package
            .from(&format!("https://static.crates.io/crates/{name}/{name}-{version}.crate"))
            .hash("SHA256", hash),
        None => package.from(&format!("git+{}", env!("CARGO_PKG_REPOSITORY"))),
    }
}

/// What is linked into a static program from the machine that compiles it: the libraries of Rust, of C and
/// of the C compiler.
pub fn linked() -> Result<Vec<Package>> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let rust = util::output(Command::new(rustc).arg("-vV").current_dir(util::root()))?;
    let rust = rust.lines().find_map(|l| l.strip_prefix("release: ")).context("no version")?;
    let libc = util::output(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    let libc = libc.trim().strip_prefix("glibc ").context("getconf names no glibc")?;
    let gcc = util::output(Command::new("cc").arg("-dumpfullversion"))?;
    let package = |name: &str, version: &str, license: &str| {
        let purl = format!("pkg:generic/{name}@{}", encode(version));
        Package::new(&purl, name, version, "LIBRARY").license(license)
    };
    Ok(vec![
        package("rust-std", rust, "MIT OR Apache-2.0"),
        package("glibc", libc, "LGPL-2.1-or-later"),
        package("libgcc", gcc.trim(), "GPL-3.0-or-later WITH GCC-exception-3.1"),
    ])
}

/// The time of the commit that is built, or of SOURCE_DATE_EPOCH when that is set.
pub fn created() -> Result<String> {
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => util::output(
            Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(util::root()),
        )
        .context("the time of the commit; without git, SOURCE_DATE_EPOCH gives it")?,
    };
    let seconds = seconds.trim().parse().with_context(|| format!("{seconds:?} is no time"))?;
    Ok(jiff::Timestamp::from_second(seconds)?.to_string())
}

/// The names of the packages that the list of a root file system shows as installed.
pub fn installed(status: &str) -> BTreeSet<String> {
    let fields = status.lines().filter_map(|line| line.strip_prefix("Package: "));
    fields.map(str::to_owned).collect()
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

#[cfg(test)]
mod tests;
