//! The folder of beads in one commit: the file that holds the beads, and its settings. Blocks.
//!
//! All of it counts as hostile: links are not followed, executable files are not read, sizes are
//! bounded, and a redirect leads at most one step and never out of the repository.

use std::sync::Arc;

use gastown_beads::{DiscoverError, Metadata, Options, Store, StoreConfig, discover};
use gastown_git::files::{Entry, Folder, Kind};
use gastown_git::{Class, GitError, Objects};
use gastown_types::{CommitId, text};

/// The largest file of beads that is read, in bytes.
const MAX_STORE: u64 = 64 << 20;
/// The longest line that is read, in bytes. It is much shorter than the largest file, so that one
/// bead that is too long hides no other one.
const MAX_LINE: usize = 8 << 20;
/// The largest file of settings that is read, in bytes.
const MAX_SETTINGS: u64 = 1 << 20;

/// Why beads cannot be read, as a condition's reason and message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct NotReadable {
    /// The reason, in CamelCase.
    pub reason: &'static str,
    /// The message, a sentence.
    pub message: String,
}

/// Why a folder could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The repository holds no readable beads.
    #[error(transparent)]
    NotReadable(#[from] NotReadable),
    /// The mirror could not be read.
    #[error(transparent)]
    Git(#[from] GitError),
}

fn not_readable<T>(reason: &'static str, message: impl Into<String>) -> Result<T, ReadError> {
    Err(NotReadable { reason, message: message.into() }.into())
}

/// The beads of one commit.
#[derive(Clone, Debug)]
pub struct Side {
    /// The commit.
    pub commit: CommitId,
    /// The folder of the file, after a redirect.
    pub folder: String,
    /// The name of the file of beads; absent where the commit has none.
    pub file: Option<String>,
    /// The contents of the file.
    pub store: Arc<Store>,
    /// The contents of `metadata.json`.
    pub metadata: Metadata,
    /// The contents of `config.yaml`.
    pub config: StoreConfig,
}

impl Side {
    /// This side with the contents of a known one where both have the same.
    pub(crate) fn sharing(mut self, known: &[&Self]) -> Self {
        let same = known.iter().find(|side| side.store.write() == self.store.write());
        if let Some(same) = same {
            self.store = Arc::clone(&same.store);
        }
        self
    }

    /// The file at its commit, for people.
    pub fn place(&self) -> String {
        let file = self.file.as_deref().unwrap_or_default();
        format!("{}/{file} at {}", self.folder, self.commit.short())
    }

    /// Whether the file is only an export of a database.
    pub fn is_export(&self) -> bool {
        self.metadata.is_dolt()
            || self.config.has_sync_remote
            || self.store.dialect() == gastown_beads::Dialect::Export
    }
}

/// Reads the beads of a commit.
pub fn read(objects: &Objects, commit: &CommitId, path: &str) -> Result<Side, ReadError> {
    let (folder, entries) = open(objects, commit, path)?;
    let side = |file| Side {
        commit: commit.clone(),
        folder: folder.clone(),
        file,
        store: Arc::default(),
        metadata: Metadata::default(),
        config: StoreConfig::default(),
    };
    let metadata = setting(objects, &folder, &entries, "metadata.json")?;
    let config = setting(objects, &folder, &entries, "config.yaml")?;
    let config = config
        .map(|bytes| StoreConfig::parse(&String::from_utf8_lossy(&bytes)))
        .unwrap_or_default();
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let file = match discover(&names, metadata.as_deref()) {
        Ok(file) => Some(file),
        Err(DiscoverError::NoJsonl) => None,
        Err(error @ DiscoverError::Ambiguous(_)) => {
            return not_readable("AmbiguousFile", error.to_string());
        }
        Err(error @ (DiscoverError::BadName(_) | DiscoverError::Metadata(_))) => {
            return not_readable("BadMetadata", error.to_string());
        }
    };
    let metadata = metadata.and_then(|bytes| Metadata::parse(&bytes).ok()).unwrap_or_default();
    let mut side = Side { metadata, config, ..side(file) };
    if let Some(name) = &side.file
        && let Some(bytes) = file_of(objects, &folder, &entries, name, MAX_STORE)?
    {
        let options = Options { max_line: MAX_LINE, ..Options::default() };
        side.store = Arc::new(Store::parse(bytes, &options));
    }
    Ok(side)
}

/// Reads `config.yaml` of a commit.
pub fn config(objects: &Objects, commit: &CommitId, path: &str) -> Result<StoreConfig, ReadError> {
    let (folder, entries) = open(objects, commit, path)?;
    let bytes = setting(objects, &folder, &entries, "config.yaml")?;
    Ok(bytes.map(|bytes| StoreConfig::parse(&String::from_utf8_lossy(&bytes))).unwrap_or_default())
}

/// The folder's entries, after at most one redirect.
fn open(
    objects: &Objects,
    commit: &CommitId,
    path: &str,
) -> Result<(String, Vec<Entry>), ReadError> {
    let Some(entries) = list(objects, commit, path)? else {
        return Ok((path.to_owned(), Vec::new()));
    };
    let Some(bytes) = setting(objects, path, &entries, "redirect")? else {
        return Ok((path.to_owned(), entries));
    };
    let redirect = String::from_utf8_lossy(&bytes);
    let Some(target) =
        redirect.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))
    else {
        return Ok((path.to_owned(), entries));
    };
    // Relative to the parent of the beads' folder, as the tools read it.
    let base = path.rsplit_once('/').map_or("", |(base, _)| base);
    let shown = text::line(target, 80);
    let Some(there) = resolve(base, target) else {
        return not_readable(
            "BadRedirect",
            format!("{path}/redirect leads out of the repository, to {shown}"),
        );
    };
    match list(objects, commit, &there)? {
        None => not_readable(
            "BadRedirect",
            format!("{path}/redirect leads to {there}, which does not exist"),
        ),
        Some(entries) if there != path && entries.iter().any(|entry| entry.name == "redirect") => {
            not_readable(
                "BadRedirect",
                format!(
                    "{path}/redirect leads to {there}, which has a redirect too: only one redirect is followed"
                ),
            )
        }
        Some(entries) => Ok((there, entries)),
    }
}

