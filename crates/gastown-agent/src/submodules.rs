//! Submodules of a fresh checkout that no agent has touched: fetched, and checked out at their
//! paths.
//!
//! A submodule's repository is `.git/modules/<name>` of the one above it, as git makes it. With a
//! store, its objects are in a bare repository there, which the agent can read and not write.

use std::fs;
use std::path::{Path, PathBuf};

use gastown_git::submodules::{self, Submodule};
use gastown_git::tags::write_packed;
use gastown_git::{Class, Git, GitError, Remote};
use gastown_types::{CommitId, digest, text};

/// How deep submodules may be in each other.
const MAX_DEPTH: usize = 4;
/// How many submodules there may be in all.
const MAX_COUNT: usize = 64;

/// A submodule cannot be filled; the message names its path and URL.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Unavailable {
    /// Whether the same may succeed later: the repository's own host does not answer.
    pub transient: bool,
    /// One sentence.
    pub message: String,
}

/// Where submodules are fetched from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// From the URLs in `.gitmodules`, seen from this remote of the repository.
    Urls(&'a Remote),
    /// From the repository of this one's server that has a commit: `<url>/-/modules/<commit>`.
    Commits(&'a Remote),
}

/// A checkout: the outermost one, or a submodule's.
#[derive(Debug)]
pub struct Level {
    /// Its repository.
    pub git_dir: PathBuf,
    /// Its files.
    pub work_tree: PathBuf,
    /// Its commit.
    pub commit: CommitId,
    /// Where it was fetched from.
    pub remote: Remote,
    /// The path of the checkout in the outermost one, with a slash after it, or empty.
    pub path: String,
    /// How deep it is; the outermost is 1.
    depth: usize,
}

/// Fills the submodules of the checkout of `commit` in `work_tree`, whose repository is
/// `work_tree/.git`, and theirs. Returns all checkouts, this one first.
pub async fn fill(
    git: &Git,
    work_tree: &Path,
    commit: &CommitId,
    source: Source<'_>,
    store: Option<&Path>,
) -> Result<Vec<Level>, Unavailable> {
    let (Source::Urls(remote) | Source::Commits(remote)) = source;
    let mut open = vec![Level {
        git_dir: work_tree.join(".git"),
        work_tree: work_tree.to_owned(),
        commit: commit.clone(),
        remote: remote.clone(),
        path: String::new(),
        depth: 1,
    }];
    let mut filled = Vec::new();
    while let Some(level) = open.pop() {
        let found = submodules::list(git, &level.git_dir, &level.commit).await;
        for module in found.map_err(|e| failed(&level, None, &e))? {
            if filled.len() + open.len() >= MAX_COUNT || level.depth > MAX_DEPTH {
                let message = format!(
                    "submodule {}{}: only {MAX_COUNT} submodules, {MAX_DEPTH} deep, are fetched",
                    level.path, module.path
                );
                return Err(Unavailable { transient: false, message });
            }
            if let Some(next) = fill_one(git, &level, &module, source, store).await? {
                open.push(next);
            }
        }
        filled.push(level);
    }
    Ok(filled)
}

fn failed(level: &Level, module: Option<(&Submodule, &Remote)>, e: &GitError) -> Unavailable {
    let what = match module {
        Some((module, _)) => {
            format!("submodule {}{} ({}): ", level.path, module.path, module.url)
        }
        None => String::new(),
    };
    let same_host = module.is_none_or(|(_, remote)| remote.url.host() == level.remote.url.host());
    Unavailable { transient: e.class.is_transient() && same_host, message: format!("{what}{e}") }
}

/// Fetches one submodule and checks it out; `None` when it is left empty.
async fn fill_one(
    git: &Git,
    level: &Level,
    module: &Submodule,
    source: Source<'_>,
    store: Option<&Path>,
) -> Result<Option<Level>, Unavailable> {
    let refused = |why: String| Unavailable {
        transient: false,
        message: format!("submodule {}{} ({}): {why}", level.path, module.path, module.url),
    };
    let remote = match source {
        Source::Urls(_) => level.remote.for_submodule(&module.url).map_err(refused)?,
        Source::Commits(server) => {
            let url = format!("{}/-/modules/{}", server.url, module.commit);
            let url = url.parse().map_err(|e| refused(format!("{e}")))?;
            Remote { url, ..server.clone() }
        }
    };
    let work_tree = folder_of(level, module).map_err(|e| refused(e.to_string()))?;
    let git_dir = level.git_dir.join("modules").join(&module.name);
    let inside = git_dir.ancestors().skip(1).take_while(|dir| *dir != level.git_dir);
    if git_dir.exists() || inside.into_iter().any(|dir| dir.join("HEAD").exists()) {
        return Err(refused(format!("its name {} is inside that of another", module.name)));
    }
    let files = |e: std::io::Error| refused(e.to_string());
    let failed = |e: GitError| failed(level, Some((module, &remote)), &e);
    let sha256 = module.commit.as_str().len() == 64;
    let bare = match store {
        Some(store) => store.join(format!("{}.git", short(remote.url.as_str()))),
        None => git_dir.clone(),
    };
    gastown_git::remote::init_bare(git, &bare, sha256).await.map_err(failed)?;
    match fetch(git, &remote, &bare, &module.commit).await {
        // The server of commits could not get it either; its log has the reason.
        Err(e) if matches!(source, Source::Commits(_)) && e.class == Class::RepositoryNotFound => {
            tracing::warn!(
                path = module.path,
                url = module.url,
                "a submodule stays empty: it cannot be fetched"
            );
            return fs::remove_dir_all(&bare).map(|()| None).map_err(files);
        }
        other => other.map_err(failed)?,
    }
    let listed = remote.ls_tags(git, "refs/tags/").await.map_err(failed)?;
    let tags = remote.fetch_tags(git, &bare, listed).await.map_err(failed)?;
    write_packed(&bare, "refs/tags/", &tags).map_err(failed)?;
    if store.is_some() {
        gastown_git::remote::init_bare(git, &git_dir, sha256).await.map_err(failed)?;
        let alternate = format!("{}\n", bare.join("objects").display());
        fs::create_dir_all(git_dir.join("objects/info")).map_err(files)?;
        fs::write(git_dir.join("objects/info/alternates"), alternate).map_err(files)?;
        write_packed(&git_dir, "refs/tags/", &tags).map_err(failed)?;
    }
    link(level, module, &git_dir, &work_tree, &bare, sha256).map_err(files)?;
    let id = module.commit.as_str();
    git.call(["update-ref", "--no-deref", "HEAD", id])
        .repo(&git_dir)
        .output()
        .await
        .map_err(failed)?;
    git.call(["reset", "--hard", "--quiet", id])
        .repo(&git_dir)
        .work_tree(&work_tree)
        .doing(format!("check out the submodule {}{}", level.path, module.path))
        .patient()
        .output()
        .await
        .map_err(failed)?;
    Ok(Some(Level {
        git_dir,
        work_tree,
        commit: module.commit.clone(),
        remote,
        path: format!("{}{}/", level.path, module.path),
        depth: level.depth + 1,
    }))
}

fn short(url: &str) -> String {
    text::truncate(&digest::sha256(url), 24).to_owned()
}

/// Fetches a commit by its id; where the server does not give it so, all branches and tags.
async fn fetch(git: &Git, remote: &Remote, bare: &Path, commit: &CommitId) -> Result<(), GitError> {
    let has = || async {
        let call = git.call(["cat-file", "-e", &format!("{commit}^{{commit}}")]).repo(bare);
        call.any_exit().output().await.is_ok_and(|out| out.status.success())
    };
    if has().await {
        return Ok(());
    }
    match remote.fetch(git, bare, &[commit.to_string()]).await {
        Err(e) if e.class == Class::RefNotFound => {
            let all = ["+refs/heads/*:refs/remotes/origin/*".to_owned()];
            remote.fetch(git, bare, &all).await?;
            if has().await { Ok(()) } else { Err(e) }
        }
        other => other,
    }
}

/// The folder in the working tree that git made for the submodule. Links are refused.
fn folder_of(level: &Level, module: &Submodule) -> std::io::Result<PathBuf> {
    let folder = level.work_tree.join(&module.path);
    let top = fs::canonicalize(&level.work_tree)?;
    let found = fs::canonicalize(&folder)?;
    if found == top.join(&module.path) && found.is_dir() {
        Ok(folder)
    } else {
        Err(std::io::Error::other("its folder is a link"))
    }
}

/// A path from the folder `from` up to `to`, both below the same checkout.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| Path::new("..").to_owned());
    up.chain(to.components().skip(common).map(|c| Path::new(c.as_os_str()).to_owned())).collect()
}

