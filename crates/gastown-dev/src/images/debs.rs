//! The `.deb` files of `images/debian.lock`: fetched, checked, kept in the user's cache folder, and
//! offered to apt as the only repository that it sees.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use gastown_cluster::oci::Digest;
use tempfile::TempDir;

use super::lock::{self, Lock, Package, RELOCK, SUITE};
use crate::util;

/// Where packages come from when the machine's own mirror does not have them.
const MIRROR: &str = "http://deb.debian.org";
/// Every package that Debian ever published, by the time at which it was the newest.
const SNAPSHOTS: &str = "https://snapshot.debian.org/archive";

/// A folder with the locked packages and an index of them, for apt.
pub struct Repository {
    folder: TempDir,
}

impl Repository {
    /// Fetches what is missing, and writes the index.
    pub fn of(lock: &Lock, cache: &Path) -> Result<Self> {
        let debs = fetch(lock, &cache.join("debs"))?;
        let folder = readable_folder()?;
        let mut index = String::new();
        for (package, deb) in lock.packages.values().zip(&debs) {
            let name = format!("{}.deb", package.sha256);
            std::fs::copy(deb, folder.path().join(&name)).context("copying a package")?;
            let control = util::output(Command::new("dpkg-deb").arg("--field").arg(deb))?;
            let Package { size, sha256, .. } = package;
            writeln!(
                index,
                "{}\nFilename: {name}\nSize: {size}\nSHA256: {sha256}\n",
                control.trim_end()
            )?;
        }
        let suite = folder.path().join("dists").join(SUITE);
        let packages = format!("main/binary-{}", lock.architecture);
        std::fs::create_dir_all(suite.join(&packages))?;
        std::fs::write(suite.join(&packages).join("Packages"), &index)?;
        std::fs::write(suite.join("Release"), release(&index, &packages, &lock.architecture))?;
        Ok(Self { folder })
    }

    /// The line for apt. The index is not signed: each file was checked against the lock.
    pub fn source(&self) -> String {
        format!("deb [trusted=yes] copy:{} {SUITE} main", self.folder.path().display())
    }
}

/// The description of the repository. mmdebstrap selects essential packages by its suite.
fn release(index: &str, packages: &str, architecture: &str) -> String {
    let hash = Digest::of(index.as_bytes());
    let (hash, size) = (hash.as_str().trim_start_matches("sha256:"), index.len());
    format!(
        "Suite: {SUITE}\nCodename: {SUITE}\nComponents: main\nArchitectures: {architecture}\n\
         Date: Thu, 01 Jan 1970 00:00:00 UTC\nSHA256:\n {hash} {size} {packages}/Packages\n"
    )
}

/// A temporary folder that apt's own user can read.
fn readable_folder() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// The paths of the packages, in the lock's order.
fn fetch(lock: &Lock, folder: &Path) -> Result<Vec<PathBuf>> {
    let here = util::output(Command::new("dpkg").arg("--print-architecture"))?;
    let (here, locked) = (here.trim(), &lock.architecture);
    ensure!(
        here == locked,
        "{} is of {locked} and this machine is {here}; {RELOCK} here writes one of {here}",
        lock::path().display()
    );
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let mirrors = mirrors();
    let one = |package: &Package| {
        fetch_one(package, &addresses(package, &mirrors, &lock.taken), folder, download)
    };
    lock.packages.values().map(one).collect()
}

