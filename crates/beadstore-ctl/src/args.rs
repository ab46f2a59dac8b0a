use std::path::PathBuf;

/// What this controller alone is told.
#[derive(clap::Args, Clone, Debug)]
pub struct BeadStoreArgs {
    /// Where mirrors of repositories are kept; what is lost there is fetched again
    #[arg(long, env = "GASTOWN_DATA_DIR", default_value = "/var/lib/gastown")]
    pub data_dir: PathBuf,
    /// Where witness-ctl is heard, such as https://witness-ctl.gastown-system.svc:9443; without it
    /// nobody is told of trouble
    #[arg(long, env = "GASTOWN_WITNESS_ENDPOINT")]
    pub witness_endpoint: Option<String>,
}
