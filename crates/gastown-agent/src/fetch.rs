//! `gt fetch`: the init container of a gate's Job, which fetches the merge candidate from
//! refinery-ctl's git endpoint, with the tags of the target branch, its submodules and LFS files.

use std::path::Path;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use gastown_git::{Class, Credentials, Git, GitError, Remote, Secret, Trust, lfs, tags};
use gastown_types::{BranchName, CommitId, GitUrl};

use crate::paths::Paths;
use crate::settings::text;
use crate::submodules::{self, Level, Source, Unavailable};

/// Attempts after the first one.
const RETRIES: usize = 5;
/// The endpoint's folder of tags: `<this><digest of the target branch>/<tag>`.
const TAGS: &str = "refs/gastown/tags/";
/// Before the second attempt; it doubles with each one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The candidate could not be fetched. None of these is a failure of the candidate itself.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A variable is missing or wrong.
    #[error("InvalidConfig: {0}")]
    Config(String),
    /// The endpoint rejected the token.
    #[error("BadCredentials: {0}")]
    Refused(String),
    /// The endpoint does not have the candidate.
    #[error("CandidateNotFound: {0}")]
    NotFound(String),
    /// The endpoint could not be reached.
    #[error("RemoteUnreachable: {0}")]
    Unreachable(String),
    /// Our own disk or git failed.
    #[error("Internal: {0}")]
    Internal(String),
}

impl From<GitError> for FetchError {
    fn from(e: GitError) -> Self {
        let text = e.to_string();
        match e.class {
            Class::AuthFailed | Class::PermissionDenied | Class::BadCredentials => {
                Self::Refused(text)
            }
            Class::RefNotFound | Class::RepositoryNotFound => Self::NotFound(text),
            Class::Unreachable | Class::Timeout => Self::Unreachable(text),
            _ => Self::Internal(text),
        }
    }
}

impl From<Unavailable> for FetchError {
    fn from(e: Unavailable) -> Self {
        if e.transient { Self::Unreachable(e.message) } else { Self::NotFound(e.message) }
    }
}

/// The settings of `gt fetch`.
pub struct FetchSettings {
    remote: Remote,
    candidate: CommitId,
    /// The target branch, and its commit that the candidate was built on.
    base: Option<(BranchName, CommitId)>,
}

impl FetchSettings {
    /// Reads `GASTOWN_GIT_URL`, `GASTOWN_CANDIDATE`, `GASTOWN_BASE`, `GASTOWN_TARGET_BRANCH`,
    /// `GASTOWN_FETCH_DEPTH`, `GASTOWN_CA` and `GASTOWN_TOKEN_FILE`.
    pub fn from_env() -> Result<Self, FetchError> {
        let need =
            |name: &str| text(name).ok_or_else(|| FetchError::Config(format!("{name} is not set")));
        let url: GitUrl = parsed("GASTOWN_GIT_URL", &need("GASTOWN_GIT_URL")?)?;
        let candidate = parsed("GASTOWN_CANDIDATE", &need("GASTOWN_CANDIDATE")?)?;
        let base = match (text("GASTOWN_TARGET_BRANCH"), text("GASTOWN_BASE")) {
            (Some(target), Some(base)) => {
                Some((parsed("GASTOWN_TARGET_BRANCH", &target)?, parsed("GASTOWN_BASE", &base)?))
            }
            // A refinery-ctl of the version before sets neither.
            _ => None,
        };
        let mut remote = Remote::anonymous(url);
        if let Some(pem) = text("GASTOWN_CA") {
            remote.trust = Trust::Only(pem);
        }
        if let Some(depth) = text("GASTOWN_FETCH_DEPTH") {
            remote.depth = Some(parsed("GASTOWN_FETCH_DEPTH", &depth)?);
        }
        if let Some(file) = text("GASTOWN_TOKEN_FILE") {
            let token =
                std::fs::read(&file).map_err(|e| FetchError::Config(format!("{file}: {e}")))?;
            remote.credentials = Credentials::Bearer { token: Secret::new(token) };
        }
        Ok(Self { remote, candidate, base })
    }
}

fn parsed<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, FetchError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e| FetchError::Config(format!("{name}: {e}")))
}