/// A path relative to a folder of the repository; `None` where it leads out of the repository.
fn resolve(base: &str, target: &str) -> Option<String> {
    if target.starts_with('/') || target.contains(['\\', '\0']) {
        return None;
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part if part.eq_ignore_ascii_case(".git") => return None,
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn list(objects: &Objects, commit: &CommitId, path: &str) -> Result<Option<Vec<Entry>>, ReadError> {
    match objects.folder(commit, path)? {
        Folder::Absent => Ok(None),
        Folder::Other(at, kind) => {
            not_readable("BadFile", format!("{at} is {}, not a folder", kind.words()))
        }
        Folder::Entries(entries) => Ok(Some(entries)),
    }
}

fn setting(
    objects: &Objects,
    folder: &str,
    entries: &[Entry],
    name: &str,
) -> Result<Option<Vec<u8>>, ReadError> {
    file_of(objects, folder, entries, name, MAX_SETTINGS)
}

fn file_of(
    objects: &Objects,
    folder: &str,
    entries: &[Entry],
    name: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, ReadError> {
    let Some(entry) = entries.iter().find(|entry| entry.name == name) else { return Ok(None) };
    if entry.kind != Kind::File {
        return not_readable(
            "BadFile",
            format!("{folder}/{name} is {}, not an ordinary file", entry.kind.words()),
        );
    }
    match objects.read_file(entry, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.class == Class::TooMuchOutput => {
            not_readable("FileTooLarge", format!("{folder}/{name}: {}", error.detail))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_stays_in_the_repository() {
        for (base, target, found) in [
            ("", "plans/.beads", Some("plans/.beads")),
            ("a/b", "../.beads", Some("a/.beads")),
            ("", "./x//.beads/", Some("x/.beads")),
            ("", "../.beads", None),
            ("a", "../../.beads", None),
            ("", "/etc", None),
            ("", ".", None),
            ("", ".GIT/hooks", None),
            ("", "a\\..\\b", None),
        ] {
            assert_eq!(resolve(base, target).as_deref(), found, "{base:?} {target:?}");
        }
    }
}
