//! `gt fetch`: the init container of a gate's Job, which fetches the merge candidate from
//! refinery-ctl's git endpoint.

use std::path::Path;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use gastown_git::{Class, Git, GitError};
use gastown_types::{CommitId, GitUrl};

use crate::paths::Paths;

/// Attempts after the first one.
const RETRIES: usize = 5;
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

/// The settings of `gt fetch`.
pub struct FetchSettings {
    url: GitUrl,
    candidate: CommitId,
    ca: Option<String>,
    token: Option<String>,
}

impl FetchSettings {
    /// Reads `GASTOWN_GIT_URL`, `GASTOWN_CANDIDATE`, `GASTOWN_CA` and `GASTOWN_TOKEN_FILE`.
    pub fn from_env() -> Result<Self, FetchError> {
        let text = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let need =
            |name: &str| text(name).ok_or_else(|| FetchError::Config(format!("{name} is not set")));
        let url = need("GASTOWN_GIT_URL")?
            .parse()
            .map_err(|e| FetchError::Config(format!("GASTOWN_GIT_URL: {e}")))?;
        let candidate = need("GASTOWN_CANDIDATE")?
            .parse()
            .map_err(|e| FetchError::Config(format!("GASTOWN_CANDIDATE: {e}")))?;
        let token = match text("GASTOWN_TOKEN_FILE") {
            None => None,
            Some(file) => {
                let token = std::fs::read_to_string(&file)
                    .map_err(|e| FetchError::Config(format!("{file}: {e}")))?;
                let token = token.trim().to_owned();
                if token.is_empty() || token.contains(|c: char| c.is_control()) {
                    return Err(FetchError::Config(format!("{file} holds no token")));
                }
                Some(token)
            }
        };
        Ok(Self { url, candidate, ca: text("GASTOWN_CA"), token })
    }
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
    let git = Git::from_env().with_deadline(Duration::from_secs(300));
    let (clone, id) = (paths.worktree(), settings.candidate.as_str());
    // A second start of the container begins again from nothing.
    match std::fs::remove_dir_all(&clone) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(internal(e)),
        _ => {}
    }
    let git_dir = clone.join(".git");
    std::fs::create_dir_all(&git_dir).map_err(internal)?;
    // Only the CA is a file; the token goes through git's configuration in the environment.
    let scratch = tempfile::tempdir_in(paths.workspace()).map_err(internal)?;
    let format = if id.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    let tree = |call: gastown_git::Call| call.repo(&git_dir).env("GIT_WORK_TREE", &clone);
    tree(git.call(["init", "--quiet", "--template=", format, "--initial-branch=candidate"]))
        .output()
        .await?;
    fetch(&git, &git_dir, settings, scratch.path()).await?;
    tree(git.call(["checkout", "--quiet", "--force", "--detach", id]))
        .doing("check out the candidate")
        .output()
        .await?;
    let head = git.call(["rev-parse", "--verify", "HEAD"]).repo(&git_dir).output().await?;
    let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
    if head != id {
        return Err(FetchError::Internal(format!("HEAD is {head} and not the candidate {id}")));
    }
    Ok(())
}

async fn fetch(
    git: &Git,
    git_dir: &Path,
    settings: &FetchSettings,
    scratch: &Path,
) -> Result<(), FetchError> {
    let id = settings.candidate.as_str();
    let mut call = git
        .call([
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--refmap=",
            "--",
            settings.url.as_str(),
            id,
        ])
        .repo(git_dir)
        .allow(&settings.url)
        .doing(format!("fetch the candidate {} from {}", settings.candidate.short(), settings.url));
    if let Some(pem) = &settings.ca {
        let file = scratch.join("ca.pem");
        std::fs::write(&file, pem).map_err(|e| FetchError::Internal(e.to_string()))?;
        call = call.config("http.sslCAInfo", file.display().to_string());
    }
    if let Some(token) = &settings.token {
        call = call.config(
            format!("http.{}.extraHeader", settings.url),
            format!("Authorization: Bearer {token}"),
        );
    }
    call.output().await?;
    Ok(())
}
