//! Tags of a remote that point into history that a repository has.
//!
//! `git fetch` follows tags too, but writes a file for each: a repository with 100,000 tags would
//! take minutes and 400 MB. Here they are one listing, one fetch of the tag objects, and one
//! `packed-refs` file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use gastown_types::{BranchName, CommitId, digest, text};

use crate::error::{Class, GitError};
use crate::mirror::{Mirror, TAGS};
use crate::remote::Remote;
use crate::spawn::Git;

/// How many tags are followed.
const MAX_TAGS: usize = 200_000;
/// How many tag objects are fetched at a time: the server bounds the length of a request.
const CHUNK: usize = 20_000;
/// After this time the tags are listed again although the target branch did not move.
const FRESH: Duration = Duration::from_secs(600);
/// How long somebody else's lock of `packed-refs` is waited for.
const LOCKED: Duration = Duration::from_secs(5);

/// A tag of a remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The name below the listed folder, such as `v1.2`.
    pub name: String,
    /// The id of the tag's object; of the commit, for a tag without an object of its own.
    pub object: CommitId,
    /// The commit (or other object) that it leads to.
    pub commit: CommitId,
}

/// The folder of refs in a mirror with the tags in the history of one branch.
pub(crate) fn folder(target: &BranchName) -> String {
    format!("{TAGS}{}/", text::truncate(&digest::sha256(target.as_str()), 16))
}

impl Remote {
    /// The tags of the remote below `folder`, such as `refs/tags/`: at most 200,000, by name.
    pub async fn ls_tags(&self, git: &Git, folder: &str) -> Result<Vec<Tag>, GitError> {
        let files = self.credential_files(git)?;
        let mut args = vec!["ls-remote", "--quiet"];
        if folder == "refs/tags/" {
            args.push("--tags");
        }
        let pattern = format!("{folder}*");
        args.extend(["--", self.url.as_str(), &pattern]);
        let call = git
            .call(args)
            .doing(format!("list the tags of {}", self.url))
            .deadline(Duration::from_secs(120));
        let out = files.apply(call, &self.url).output().await?;
        Ok(parse(&String::from_utf8_lossy(&out.stdout), folder))
    }

    /// Fetches the objects of those tags whose commits `repo` has, and returns these tags. A tag
    /// whose object is refused as corrupt is left out.
    pub async fn fetch_tags(
        &self,
        git: &Git,
        repo: &Path,
        listed: Vec<Tag>,
    ) -> Result<Vec<Tag>, GitError> {
        let ids = listed.iter().flat_map(|t| [&t.object, &t.commit]);
        let kinds = kinds(git, repo, ids).await?;
        let mut tags = listed;
        tags.retain(|t| kinds.get(&t.commit).is_some_and(|kind| kind == "commit"));
        let missing = |t: &&Tag| !kinds.contains_key(&t.object);
        let objects: Vec<String> =
            tags.iter().filter(missing).map(|t| t.object.to_string()).collect();
        let mut refused = HashSet::new();
        for chunk in objects.chunks(CHUNK) {
            match self.fetch(git, repo, chunk).await {
                Ok(()) => {}
                // Old tools wrote tags that fsck refuses; the work does not depend on them.
                Err(error) if error.class == Class::Corrupt => {
                    tracing::warn!(%error, tags = chunk.len(), "tags with broken objects are left out");
                    refused.extend(chunk.iter().cloned());
                }
                Err(error) => return Err(error),
            }
        }
        tags.retain(|t| !refused.contains(t.object.as_str()));
        Ok(tags)
    }
}