/// Fetches the candidate and checks it out at `/workspace/repo`. While the endpoint cannot be reached
/// (it may be moving to another pod), it tries again, for half a minute.
pub async fn run(paths: &Paths, settings: &FetchSettings) -> Result<(), FetchError> {
    let pauses = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_times(RETRIES);
    (|| check_out(paths, settings))
        .retry(pauses)
        .when(|e| matches!(e, FetchError::Unreachable(_)))
        .notify(|e, pause| tracing::warn!(error = %e, ?pause, "the candidate is fetched again"))
        .await
}

async fn check_out(paths: &Paths, settings: &FetchSettings) -> Result<(), FetchError> {
    let internal = |e: std::io::Error| FetchError::Internal(e.to_string());
    let git = Git::from_env();
    let (clone, id) = (paths.worktree(), settings.candidate.as_str());
    // A second start of the container begins again from nothing.
    match std::fs::remove_dir_all(&clone) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(internal(e)),
        _ => {}
    }
    let git_dir = clone.join(".git");
    std::fs::create_dir_all(&git_dir).map_err(internal)?;
    let format = if id.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    let tree = |call: gastown_git::Call| call.repo(&git_dir).env("GIT_WORK_TREE", &clone);
    tree(git.call(["init", "--quiet", "--template=", format, "--initial-branch=candidate"]))
        .output()
        .await?;
    settings.remote.fetch(&git, &git_dir, &[id.to_owned()]).await?;
    name_refs(&git, &git_dir, settings).await?;
    tree(git.call(["checkout", "--quiet", "--force", "--detach", id]))
        .doing("check out the candidate")
        .patient()
        .output()
        .await?;
    fill(&git, &clone, settings).await?;
    let head = git.call(["rev-parse", "--verify", "HEAD"]).repo(&git_dir).output().await?;
    let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
    if head != id {
        return Err(FetchError::Internal(format!("HEAD is {head} and not the candidate {id}")));
    }
    Ok(())
}

/// Fills the submodules and the LFS files from the endpoint, as far as it has them.
async fn fill(git: &Git, clone: &Path, settings: &FetchSettings) -> Result<(), FetchError> {
    let remote = &settings.remote;
    let checkouts =
        submodules::fill(git, clone, &settings.candidate, Source::Commits(remote), None).await?;
    let server = format!("{}/info/lfs", remote.url);
    for Level { git_dir, work_tree, commit, .. } in &checkouts {
        if !lfs::is_used(git, git_dir, commit).await? {
            continue;
        }
        let storage = git_dir.join("lfs");
        let filled =
            remote.fill_lfs(git, git_dir, work_tree, commit, &storage, Some(&server)).await;
        match filled {
            Err(e) if e.class.is_transient() => return Err(e.into()),
            // refinery-ctl could not get them either: the gate shows what depends on them.
            Err(error) => tracing::warn!(%error, "LFS files stay pointers"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Makes the tags, and `origin/<target>` at the commit that the candidate was built on: what
/// `git describe` and `git diff origin/main...` need. Of a history that was not fetched whole there are
/// those whose commits are in it.
async fn name_refs(git: &Git, git_dir: &Path, settings: &FetchSettings) -> Result<(), FetchError> {
    let mut listed = settings.remote.ls_tags(git, TAGS).await?;
    for tag in &mut listed {
        let name = tag.name.split_once('/').map(|(_, name)| name.to_owned());
        tag.name = name.unwrap_or_default();
    }
    listed.retain(|tag| !tag.name.is_empty());
    // What they name is there, so that nothing of the history has to come with them.
    let remote = Remote { depth: None, ..settings.remote.clone() };
    let found = remote.fetch_tags(git, git_dir, listed).await?;
    tags::write_packed(git_dir, "refs/tags/", &found)?;
    if let Some((target, base)) = &settings.base
        && git.has_commit(git_dir, base).await
    {
        let name = format!("refs/remotes/origin/{target}");
        git.call(["update-ref", &name, base.as_str()]).repo(git_dir).output().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::VARIABLES;

    #[test]
    fn the_variables_that_an_earlier_version_set_are_read() {
        for (version, mut containers) in gastown_compat::variables("gate-variables.json") {
            let mut variables = containers.remove("fetch").unwrap();
            // The kubelet mounts the file.
            assert!(variables.remove("GASTOWN_TOKEN_FILE").is_some(), "{version}");
            VARIABLES.set(variables);
            let settings = FetchSettings::from_env().unwrap();
            assert!(settings.candidate.as_str().starts_with("a5e2"), "{version}");
            let (target, base) = settings.base.unwrap();
            assert_eq!((target.as_str(), &base.as_str()[..4]), ("main", "b5e2"), "{version}");
        }
    }
}
