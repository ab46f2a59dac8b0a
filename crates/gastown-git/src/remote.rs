//! Remote repositories: which refs they have, and fetching from them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use gastown_types::{CommitId, GitUrl};

use crate::credentials::{CredentialFiles, Credentials};
use crate::error::GitError;
use crate::spawn::Git;

/// A remote repository and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its address.
    pub url: GitUrl,
    /// How we authenticate to it.
    pub credentials: Credentials,
    /// Host keys beside those of the public forges, as the text of a `known_hosts` file.
    pub known_hosts: String,
}

impl Remote {
    /// A remote that needs no credentials.
    pub fn anonymous(url: GitUrl) -> Self {
        Self { url, credentials: Credentials::None, known_hosts: String::new() }
    }

    /// Writes the files from which one run of git reads the credentials.
    pub(crate) fn credential_files(&self, git: &Git) -> Result<CredentialFiles, GitError> {
        CredentialFiles::write(git, &self.url, &self.credentials, &self.known_hosts)
    }

    /// The refs that the remote has, of those in `names` (full refs); all refs when `names` is
    /// empty.
    pub async fn ls_remote(
        &self,
        git: &Git,
        names: &[String],
    ) -> Result<BTreeMap<String, CommitId>, GitError> {
        let files = self.credential_files(git)?;
        let mut args = vec![
            "ls-remote".to_owned(),
            "--refs".to_owned(),
            "--quiet".to_owned(),
            "--".to_owned(),
            self.url.to_string(),
        ];
        args.extend(names.iter().cloned());
        let call = git
            .call(args)
            .doing(format!("list the refs of {}", self.url))
            .deadline(Duration::from_secs(60));
        let out = files.apply(call, &self.url).output().await?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let rows = text.lines().filter_map(|line| line.split_once('\t'));
        let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
        Ok(rows
            .filter(|(_, name)| wanted(name))
            .filter_map(|(id, name)| Some((name.to_owned(), id.parse().ok()?)))
            .collect())
    }

    /// Fetches `refspecs` into the bare repository `repo`. Tags are not followed, nothing is pruned.
    pub async fn fetch(&self, git: &Git, repo: &Path, refspecs: &[String]) -> Result<(), GitError> {
        let files = self.credential_files(git)?;
        let mut args: Vec<String> = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
            "--refmap=",
        ]
        .map(str::to_owned)
        .to_vec();
        args.extend(["--".to_owned(), self.url.to_string()]);
        args.extend(refspecs.iter().cloned());
        let call = git.call(args).repo(repo).doing(format!("fetch from {}", self.url));
        files.apply(call, &self.url).output().await.map(drop)
    }
}

/// Creates an empty bare repository, with SHA-256 objects when `sha256` is set. Where one exists
/// already, nothing changes.
pub async fn init_bare(git: &Git, path: &Path, sha256: bool) -> Result<(), GitError> {
    std::fs::create_dir_all(path)
        .map_err(|e| GitError::local(format!("create {}", path.display()), e))?;
    let format = if sha256 { "--object-format=sha256" } else { "--object-format=sha1" };
    let args = ["init", "--bare", "--quiet", "--template=", format, "--initial-branch=none"];
    git.call(args)
        .repo(path)
        .doing(format!("create the repository {}", path.display()))
        .output()
        .await
        .map(drop)
}
