//! The folders and repositories of the pod.
//!
//! Fetched objects are stored once, in `upstream.git`, which the agent can read and not write. The
//! sidecar's own repository, the agent's origin and the agent's clone have it as their alternate,
//! so a large repository is written once and the workspace takes no longer than a checkout.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gastown_git::tags::{Tag, write_packed};
use gastown_git::{Git, GitError};
use gastown_types::CommitId;

use crate::paths::Paths;
use crate::settings::SyncSettings;

/// The folder of tags.
pub const TAGS: &str = "refs/tags/";
/// The ref in `upstream.git` of a work branch that is continued.
pub const RESUMED: &str = "refs/gastown/resumed";

/// Creates the folders, and deletes what an interrupted init left.
pub fn folders(paths: &Paths) -> io::Result<()> {
    for stale in [
        paths.private_repo(),
        paths.upstream_repo(),
        paths.upstream_modules(),
        paths.origin_repo(),
        paths.worktree(),
        paths.state(),
    ] {
        let deleted = match fs::symlink_metadata(&stale) {
            Ok(m) if m.is_dir() => fs::remove_dir_all(&stale),
            Ok(_) => fs::remove_file(&stale),
            Err(_) => Ok(()),
        };
        deleted?;
    }
    for folder in [
        paths.private_home(),
        paths.private_tmp(),
        paths.upstream_repo(),
        paths.private_repo(),
        paths.worktree(),
        paths.tools_bin(),
    ] {
        fs::create_dir_all(folder)?;
    }
    // What is here is not the agent's to read, also where all containers have one user.
    fs::set_permissions(paths.private_tmp(), fs::Permissions::from_mode(0o700))
}

/// Creates `upstream.git` and the sidecar's own repository.
pub async fn repositories(paths: &Paths, git: &Git, sha256: bool) -> Result<(), LayoutError> {
    gastown_git::remote::init_bare(git, &paths.upstream_repo(), sha256).await?;
    gastown_git::remote::init_bare(git, &paths.private_repo(), sha256).await?;
    add_alternate(&paths.private_repo(), paths)?;
    Ok(())
}

/// The workspace cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// git failed.
    #[error("{0}")]
    Git(#[from] GitError),
    /// Reading or writing a file failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Has a repository use the objects of `upstream.git`.
fn add_alternate(git_dir: &Path, paths: &Paths) -> io::Result<()> {
    let info = git_dir.join("objects/info");
    fs::create_dir_all(&info)?;
    fs::write(
        info.join("alternates"),
        format!("{}\n", paths.upstream_repo().join("objects").display()),
    )
}

/// Has the sidecar's repository see the objects of submodules: commits in a submodule are made from
/// them.
pub fn share_modules(paths: &Paths) -> io::Result<()> {
    let mut lines = String::new();
    for module in fs::read_dir(paths.upstream_modules()).into_iter().flatten() {
        let objects = module?.path().join("objects");
        lines.extend([&*objects.to_string_lossy(), "\n"]);
    }
    if lines.is_empty() {
        return Ok(());
    }
    append(&paths.private_repo().join("objects/info/alternates"), &lines)
}

/// A quoted value of a git configuration file.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Creates the agent's origin and its clone, with the work branch checked out and these tags.
pub async fn workspace(
    settings: &SyncSettings,
    paths: &Paths,
    git: &Git,
    base: &CommitId,
    resumed: Option<&CommitId>,
    tags: &[Tag],
) -> Result<(), LayoutError> {
    let start = resumed.unwrap_or(base);
    let sha256 = base.as_str().len() == 64;
    let origin = paths.origin_repo();
    gastown_git::remote::init_bare(git, &origin, sha256).await?;
    add_alternate(&origin, paths)?;
    append(&origin.join("config"), "[gc]\n\tauto = 0\n")?;
    let mut refs = vec![(settings.target.full(), base)];
    refs.extend(resumed.map(|r| (settings.work.full(), r)));
    write_refs(git, &origin, &refs, &settings.target.full()).await?;
    write_packed(&origin, TAGS, tags)?;

    let clone = paths.worktree();
    let git_dir = clone.join(".git");
    let format = if sha256 { "--object-format=sha256" } else { "--object-format=sha1" };
    let tree = |call: gastown_git::Call| call.repo(&git_dir).env("GIT_WORK_TREE", &clone);
    fs::create_dir_all(&git_dir)?;
    tree(git.call(["init", "--quiet", "--template=", format, "--initial-branch=none"]))
        .output()
        .await?;
    add_alternate(&git_dir, paths)?;
    append(&git_dir.join("config"), &config(settings, &origin))?;
    let remote = |branch: &str| format!("refs/remotes/origin/{branch}");
    let mut refs = vec![(settings.work.full(), start), (remote(settings.target.as_str()), base)];
    refs.extend(resumed.map(|r| (remote(settings.work.as_str()), r)));
    write_refs(git, &git_dir, &refs, &settings.work.full()).await?;
    write_packed(&git_dir, TAGS, tags)?;
    git.call(["symbolic-ref", "refs/remotes/origin/HEAD", &remote(settings.target.as_str())])
        .repo(&git_dir)
        .output()
        .await?;
    tree(git.call(["reset", "--hard", "--quiet"]))
        .doing("check out the work branch")
        .patient()
        .output()
        .await?;
    Ok(())
}

pub fn append(path: &Path, text: &str) -> io::Result<()> {
    use io::Write as _;
    fs::OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())
}

/// The clone's configuration, by which plain `git commit`, `git push` and `git pull` work.
fn config(settings: &SyncSettings, origin: &Path) -> String {
    format!(
        "[user]\n\tname = Gas Town Polecat\n\temail = polecat@gastown.io\n[gc]\n\tauto = 0\n\
         [remote \"origin\"]\n\turl = {}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n\
         [branch {}]\n\tremote = origin\n\tmerge = {}\n[push]\n\tautoSetupRemote = true\n",
        quoted(&origin.display().to_string()),
        quoted(settings.work.as_str()),
        quoted(&settings.work.full()),
    )
}

async fn write_refs(
    git: &Git,
    repo: &Path,
    refs: &[(String, &CommitId)],
    head: &str,
) -> Result<(), GitError> {
    let lines: Vec<String> =
        refs.iter().map(|(name, id)| format!("create {name} {id}\n")).collect();
    git.call(["update-ref", "--stdin"])
        .repo(repo)
        .stdin(lines.concat().into_bytes())
        .output()
        .await?;
    git.call(["symbolic-ref", "HEAD", head]).repo(repo).output().await.map(drop)
}

/// Copies this program, and with `agent` the preset agent, into the tools volume of the agent's
/// container.
pub fn tools(paths: &Paths, agent: bool) -> io::Result<()> {
    copy(&std::env::current_exe()?, &paths.tools_bin().join("gt"))?;
    if agent {
        let claude = which::which("claude")
            .map_err(|e| io::Error::other(format!("this image has no claude to copy: {e}")))?;
        // A PATH folder may hold a link to the program.
        copy(&fs::canonicalize(claude)?, &paths.tools_bin().join("claude"))?;
    }
    Ok(())
}

/// Copies git-lfs into the tools volume: an agent's image of another maker may have none.
pub fn git_lfs(paths: &Paths) -> io::Result<()> {
    let found = which::which("git-lfs")
        .map_err(|e| io::Error::other(format!("this image has no git-lfs to copy: {e}")))?;
    copy(&fs::canonicalize(found)?, &paths.tools_bin().join("git-lfs"))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))
}
