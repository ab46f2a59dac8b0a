use std::path::PathBuf;

/// What this controller alone is told.
#[derive(clap::Args, Clone, Debug)]
pub struct BeadStoreArgs {
    /// Where mirrors of repositories are kept; what is lost there is fetched again
    #[arg(long, env = "GASTOWN_DATA_DIR", default_value = "/var/lib/gastown")]
    pub data_dir: PathBuf,
}