/// The tags in the output of `ls-remote`. Names that git would not accept, and those that cannot
/// exist beside another, are left out.
pub(crate) fn parse(listing: &str, folder: &str) -> Vec<Tag> {
    let mut found: BTreeMap<String, (CommitId, Option<CommitId>)> = BTreeMap::new();
    for (id, name) in listing.lines().filter_map(|line| line.split_once('\t')) {
        let (Some(name), Ok(id)) = (name.strip_prefix(folder), id.parse::<CommitId>()) else {
            continue;
        };
        match name.strip_suffix("^{}") {
            Some(name) => {
                if let Some((_, peeled)) = found.get_mut(name) {
                    *peeled = Some(id);
                }
            }
            None if gix::refs::FullName::try_from(format!("refs/tags/{name}")).is_ok() => {
                found.insert(name.to_owned(), (id, None));
            }
            None => {}
        }
    }
    let folders = |name: &str| {
        name.match_indices('/').map(|(at, _)| name[..at].to_owned()).collect::<Vec<_>>()
    };
    let clashes = |name: &str| folders(name).iter().any(|f| found.contains_key(f));
    let tag = |(name, (object, peeled)): (&String, &(CommitId, Option<CommitId>))| Tag {
        name: name.clone(),
        object: object.clone(),
        commit: peeled.clone().unwrap_or_else(|| object.clone()),
    };
    found.iter().filter(|(name, _)| !clashes(name)).take(MAX_TAGS).map(tag).collect()
}

/// The kinds (`commit`, `tag`, …) of those objects that the repository has.
async fn kinds(
    git: &Git,
    repo: &Path,
    ids: impl Iterator<Item = &CommitId>,
) -> Result<HashMap<CommitId, String>, GitError> {
    let mut input = String::new();
    for id in ids {
        input.extend([id.as_str(), "\n"]);
    }
    let out = git
        .call(["cat-file", "--buffer", "--batch-check=%(objectname) %(objecttype)"])
        .repo(repo)
        .stdin(input.into_bytes())
        .doing("look for tags in the history")
        .output()
        .await?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let rows = text.lines().filter_map(|line| line.split_once(' '));
    Ok(rows
        .filter(|(_, kind)| *kind != "missing")
        .filter_map(|(id, kind)| Some((id.parse().ok()?, kind.to_owned())))
        .collect())
}

/// Those tags whose commit is `tip` or an ancestor of it.
async fn in_history(
    git: &Git,
    repo: &Path,
    tip: &CommitId,
    tags: Vec<Tag>,
) -> Result<Vec<Tag>, GitError> {
    let mut input = String::new();
    for tag in &tags {
        input.extend([tag.commit.as_str(), "\n"]);
    }
    input.extend(["^", tip.as_str(), "\n"]);
    let out = git
        .call(["rev-list", "--stdin"])
        .repo(repo)
        .stdin(input.into_bytes())
        .doing("find the tags of the target branch")
        .output()
        .await?;
    let text = String::from_utf8_lossy(&out.stdout);
    let elsewhere: HashSet<&str> = text.lines().collect();
    Ok(tags.into_iter().filter(|t| !elsewhere.contains(t.commit.as_str())).collect())
}

/// Writes the tags as packed refs below `folder` of a bare repository, in place of those that are
/// packed there. Blocks.
pub fn write_packed(repo: &Path, folder: &str, tags: &[Tag]) -> Result<(), GitError> {
    if tags.is_empty() && !repo.join("packed-refs").exists() {
        return Ok(());
    }
    let doing = format!("write the tags of {}", repo.display());
    let local = |e: std::io::Error| GitError::local(&doing, e);
    let lock = repo.join("packed-refs.lock");
    let end = Instant::now() + LOCKED;
    // git's own protocol: who creates the lock may write, and renames it when it is complete.
    let mut file = loop {
        match std::fs::OpenOptions::new().write(true).create_new(true).open(&lock) {
            Ok(file) => break file,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(e) => return Err(local(e)),
        }
    };
    let mut write = || {
        let before = match std::fs::read_to_string(repo.join("packed-refs")) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        std::io::Write::write_all(&mut file, merged(&before, folder, tags).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&lock, repo.join("packed-refs"))
    };
    write().map_err(|e| {
        let _ = std::fs::remove_file(&lock);
        local(e)
    })
}

