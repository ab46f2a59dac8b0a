//! The flags of this controller.

use std::path::PathBuf;

/// Controller-specific flags.
#[derive(clap::Args, Clone, Debug)]
pub struct BeadStoreArgs {
    /// The folder of the mirrors of git repositories; a lost mirror is fetched again
    #[arg(long, env = "GASTOWN_DATA_DIR", default_value = "/var/lib/gastown")]
    pub data_dir: PathBuf,
    /// The URL of witness-ctl, such as https://witness-ctl.gastown-system.svc:9443; without it no
    /// escalations are raised
    #[arg(long, env = "GASTOWN_WITNESS_ENDPOINT")]
    pub witness_endpoint: Option<String>,
}
