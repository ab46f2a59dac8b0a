//! What a candidate needs beside its own history: commits of submodules, and LFS files. They are
//! brought into the mirror, so that they can be served with the candidate.
//!
//! What cannot be fetched for good is left out with a warning: the gate fails by it, and blame is
//! found as for any other failure. What may be there later is an error, and so is a program that
//! this machine lacks.

use gastown_types::{CommitId, GitUrl, digest, text};

use crate::error::{Class, GitError};
use crate::lfs;
use crate::mirror::{MODULES, Mirror};
use crate::remote::Remote;
use crate::submodules;

/// How deep submodules may be in each other.
const MAX_DEPTH: usize = 4;
/// How many submodules a candidate may have in all.
const MAX_COUNT: usize = 64;

/// Whether the content is missing where it should be, whoever asks for it.
fn is_for_good(class: Class) -> bool {
    !class.is_transient() && class != Class::MissingProgram
}

impl Mirror {
    /// Brings the submodules and the LFS files of a candidate that is in the mirror there. Nothing
    /// is asked a second time. The caller lets one fetch of a mirror run at a time.
    pub async fn fetch_contents(
        &self,
        remote: &Remote,
        candidate: &CommitId,
    ) -> Result<(), GitError> {
        let mark = self.contents_mark(candidate);
        if mark.exists() {
            return Ok(());
        }
        let mut open = vec![(candidate.clone(), remote.clone(), 1)];
        let mut count = 0;
        while let Some((commit, remote, depth)) = open.pop() {
            self.fetch_lfs(&remote, &commit).await?;
            for module in submodules::list(self.git(), self.path(), &commit).await? {
                count += 1;
                if depth > MAX_DEPTH || count > MAX_COUNT {
                    tracing::warn!(path = module.path, "too many submodules: one is left out");
                    continue;
                }
                let from = match remote.for_submodule(&module.url) {
                    Ok(from) => from,
                    Err(why) => {
                        tracing::warn!(
                            path = module.path,
                            url = module.url,
                            why,
                            "a submodule is left out"
                        );
                        continue;
                    }
                };
                match self.fetch_module(&from, candidate, &module.commit).await {
                    Ok(()) => open.push((module.commit, from, depth + 1)),
                    Err(e) if e.class.is_transient() && from.url.host() == remote.url.host() => {
                        return Err(e);
                    }
                    Err(error) => {
                        tracing::warn!(path = module.path, %error, "a submodule is left out");
                    }
                }
            }
        }
        std::fs::write(&mark, "").map_err(|e| GitError::local("note what was fetched", e))
    }

    /// Fetches a submodule's commit and names it for the candidate.
    async fn fetch_module(
        &self,
        from: &Remote,
        candidate: &CommitId,
        commit: &CommitId,
    ) -> Result<(), GitError> {
        if !self.git().has_commit(self.path(), commit).await
            && let Err(e) = from.fetch(self.git(), self.path(), &[commit.to_string()]).await
        {
            if e.class != Class::RefNotFound {
                return Err(e);
            }
            // A server that gives commits by the name of a branch only.
            let digest = digest::sha256(from.url.as_str());
            let folder = format!("refs/gastown/elsewhere/{}", text::truncate(&digest, 16));
            let all = [format!("+refs/heads/*:{folder}/*")];
            from.fetch(self.git(), self.path(), &all).await?;
            if !self.git().has_commit(self.path(), commit).await {
                return Err(e);
            }
        }
        let name = format!("{MODULES}{candidate}/{commit}");
        let call = self.git().call(["update-ref", &name, commit.as_str()]).repo(self.path());
        call.doing("name a submodule's commit").output().await.map(drop)
    }

    async fn fetch_lfs(&self, remote: &Remote, commit: &CommitId) -> Result<(), GitError> {
        if !lfs::is_used(self.git(), self.path(), commit).await? {
            return Ok(());
        }
        let server = self.lfs_server(remote, commit).await;
        match remote.fetch_lfs(self.git(), self.path(), commit, server.as_deref()).await {
            Err(error) if is_for_good(error.class) => {
                tracing::warn!(%error, "LFS files of a candidate are left out");
                Ok(())
            }
            other => other,
        }
    }

    /// The LFS server that the commit's `.lfsconfig` names: over https, or on the repository's host.
    async fn lfs_server(&self, remote: &Remote, commit: &CommitId) -> Option<String> {
        let blob = format!("--blob={commit}:.lfsconfig");
        let call = self.git().call(["config", &blob, "--get", "lfs.url"]).repo(self.path());
        let out = call.any_exit().output().await.ok().filter(|out| out.status.success())?;
        let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        let url: GitUrl = text.parse().ok()?;
        (text.starts_with("https://") || url.host() == remote.url.host()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_author_is_blamed_for_a_program_that_this_machine_lacks() {
        assert!(!is_for_good(Class::MissingProgram) && !is_for_good(Class::Unreachable));
        assert!(is_for_good(Class::RefNotFound) && is_for_good(Class::PermissionDenied));
    }
}
