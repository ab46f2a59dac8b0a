//! What a clone has beside its own files: submodules, and the content of LFS files.

use gastown_core::report::InitResult;
use gastown_git::{Git, GitError, Remote, lfs};
use gastown_types::CommitId;

use super::layout;
use super::stop::Stop;
use crate::paths::Paths;
use crate::submodules::{self, Level, Source};

/// Fills the submodules of the fresh clone at `commit`, and the LFS files of all of them.
pub async fn fill(
    paths: &Paths,
    remote: &Remote,
    git: &Git,
    commit: &CommitId,
) -> Result<(), Stop> {
    let store = paths.upstream_modules();
    let checkouts =
        submodules::fill(git, &paths.worktree(), commit, Source::Urls(remote), Some(&store))
            .await?;
    let mut used = false;
    for checkout in &checkouts {
        used |= fill_lfs(paths, git, checkout).await?;
    }
    if used {
        layout::git_lfs(paths).map_err(Stop::internal)?;
    }
    Ok(())
}

/// Replaces the LFS pointers of a checkout by their content; `false` when there are none.
async fn fill_lfs(paths: &Paths, git: &Git, checkout: &Level) -> Result<bool, Stop> {
    let Level { git_dir, work_tree, commit, remote, path, .. } = checkout;
    if !lfs::is_used(git, git_dir, commit).await.map_err(Stop::internal)? {
        return Ok(false);
    }
    layout::append(&git_dir.join("config"), lfs::FILTER).map_err(Stop::internal)?;
    // git-lfs looks for content beside the alternate objects too.
    let alternate = std::fs::read_to_string(git_dir.join("objects/info/alternates"));
    let storage = alternate
        .ok()
        .and_then(|text| Some(std::path::Path::new(text.trim()).parent()?.join("lfs")))
        .unwrap_or_else(|| paths.upstream_repo().join("lfs"));
    let filled = remote.fill_lfs(git, git_dir, work_tree, commit, &storage, None).await;
    filled.map(|()| true).map_err(|e| unavailable(path, &e))
}

fn unavailable(path: &str, e: &GitError) -> Stop {
    let place = if path.is_empty() { String::new() } else { format!("submodule {path}: ") };
    let result = if e.class.is_transient() {
        InitResult::RemoteUnreachable
    } else {
        InitResult::LfsUnavailable
    };
    Stop::new(result, format!("{place}{e}"))
}
