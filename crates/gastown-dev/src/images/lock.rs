//! `images/debian.lock`: every Debian package of the images, by version and SHA-256.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use percent_encoding::percent_decode_str;

use crate::util;

/// The Debian release of the images.
pub const SUITE: &str = "bookworm";

/// The command that writes the file anew.
pub const RELOCK: &str = "`cargo xtask images --relock`";

const HEADER: &str = "\
# The Debian packages of the images: name, version, architecture, bytes, SHA-256, archive, path.
# `cargo xtask images --relock` writes this file; the builder takes nothing that differs from it.
";

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The architecture of the images, as Debian names it.
    pub architecture: String,
    /// When the packages were the newest ones, as snapshot.debian.org writes times.
    pub taken: String,
    /// The packages by name.
    pub packages: BTreeMap<String, Package>,
}

/// One package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture; `all` for one that runs on every one.
    pub architecture: String,
    /// The length of the `.deb` in bytes.
    pub size: u64,
    /// The SHA-256 of the `.deb`, in hex digits.
    pub sha256: String,
    /// `debian` or `debian-security`: the folder of a mirror.
    pub archive: String,
    /// The path below that folder.
    pub path: String,
}

/// The path of the file.
pub fn path() -> PathBuf {
    util::root().join("images/debian.lock")
}

impl Lock {
    /// Reads the file of this project.
    pub fn read() -> Result<Self> {
        Self::read_from(&path())
    }

    fn read_from(path: &Path) -> Result<Self> {
        let read = || Self::parse(&std::fs::read_to_string(path)?);
        read().with_context(|| format!("reading {}; {RELOCK} writes it anew", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let (mut heads, mut packages) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let words: Vec<&str> = line.split(' ').collect();
            if let [key, value] = words[..] {
                heads.insert(key, value.to_owned());
            } else {
                let package = Package::parse(&words).with_context(|| format!("{line:?}"))?;
                packages.insert(package.name.clone(), package);
            }
        }
        let mut head = |key: &str| heads.remove(key).with_context(|| format!("no line `{key}`"));
        let suite = head("suite")?;
        ensure!(suite == SUITE, "it is of {suite}, and the images are of {SUITE}");
        Ok(Self { architecture: head("architecture")?, taken: head("taken")?, packages })
    }

    /// Makes one of what apt prints as the addresses of packages.
    pub fn of_uris(printed: &str, architecture: &str, taken: String) -> Result<Self> {
        let one =
            |line: &str| Package::of_uri(line).with_context(|| format!("apt printed {line:?}"));
        let packages = printed.lines().map(one).collect::<Result<Vec<_>>>()?;
        let packages = packages.into_iter().map(|p| (p.name.clone(), p)).collect();
        Ok(Self { architecture: architecture.to_owned(), taken, packages })
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let Self { architecture, taken, packages: _ } = self;
        let heads = format!("suite {SUITE}\narchitecture {architecture}\ntaken {taken}\n");
        format!("{HEADER}{heads}{}", self.lines())
    }

    /// The lines of the packages: what decides about the content of an image.
    pub fn lines(&self) -> String {
        self.packages.values().fold(String::new(), |mut text, p| {
            let Package { name, version, architecture, size, sha256, archive, path } = p;
            let _ =
                writeln!(text, "{name} {version} {architecture} {size} {sha256} {archive} {path}");
            text
        })
    }

    /// Refuses names of packages that the file does not have.
    pub fn need<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let unknown: Vec<&str> =
            names.into_iter().filter(|name| !self.packages.contains_key(*name)).collect();
        ensure!(
            unknown.is_empty(),
            "{} has no {}; {RELOCK} adds what the images ask for",
            path().display(),
            unknown.join(", ")
        );
        Ok(())
    }
}

impl Package {
    fn parse(words: &[&str]) -> Result<Self> {
        let &[name, version, architecture, size, sha256, archive, path] = words else {
            bail!("a package has seven words")
        };
        ensure!(is_hash(sha256), "{sha256} is not a SHA-256");
        let size = size.parse().context("the length is not a number")?;
        let [name, version, architecture, sha256, archive, path] =
            [name, version, architecture, sha256, archive, path].map(str::to_owned);
        Ok(Self { name, version, architecture, size, sha256, archive, path })
    }

    /// One line of `apt-get download --print-uris`: 'URL' NAME_VERSION_ARCHITECTURE.deb BYTES SHA256:HASH
    fn of_uri(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let &[url, file, size, hash] = &words[..] else { bail!("not four words") };
        let (mirror, path) = url.trim_matches('\'').split_once("/pool/").context("no /pool/")?;
        let archive = mirror.rsplit('/').next().unwrap_or_default();
        let file = percent_decode_str(file).decode_utf8()?;
        let parts: Vec<&str> = file.trim_end_matches(".deb").split('_').collect();
        let &[name, version, architecture] = &parts[..] else { bail!("not the name of a package") };
        let sha256 = hash.strip_prefix("SHA256:").context("no SHA-256")?;
        let path = format!("pool/{path}");
        Self::parse(&[name, version, architecture, size, sha256, archive, &path])
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::recipe;
    use super::*;

    const URIS: &str = "'http://mirror.example/a/debian/pool/main/g/git/git_2.39.5-0%2bdeb12u3_amd64.deb' git_1%3a2.39.5-0+deb12u3_amd64.deb 7264380 SHA256:637a85ddd6247fab13bdd0592f2f39aff04ce4dbf0655d3ab553ac359a38ce6f";

    fn lock() -> Lock {
        Lock::of_uris(URIS, "amd64", "20260101T000000Z".into()).unwrap()
    }

    #[test]
    fn what_apt_prints_becomes_a_file_that_reads_as_the_same() {
        let lock = lock();
        let git = &lock.packages["git"];
        assert_eq!(git.version, "1:2.39.5-0+deb12u3");
        assert_eq!(git.archive, "debian");
        assert_eq!(git.path, "pool/main/g/git/git_2.39.5-0%2bdeb12u3_amd64.deb");
        assert_eq!(Lock::parse(&lock.text()).unwrap(), lock);
    }

    #[test]
    fn a_package_that_is_not_locked_is_refused_with_the_command_that_locks_it() {
        lock().need(["git"]).unwrap();
        let error = lock().need(["git", "jq"]).unwrap_err().to_string();
        assert!(error.contains("has no jq") && error.contains("--relock"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_refused_with_the_command_that_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("debian.lock");
        for (from, to) in
            [("637a85", "X37a85"), ("suite bookworm", "suite buster"), (" 7264380", "")]
        {
            std::fs::write(&path, lock().text().replace(from, to)).unwrap();
            let error = format!("{:#}", Lock::read_from(&path).unwrap_err());
            assert!(error.contains("--relock"), "{error}");
        }
    }

    #[test]
    fn the_lock_of_this_project_has_what_the_images_ask_for() {
        let recipes = recipe::read_all(&util::root().join("images")).unwrap();
        let asked: BTreeSet<&str> =
            recipes.values().flat_map(|r| r.packages.iter().map(String::as_str)).collect();
        let lock = Lock::read().unwrap();
        lock.need(asked).unwrap();
        assert_eq!(lock.text(), std::fs::read_to_string(path()).unwrap());
    }
}
