//! Remote repositories: which refs they have, and fetching from them.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use gastown_types::{CommitId, GitUrl};

use crate::authorities::Trust;
use crate::credentials::{CredentialFiles, Credentials};
use crate::error::GitError;
use crate::spawn::Git;

/// Files that are larger are not held in memory where git can help it.
const BIG_FILE: &str = "32m";

/// A remote repository and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its address.
    pub url: GitUrl,
    /// How we authenticate to it.
    pub credentials: Credentials,
    /// Host keys beside those of the public forges, as the text of a `known_hosts` file.
    pub known_hosts: String,
    /// Whose certificates are accepted over https.
    pub trust: Trust,
    /// How many commits deep histories are fetched; none is whole.
    pub depth: Option<NonZeroU32>,
}

impl Remote {
    /// A remote that needs no credentials.
    pub fn anonymous(url: GitUrl) -> Self {
        Self {
            url,
            credentials: Credentials::None,
            known_hosts: String::new(),
            trust: Trust::System,
            depth: None,
        }
    }

    /// Writes the files from which one run of git reads the credentials.
    pub(crate) fn credential_files(&self, git: &Git) -> Result<CredentialFiles, GitError> {
        CredentialFiles::write(git, &self.url, &self.credentials, &self.known_hosts, &self.trust)
    }

    /// The refs that the remote has, of those in `names`; all refs when `names` is empty. A name is
    /// a full ref, or ends in `/*` and stands for all refs below it.
    pub async fn ls_remote(
        &self,
        git: &Git,
        names: &[String],
    ) -> Result<BTreeMap<String, CommitId>, GitError> {
        let files = self.credential_files(git)?;
        let mut args = vec!["ls-remote", "--refs", "--quiet"];
        // The server then lists only branches. Without it it lists all refs, and git filters.
        if !names.is_empty() && names.iter().all(|n| n.starts_with("refs/heads/")) {
            args.push("--heads");
        }
        args.extend(["--", self.url.as_str()]);
        args.extend(names.iter().map(String::as_str));
        let call = git
            .call(args)
            .doing(format!("list the refs of {}", self.url))
            .deadline(Duration::from_secs(60));
        let out = files.apply(call, &self.url).output().await?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let rows = text.lines().filter_map(|line| line.split_once('\t'));
        let wanted = |name: &str| {
            let is = |wanted: &String| match wanted.strip_suffix('*') {
                Some(folder) => name.starts_with(folder),
                None => name == wanted,
            };
            names.is_empty() || names.iter().any(is)
        };
        Ok(rows
            .filter(|(_, name)| wanted(name))
            .filter_map(|(id, name)| Some((name.to_owned(), id.parse().ok()?)))
            .collect())
    }

    /// Fetches `refspecs` into the bare repository `repo`, as long as it makes progress. Tags are
    /// not followed, nothing is pruned.
    pub async fn fetch(&self, git: &Git, repo: &Path, refspecs: &[String]) -> Result<(), GitError> {
        let files = self.credential_files(git)?;
        let depth = self.depth.map(|depth| format!("--depth={depth}"));
        let mut args = vec!["fetch"];
        args.extend(depth.as_deref());
        args.extend([
            "--progress",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
            "--refmap=",
            // A list may be longer than a command line.
            "--stdin",
            "--",
            self.url.as_str(),
        ]);
        let mut lines = refspecs.join("\n");
        lines.push('\n');
        let call = git
            .call(args)
            .repo(repo)
            .stdin(lines.into_bytes())
            // Larger files are checked as a stream and not in memory.
            .config("core.bigFileThreshold", BIG_FILE)
            .doing(format!("fetch from {}", self.url))
            .patient();
        files.apply(call, &self.url).output().await.map(drop)
    }
}

impl Git {
    /// Whether a repository has this commit.
    pub async fn has_commit(&self, repo: &Path, commit: &CommitId) -> bool {
        let call = self.call(["cat-file", "-e", &format!("{commit}^{{commit}}")]).repo(repo);
        call.any_exit().output().await.is_ok_and(|out| out.status.success())
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
