//! What earlier attempts saved beside the work branch: it is fetched, and uncommitted files of the
//! last one are put back into the clone.

use std::collections::BTreeMap;

use gastown_git::{Git, GitError, Remote};
use gastown_types::CommitId;

use crate::paths::Paths;
use crate::settings::SyncSettings;
use crate::sync::wip::{BASE, DIRTY, TREE};

/// Where the snapshots are in `upstream.git`.
const LOCAL: &str = "refs/gastown/wip";

/// The snapshot of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its commit.
    pub commit: CommitId,
    /// The commit that its tree was compared with.
    pub base: Option<CommitId>,
    /// Its tree has uncommitted changes.
    pub dirty: bool,
}

/// What earlier attempts left on the remote.
#[derive(Debug, Default)]
pub struct Left {
    /// The snapshots by the numbers of their attempts.
    pub snapshots: BTreeMap<u32, Snapshot>,
    /// The fence.
    pub fence: Option<CommitId>,
}

impl Left {
    /// The snapshot of the last attempt that has one.
    pub fn newest(&self) -> Option<&Snapshot> {
        self.snapshots.values().next_back()
    }
}

/// Fetches the snapshots of all attempts into `upstream.git`.
pub async fn fetch(
    settings: &SyncSettings,
    paths: &Paths,
    remote: &Remote,
    git: &Git,
) -> Result<Left, GitError> {
    let repo = paths.upstream_repo();
    let refspec = format!("+{}/*:{LOCAL}/*", settings.wip_folder);
    remote.fetch(git, &repo, &[refspec]).await?;
    let listed = git
        .call(["for-each-ref", "--format=%(objectname) %(refname)", LOCAL])
        .repo(&repo)
        .output()
        .await?;
    let mut left = Left::default();
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let Some((id, name)) = line.split_once(' ') else { continue };
        let Ok(commit) = id.parse::<CommitId>() else { continue };
        match name.strip_prefix(LOCAL).map(|n| n.trim_start_matches('/')) {
            Some("fence") => left.fence = Some(commit),
            Some(number) => {
                if let Ok(attempt) = number.parse() {
                    let snapshot = read(git, paths, commit).await?;
                    left.snapshots.insert(attempt, snapshot);
                }
            }
            None => {}
        }
    }
    Ok(left)
}

async fn read(git: &Git, paths: &Paths, commit: CommitId) -> Result<Snapshot, GitError> {
    let shown = git
        .call(["cat-file", "commit", commit.as_str()])
        .repo(&paths.upstream_repo())
        .output()
        .await?;
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let (base, dirty) = parse(&text);
    Ok(Snapshot { commit, base, dirty })
}

/// The base of a snapshot, and whether it has uncommitted changes, by its message.
fn parse(text: &str) -> (Option<CommitId>, bool) {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    (value(BASE).and_then(|id| id.parse().ok()), value(TREE) == Some(DIRTY))
}

/// Puts the uncommitted files of the newest snapshot back into the clone, which is on the work
/// branch. When they cannot be combined with what the branch holds now, they are left as a commit on
/// the local branch `saved/attempt-<n>`.
pub async fn restore(
    settings: &SyncSettings,
    paths: &Paths,
    git: &Git,
    left: &Left,
) -> Result<(), GitError> {
    let Some((attempt, snapshot)) = left.snapshots.iter().next_back() else { return Ok(()) };
    let (Some(base), true) = (&snapshot.base, snapshot.dirty) else { return Ok(()) };
    let clone = paths.worktree();
    let git_dir = clone.join(".git");
    let run = |args: &[&str]| git.call(args).repo(&git_dir).env("GIT_WORK_TREE", &clone);
    let line = async |args: &[&str]| -> Result<String, GitError> {
        let output = run(args).output().await?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
    };
    let head = line(&["rev-parse", "HEAD"]).await?;
    let saved_tree = format!("{}^{{tree}}", snapshot.commit);
    let tree = if head == base.as_str() {
        line(&["rev-parse", &saved_tree]).await?
    } else {
        // A commit of the files alone: the snapshot's other parents would mislead the merge.
        let message = format!("Uncommitted files of attempt {attempt}");
        let files = git
            .call(["commit-tree", "-p", base.as_str(), "-m", &message, &saved_tree])
            .repo(&git_dir)
            .env("GIT_AUTHOR_NAME", "Gas Town Polecat")
            .env("GIT_AUTHOR_EMAIL", "polecat@gastown.io")
            .env("GIT_COMMITTER_NAME", "Gas Town Polecat")
            .env("GIT_COMMITTER_EMAIL", "polecat@gastown.io")
            .output()
            .await?;
        let files = String::from_utf8_lossy(&files.stdout).trim().to_owned();
        let merged = run(&["merge-tree", "--write-tree", "HEAD", &files])
            .doing("combine the saved files with the work branch")
            .any_exit()
            .output()
            .await?;
        if !merged.status.success() {
            let name = format!("refs/heads/saved/attempt-{attempt}");
            run(&["update-ref", &name, &files]).output().await?;
            tracing::warn!(
                name,
                "the saved files conflict with the work branch; they are on a local branch"
            );
            return Ok(());
        }
        String::from_utf8_lossy(&merged.stdout).lines().next().unwrap_or_default().to_owned()
    };
    run(&["read-tree", "-u", "--reset", &tree]).doing("put the saved files back").output().await?;
    // The files stay, and are uncommitted again.
    run(&["read-tree", "HEAD"]).output().await?;
    tracing::info!(
        attempt,
        commit = snapshot.commit.as_str(),
        branch = %settings.work,
        "the uncommitted files of an earlier attempt are back"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_shows_its_base_and_whether_it_is_dirty() {
        let id = "a".repeat(40);
        let text = format!("tree x\n\nSnapshot\n\n{BASE}{id}\n{TREE}{DIRTY}\n");
        assert_eq!(parse(&text), (Some(id.parse().unwrap()), true));
        assert_eq!(
            parse(&format!("{BASE}{id}\n{TREE}clean\n")),
            (Some(id.parse().unwrap()), false)
        );
        assert_eq!(parse("Snapshot of an older version\n"), (None, false));
        for sample in gastown_compat::samples("snapshot-message.txt") {
            let (base, dirty) = parse(&sample.text);
            assert!(base.is_some() && dirty, "{}", sample.version);
        }
    }
}