fn fetch_one(
    package: &Package,
    addresses: &[String],
    folder: &Path,
    download: impl Fn(&str, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let kept = folder.join(format!("{}.deb", package.sha256));
    // Checked each time: what is in the cache may have been damaged or changed.
    if kept.is_file() && check(package, &kept).is_ok() {
        return Ok(kept);
    }
    let mut failures = Vec::new();
    for address in addresses {
        let partial = tempfile::Builder::new().suffix(".deb").tempfile_in(folder)?;
        match download(address, partial.path()).and_then(|()| check(package, partial.path())) {
            Ok(()) => {
                partial.persist(&kept).with_context(|| format!("keeping {}", kept.display()))?;
                return Ok(kept);
            }
            Err(error) => failures.push(format!("{address}: {error:#}")),
        }
    }
    bail!(
        "{} {} of {} cannot be had; {RELOCK} takes today's packages\n  {}",
        package.name,
        package.version,
        lock::path().display(),
        failures.join("\n  ")
    )
}

/// Fetches one file with apt's own program, which knows this machine's proxies.
fn download(address: &str, to: &Path) -> Result<()> {
    let mut helper = Command::new("/usr/lib/apt/apt-helper");
    util::output(helper.args(["-q", "download-file", address]).arg(to)).map(drop)
}

/// Refuses a file that is not the locked one.
fn check(package: &Package, file: &Path) -> Result<()> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let (found, wanted) = (Digest::of(&bytes), format!("sha256:{}", package.sha256));
    ensure!(
        found.as_str() == wanted,
        "the file is {found} and the lock has {wanted}: it is not the package that was locked"
    );
    Ok(())
}

/// Where a package may be had: mirrors, then the snapshot of when it was locked.
fn addresses(package: &Package, mirrors: &[String], taken: &str) -> Vec<String> {
    let Package { archive, path, .. } = package;
    let on_mirrors = mirrors.iter().map(|mirror| format!("{mirror}/{archive}/{path}"));
    on_mirrors.chain([format!("{SNAPSHOTS}/{archive}/{taken}/{path}")]).collect()
}

/// What stands before the archive's name in the addresses of this machine's mirrors and of Debian's.
fn mirrors() -> Vec<String> {
    let sources = host_sources().into_iter().filter_map(|p| std::fs::read_to_string(p).ok());
    let mut all: Vec<String> = sources.flat_map(|text| hosts_of(&text)).collect();
    all.push(MIRROR.to_owned());
    let mut seen = BTreeSet::new();
    all.retain(|mirror| seen.insert(mirror.clone()));
    all
}

/// What stands before `/debian` or `/debian-security` in the addresses of a sources file.
fn hosts_of(text: &str) -> Vec<String> {
    let words = text.lines().filter(|l| !l.starts_with('#')).flat_map(str::split_whitespace);
    let is_archive = |name: &&str| ["debian", "debian-security"].contains(name);
    words
        .filter_map(|word| word.trim_end_matches('/').rsplit_once('/'))
        .filter(|(host, name)| host.contains("://") && is_archive(name))
        .map(|(host, _)| host.to_owned())
        .collect()
}

/// Writes `images/debian.lock` anew: today's packages, with all that these need.
pub fn relock(packages: &[&str]) -> Result<()> {
    util::need_debian(&[("mmdebstrap", "mmdebstrap")])?;
    let list = packages.join(",");
    println!("images: looking up today's {list} with what they need");
    let taken = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let folder = readable_folder()?;
    let script = folder.path().join("uris.sh");
    std::fs::write(&script, include_str!("uris.sh"))?;
    let mut command = mmdebstrap(&list)?;
    for option in host_options() {
        command.arg(format!("--aptopt={option}"));
    }
    let printed = tempfile::NamedTempFile::new()?;
    command.arg("--format=null");
    command.arg(format!("--customize-hook=sh '{}' \"$1\"", script.display()));
    command.arg(format!("--customize-hook=download /uris '{}'", printed.path().display()));
    command.args([SUITE, "/dev/null"]).args(host_sources());
    util::output(&mut command).with_context(|| format!("looking up {list}"))?;
    let architecture = util::output(Command::new("dpkg").arg("--print-architecture"))?;
    let uris = std::fs::read_to_string(printed.path())?;
    let new = Lock::of_uris(&uris, architecture.trim(), taken)?;
    let old = Lock::read().ok();
    if old.as_ref().is_some_and(|old| old.lines() == new.lines()) {
        println!("images: the packages are as they were");
        return Ok(());
    }
    std::fs::write(lock::path(), new.text())
        .with_context(|| format!("writing {}", lock::path().display()))?;
    println!("images: {} packages are locked", new.packages.len());
    Ok(())
}

