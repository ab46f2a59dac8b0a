//! `gt fetch`: the gate's init container, which takes exactly the candidate from refinery-ctl's git
//! endpoint.

use std::path::Path;
use std::time::Duration;

use gastown_git::{Class, Git, GitError};
use gastown_types::{CommitId, GitUrl};

use crate::paths::Paths;

/// Why the candidate is not there to be tested. None of these says anything about the candidate
/// itself.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A variable is missing or wrong.
    #[error("InvalidConfig: {0}")]
    Config(String),
    /// The endpoint refused the token.
    #[error("BadCredentials: {0}")]
    Refused(String),
    /// The endpoint does not have the candidate.
    #[error("CandidateNotFound: {0}")]
    NotFound(String),
    /// The endpoint could not be reached.
    #[error("RemoteUnreachable: {0}")]
    Unreachable(String),
    /// Something of ours failed.
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

/// What is fetched and how.
pub struct Order {
    url: GitUrl,
    candidate: CommitId,
    ca: Option<String>,
    token: Option<String>,
}

impl Order {
    /// From `GASTOWN_GIT_URL`, `GASTOWN_CANDIDATE`, `GASTOWN_CA` and `GASTOWN_TOKEN_FILE`.
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

/// Checks the candidate out at `/workspace/repo`.
pub async fn run(paths: &Paths, order: &Order) -> Result<(), FetchError> {
    let ours = |e: std::io::Error| FetchError::Internal(e.to_string());
    let git = Git::from_env().with_deadline(Duration::from_secs(300));
    let (clone, id) = (paths.worktree(), order.candidate.as_str());
    // A second start of the container begins anew.
    match std::fs::remove_dir_all(&clone) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(ours(e)),
        _ => {}
    }
    let git_dir = clone.join(".git");
    std::fs::create_dir_all(&git_dir).map_err(ours)?;
    // Only the CA is a file; the token goes through git's configuration in the environment.
    let scratch = tempfile::tempdir_in(paths.workspace()).map_err(ours)?;
    let format = if id.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    let tree = |call: gastown_git::Call| call.repo(&git_dir).env("GIT_WORK_TREE", &clone);
    tree(git.call(["init", "--quiet", "--template=", format, "--initial-branch=candidate"]))
        .output()
        .await?;
    take(&git, &git_dir, order, scratch.path()).await?;
    tree(git.call(["checkout", "--quiet", "--force", "--detach", id]))
        .doing("check the candidate out")
        .output()
        .await?;
    let head = git.call(["rev-parse", "--verify", "HEAD"]).repo(&git_dir).output().await?;
    let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
    if head != id {
        return Err(FetchError::Internal(format!("HEAD is {head} and not the candidate {id}")));
    }
    Ok(())
}

async fn take(git: &Git, git_dir: &Path, order: &Order, scratch: &Path) -> Result<(), FetchError> {
    let id = order.candidate.as_str();
    let mut call = git
        .call([
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--refmap=",
            "--",
            order.url.as_str(),
            id,
        ])
        .repo(git_dir)
        .allow(&order.url)
        .doing(format!("fetch the candidate {} from {}", order.candidate.short(), order.url));
    if let Some(pem) = &order.ca {
        let file = scratch.join("ca.pem");
        std::fs::write(&file, pem).map_err(|e| FetchError::Internal(e.to_string()))?;
        call = call.config("http.sslCAInfo", file.display().to_string());
    }
    if let Some(token) = &order.token {
        call = call.config(
            format!("http.{}.extraHeader", order.url),
            format!("Authorization: Bearer {token}"),
        );
    }
    call.output().await?;
    Ok(())
}
