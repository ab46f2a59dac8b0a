//! How much memory and disk the operator's own parts of a pod may use.

/// Memory of the containers with git, and size limits of a pod's volumes.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
pub struct RoomArgs {
    /// Memory limit of git-init, which indexes what is cloned
    #[arg(long, env = "GASTOWN_INIT_MEMORY", default_value = "1Gi")]
    pub init_memory: String,
    /// Memory limit of git-sync
    #[arg(long, env = "GASTOWN_SYNC_MEMORY", default_value = "1Gi")]
    pub sync_memory: String,
    /// Size limit of the workspace where spec.kubernetes.workspaceSize sets none
    #[arg(long, env = "GASTOWN_WORKSPACE_SIZE", default_value = "40Gi")]
    pub workspace_size: String,
    /// Size limit of what is fetched from the remote
    #[arg(long, env = "GASTOWN_UPSTREAM_SIZE", default_value = "20Gi")]
    pub upstream_size: String,
    /// Size limit of the sidecar's own repository and temporary files
    #[arg(long, env = "GASTOWN_PRIVATE_SIZE", default_value = "20Gi")]
    pub private_size: String,
}

impl Default for RoomArgs {
    fn default() -> Self {
        Self {
            init_memory: "1Gi".to_owned(),
            sync_memory: "1Gi".to_owned(),
            workspace_size: "40Gi".to_owned(),
            upstream_size: "20Gi".to_owned(),
            private_size: "20Gi".to_owned(),
        }
    }
}