/// The text of a `packed-refs` file with the refs of `before` outside of `folder`, and these tags.
fn merged(before: &str, folder: &str, tags: &[Tag]) -> String {
    let peeled = before.is_empty()
        || before.lines().next().is_some_and(|l| l.starts_with('#') && l.contains(" fully-peeled"));
    let mut refs: BTreeMap<String, String> = BTreeMap::new();
    let mut last = None;
    for line in before.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with('^') {
            if let Some(entry) = last.as_ref().and_then(|name| refs.get_mut(name)) {
                entry.push_str(line);
                entry.push('\n');
            }
        } else if let Some((_, name)) = line.split_once(' ') {
            last = (!name.starts_with(folder)).then(|| name.to_owned());
            if let Some(name) = &last {
                refs.insert(name.clone(), format!("{line}\n"));
            }
        }
    }
    for tag in tags {
        let name = format!("{folder}{}", tag.name);
        let mut entry = format!("{} {name}\n", tag.object);
        if tag.commit != tag.object {
            entry.extend(["^", tag.commit.as_str(), "\n"]);
        }
        refs.insert(name, entry);
    }
    // "fully-peeled" promises that a ref without a second line is not a tag object.
    let header = if peeled {
        "# pack-refs with: peeled fully-peeled sorted \n"
    } else {
        "# pack-refs with: sorted \n"
    };
    std::iter::once(header.to_owned()).chain(refs.into_values()).collect()
}

impl Mirror {
    /// Brings the tags in the history of `target`, whose commit `tip` was fetched, into the mirror,
    /// where a candidate's client can fetch them. Nothing is asked while the branch stands still,
    /// for ten minutes.
    pub async fn follow_tags(
        &self,
        remote: &Remote,
        target: &BranchName,
        tip: &CommitId,
    ) -> Result<(), GitError> {
        let folder = folder(target);
        let mark = self.path().join(folder.trim_end_matches('/').replace('/', "-"));
        if is_fresh(&mark, tip) {
            return Ok(());
        }
        let (git, repo) = (self.git(), self.path());
        let listed = remote.ls_tags(git, "refs/tags/").await?;
        let tags = remote.fetch_tags(git, repo, listed).await?;
        let tags = in_history(git, repo, tip, tags).await?;
        let (repo, mark_text) = (repo.to_owned(), tip.to_string());
        let write = move || {
            write_packed(&repo, &folder, &tags)?;
            std::fs::write(&mark, mark_text).map_err(|e| GitError::local("note the tags", e))
        };
        let done = tokio::task::spawn_blocking(write).await;
        done.map_err(|e| GitError::local("write the tags", e))?
    }
}

/// Whether the tags were listed for this commit, and lately.
fn is_fresh(mark: &Path, tip: &CommitId) -> bool {
    let same = std::fs::read_to_string(mark).is_ok_and(|text| text == tip.as_str());
    let age = |m: std::fs::Metadata| {
        m.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok())
    };
    same && std::fs::metadata(mark).ok().and_then(age).is_some_and(|age| age < FRESH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: &str) -> CommitId {
        digit.repeat(40).parse().unwrap()
    }

    #[test]
    fn a_listing_is_read_with_what_annotated_tags_lead_to() {
        let (a, b) = (id("a"), id("b"));
        let text = format!(
            "{a}\trefs/tags/v1\n{b}\trefs/tags/v1^{{}}\n{b}\trefs/tags/light\n{a}\trefs/heads/main\n\
             {a}\trefs/tags/bad..name\n{a}\trefs/tags/v1/under\njunk\trefs/tags/x\n"
        );
        let tags = parse(&text, "refs/tags/");
        let light = Tag { name: "light".into(), object: b.clone(), commit: b.clone() };
        assert_eq!(tags, [light, Tag { name: "v1".into(), object: a, commit: b }]);
    }

    #[test]
    fn packed_refs_keep_what_is_outside_of_the_folder() {
        let before = format!(
            "# pack-refs with: peeled fully-peeled sorted \n{a} refs/heads/z\n{a} refs/tags/old\n^{b}\n{b} refs/tagz\n",
            a = id("a"),
            b = id("b")
        );
        let tag = Tag { name: "v1".into(), object: id("c"), commit: id("d") };
        let text = merged(&before, "refs/tags/", &[tag]);
        let want = format!(
            "# pack-refs with: peeled fully-peeled sorted \n{} refs/heads/z\n{} refs/tags/v1\n^{}\n{} refs/tagz\n",
            id("a"),
            id("c"),
            id("d"),
            id("b")
        );
        assert_eq!(text, want);
        assert!(
            merged("# pack-refs with: sorted\n", "refs/tags/", &[]).ends_with("with: sorted \n")
        );
    }
}
