//! The flags of this controller.

use std::path::PathBuf;

/// Controller-specific flags.
#[derive(clap::Args, Clone, Debug)]
pub struct BeadStoreArgs {
    /// The folder of the mirrors of git repositories; a lost mirror is fetched again
    #[arg(long, env = "GASTOWN_DATA_DIR", default_value = "/var/lib/gastown")]
    pub data_dir: PathBuf,
    /// Mebibytes of memory for data that each process of git may take; a repository that needs more is
    /// not fetched
    #[arg(long, env = "GASTOWN_GIT_MEMORY_MIB", default_value_t = 512)]
    pub git_memory_mib: u64,
    /// The URL of witness-ctl, such as https://witness-ctl.gastown-system.svc:9443; without it no
    /// escalations are raised
    #[arg(long, env = "GASTOWN_WITNESS_ENDPOINT")]
    pub witness_endpoint: Option<String>,
}
