use std::net::SocketAddr;
use std::path::PathBuf;

/// What this controller alone is told.
#[derive(clap::Args, Clone, Debug)]
pub struct RefineryArgs {
    /// The image that fetches candidates, and that gates run in when their Refinery names none
    #[arg(long, env = "GASTOWN_AGENT_IMAGE")]
    pub agent_image: String,
    /// When nodes pull that image
    #[arg(long, env = "GASTOWN_AGENT_PULL_POLICY", default_value = "IfNotPresent")]
    pub agent_pull_policy: String,
    /// Where gates' pods reach the git endpoint: https://host:port
    #[arg(long, env = "GASTOWN_GIT_ENDPOINT")]
    pub git_endpoint: String,
    /// Where the git endpoint listens
    #[arg(long, env = "GASTOWN_GIT_ADDR", default_value = "0.0.0.0:9418")]
    pub git_addr: SocketAddr,
    /// Where witness-ctl is heard, such as https://witness-ctl.gastown-system.svc:9443; without it
    /// nobody is told of problem
    #[arg(long, env = "GASTOWN_WITNESS_ENDPOINT")]
    pub witness_endpoint: Option<String>,
    /// Where mirrors of repositories are kept; what is lost there is fetched again
    #[arg(long, env = "GASTOWN_DATA_DIR", default_value = "/var/lib/gastown")]
    pub data_dir: PathBuf,
    /// Seconds that a gate may run
    #[arg(long, env = "GASTOWN_GATE_SECONDS", default_value_t = 3600)]
    pub gate_seconds: u32,
}