/// Joins the repository and its folder, as `git submodule` does, and names it in the one above.
fn link(
    level: &Level,
    module: &Submodule,
    git_dir: &Path,
    work_tree: &Path,
    bare: &Path,
    sha256: bool,
) -> std::io::Result<()> {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    fs::write(
        work_tree.join(".git"),
        format!("gitdir: {}\n", relative(work_tree, git_dir).display()),
    )?;
    let format = if sha256 { "\trepositoryformatversion = 1\n" } else { "" };
    let extension = if sha256 { "[extensions]\n\tobjectFormat = sha256\n" } else { "" };
    let config = format!(
        "[core]\n{format}\tbare = false\n\tworktree = {}\n{extension}[gc]\n\tauto = 0\n\
         [user]\n\tname = Gas Town Polecat\n\temail = polecat@gastown.io\n\
         [remote \"origin\"]\n\turl = {}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
        quoted(&relative(git_dir, work_tree).display().to_string()),
        // What was fetched: the agent has no credentials for more.
        quoted(&bare.display().to_string()),
    );
    fs::write(git_dir.join("config"), config)?;
    let above = format!(
        "[submodule {}]\n\tactive = true\n\turl = {}\n",
        quoted(&module.name),
        quoted(&bare.display().to_string())
    );
    let mut file = fs::OpenOptions::new().append(true).open(level.git_dir.join("config"))?;
    std::io::Write::write_all(&mut file, above.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_and_its_folder_name_each_other_by_relative_paths() {
        let path =
            |from: &str, to: &str| relative(Path::new(from), Path::new(to)).display().to_string();
        assert_eq!(path("/w/repo/lib/x", "/w/repo/.git/modules/x"), "../../.git/modules/x");
        assert_eq!(path("/w/repo/.git/modules/a/b", "/w/repo/ab"), "../../../../ab");
    }
}