/// The start of a command that builds a root file system of packages.
pub fn mmdebstrap(list: &str) -> Result<Command> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=essential", "--skip=output/dev"]);
    command.arg(if util::output(Command::new("id").arg("-u"))?.trim() == "0" {
        "--mode=root"
    } else {
        "--mode=unshare"
    });
    command.arg(format!("--include={list}")).stdin(std::process::Stdio::null());
    Ok(command)
}

/// The sources of this machine's own apt if it is the same release; else none, which means apt's
/// default servers.
fn host_sources() -> Vec<PathBuf> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let has = |line: &str| release.lines().any(|l| l == line);
    if !(has("ID=debian") && has(&format!("VERSION_CODENAME={SUITE}"))) {
        return Vec::new();
    }
    let files =
        ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"].map(PathBuf::from);
    let lists = |p: &PathBuf| {
        std::fs::read_to_string(p)
            .is_ok_and(|t| t.lines().any(|l| l.starts_with("deb ") || l.starts_with("URIs:")))
    };
    files.into_iter().filter(lists).take(1).collect()
}

/// This machine's settings of apt for the network: proxies and checks.
fn host_options() -> Vec<String> {
    let dump = util::output(Command::new("apt-config").arg("dump")).unwrap_or_default();
    let reach = |l: &&str| {
        ["Acquire::http::", "Acquire::https::", "Acquire::Check-"].iter().any(|p| l.starts_with(p))
    };
    dump.lines().filter(reach).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(content: &[u8]) -> Package {
        Package {
            name: "a".into(),
            version: "1".into(),
            architecture: "all".into(),
            size: content.len() as u64,
            sha256: Digest::of(content).as_str()[7..].into(),
            archive: "debian".into(),
            path: "pool/a.deb".into(),
        }
    }

    /// A mirror that has this content at every address.
    fn serving(content: &'static str) -> impl Fn(&str, &Path) -> Result<()> {
        move |_, to| Ok(std::fs::write(to, content)?)
    }

    fn address() -> [String; 1] {
        ["http://mirror.example/debian/pool/a.deb".to_owned()]
    }

    #[test]
    fn a_package_that_differs_from_the_lock_is_refused_and_not_kept() {
        let cache = tempfile::tempdir().unwrap();
        let fetched = fetch_one(&package(b"locked"), &address(), cache.path(), serving("other"));
        let error = fetched.unwrap_err().to_string();
        assert!(error.contains("is not the package that was locked"), "{error}");
        assert!(error.contains("a 1 of") && error.contains("--relock"), "{error}");
        assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_file_of_the_cache_is_fetched_again() {
        let (cache, package) = (tempfile::tempdir().unwrap(), package(b"locked"));
        let fetch = || fetch_one(&package, &address(), cache.path(), serving("locked")).unwrap();
        let kept = fetch();
        std::fs::write(&kept, "damaged").unwrap();
        assert_eq!(fetch(), kept);
        assert_eq!(std::fs::read(kept).unwrap(), b"locked");
    }

    #[test]
    fn a_package_that_the_mirrors_dropped_is_looked_for_in_the_snapshot() {
        let mirrors = ["http://m.example".to_owned()];
        let urls = addresses(&package(b"x"), &mirrors, "20260101T000000Z");
        assert_eq!(
            urls,
            [
                "http://m.example/debian/pool/a.deb",
                "https://snapshot.debian.org/archive/debian/20260101T000000Z/pool/a.deb"
            ]
        );
    }

    #[test]
    fn mirrors_are_read_from_both_kinds_of_sources() {
        let text = "# URIs: http://no/debian\nURIs: http://m.example/x/debian\ndeb https://s.example/debian-security bookworm-security main\n";
        assert_eq!(hosts_of(text), ["http://m.example/x", "https://s.example"]);
    }
}
