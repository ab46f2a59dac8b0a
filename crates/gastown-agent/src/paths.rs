//! The paths of the pod's files (the volume table of `docs/contracts/pod.md`).

use std::path::{Path, PathBuf};

/// The pod's folders, all under one root so that a test can run the real program beside others.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
    termination_log: PathBuf,
}

impl Paths {
    /// From `GASTOWN_ROOT` (default `/`) and `GASTOWN_TERMINATION_LOG` (default
    /// `/dev/termination-log`, never under the root).
    pub fn from_env() -> Self {
        let set = |key| std::env::var_os(key).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self {
            root: set("GASTOWN_ROOT").unwrap_or_else(|| PathBuf::from("/")),
            termination_log: set("GASTOWN_TERMINATION_LOG")
                .unwrap_or_else(|| PathBuf::from("/dev/termination-log")),
        }
    }

    /// Everything under `root`; the termination message goes to `termination_log`.
    #[cfg(test)]
    pub(crate) fn under(root: &Path, termination_log: &Path) -> Self {
        Self { root: root.to_owned(), termination_log: termination_log.to_owned() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The file for the container's termination message.
    pub fn termination_log(&self) -> &Path {
        &self.termination_log
    }
    /// The sidecar's own bare repository.
    pub fn private_repo(&self) -> PathBuf {
        self.at("gastown/private/repo.git")
    }
    /// HOME of every program that the sidecar starts.
    pub fn private_home(&self) -> PathBuf {
        self.at("gastown/private/home")
    }
    /// Temporary files of the sidecar: copies of the agent's objects, packs that are not checked yet.
    pub fn private_tmp(&self) -> PathBuf {
        self.at("gastown/private/tmp")
    }
    /// The sidecar's state file.
    pub fn state(&self) -> PathBuf {
        self.at("gastown/private/state.json")
    }
    /// The file in which the sidecar states whether everything is saved: empty, or why not.
    pub fn unsaved(&self) -> PathBuf {
        self.at("gastown/private/unsaved")
    }
    /// The target branch, kept fresh; read-only for the agent.
    pub fn upstream_repo(&self) -> PathBuf {
        self.at("gastown/upstream/upstream.git")
    }
    /// The repositories of submodules; read-only for the agent.
    pub fn upstream_modules(&self) -> PathBuf {
        self.at("gastown/upstream/modules")
    }
    /// The volume that the agent writes to.
    pub fn workspace(&self) -> PathBuf {
        self.at("workspace")
    }
    /// The agent's `origin`.
    pub fn origin_repo(&self) -> PathBuf {
        self.at("workspace/origin.git")
    }
    /// The agent's clone.
    pub fn worktree(&self) -> PathBuf {
        self.at("workspace/repo")
    }
    /// The folder of the socket and of the file of `gt done`, shared by the sidecar and the agent.
    pub fn run_dir(&self) -> PathBuf {
        self.at("gastown/run")
    }
    /// The sidecar's socket.
    pub fn socket(&self) -> PathBuf {
        self.at("gastown/run/sync.sock")
    }
    /// The file that `gt done` writes for `gt run`.
    pub fn done_file(&self) -> PathBuf {
        self.at("gastown/run/verdict.json")
    }
    /// The folder of our programs in the agent's container.
    pub fn tools_bin(&self) -> PathBuf {
        self.at("gastown/tools/bin")
    }
    /// The file with the reason why the agent must stop now; empty or missing while it may run.
    pub fn drain(&self) -> PathBuf {
        self.at("gastown/pod/drain")
    }
    /// The Secret with the git credentials.
    pub fn git_creds(&self) -> PathBuf {
        self.at("git-creds")
    }
    /// The ConfigMap with further known hosts.
    pub fn known_hosts_dir(&self) -> PathBuf {
        self.at("ssh-known-hosts")
    }
    /// The ConfigMap with certificates of further authorities.
    pub fn git_ca_dir(&self) -> PathBuf {
        self.at("git-ca")
    }
    /// The Secret with the agent's credentials.
    pub fn claude_creds(&self) -> PathBuf {
        self.at("claude-creds/.credentials.json")
    }
    /// The folder in memory for the copy of the agent's credentials, which the agent may renew.
    pub fn agent_login(&self) -> PathBuf {
        self.at("gastown/login")
    }
    /// The agent's HOME.
    pub fn agent_home(&self) -> PathBuf {
        self.at("home/nonroot")
    }
}
