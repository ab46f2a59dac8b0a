//! The controller's own flags, and the settings that follow from them.

use std::net::SocketAddr;
use std::path::PathBuf;

use gastown_runtime::network::NetworkArgs;
use gastown_runtime::proxy::ProxyArgs;

/// Controller-specific flags.
#[derive(clap::Args, Clone, Debug)]
pub struct RefineryArgs {
    /// Image that fetches candidates; gates run in it too when their Refinery names no image
    #[arg(long, env = "GASTOWN_AGENT_IMAGE")]
    pub agent_image: String,
    /// A file that names that image in its place, and may name another one later
    #[arg(long, env = "GASTOWN_AGENT_IMAGE_FILE")]
    pub agent_image_file: Option<PathBuf>,
    /// When nodes pull the agent image: Always, IfNotPresent or Never
    #[arg(long, env = "GASTOWN_AGENT_PULL_POLICY", default_value = "IfNotPresent")]
    pub agent_pull_policy: String,
    /// URL of the git endpoint as gate pods reach it: https://host:port
    #[arg(long, env = "GASTOWN_GIT_ENDPOINT")]
    pub git_endpoint: String,
    /// Address on which the git endpoint listens
    #[arg(long, env = "GASTOWN_GIT_ADDR", default_value = "0.0.0.0:9418")]
    pub git_addr: SocketAddr,
    /// URL of witness-ctl, such as https://witness-ctl.gastown-system.svc:9443; without it no
    /// Escalations are raised
    #[arg(long, env = "GASTOWN_WITNESS_ENDPOINT")]
    pub witness_endpoint: Option<String>,
    /// Folder for mirrors of repositories; what is lost there is fetched again
    #[arg(long, env = "GASTOWN_DATA_DIR", default_value = "/var/lib/gastown")]
    pub data_dir: PathBuf,
    /// Seconds that a gate may run
    #[arg(long, env = "GASTOWN_GATE_SECONDS", default_value_t = 3600)]
    pub gate_seconds: u32,
    /// Mebibytes of memory for data that each process of git may take; a repository that needs more is
    /// not fetched
    #[arg(long, env = "GASTOWN_GIT_MEMORY_MIB", default_value_t = 512)]
    pub git_memory_mib: u64,
    /// Mebibytes of memory that building one candidate may take; a request that needs more goes back
    /// to its author
    #[arg(long, env = "GASTOWN_BUILD_MEMORY_MIB", default_value_t = 512)]
    pub build_memory_mib: u64,
    /// Seconds that building one candidate may take
    #[arg(long, env = "GASTOWN_BUILD_SECONDS", default_value_t = 600)]
    pub build_seconds: u64,
    /// The program that builds candidates; by default this one
    #[arg(long, env = "GASTOWN_BUILDER", hide = true)]
    pub builder: Option<PathBuf>,
    /// Leave user and group ids of gates to the platform (OpenShift)
    #[arg(long, env = "GASTOWN_PLATFORM_IDS")]
    pub platform_ids: bool,
    /// The proxy of gates.
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// The network policies of gates.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// The settings of all gates' pods.
#[derive(Clone, Debug)]
pub(crate) struct GateSettings {
    /// The image that fetches candidates, and that gates run in when their Refinery names none.
    pub image: String,
    /// When nodes pull that image.
    pub pull_policy: String,
    /// The URL of the git endpoint.
    pub git_endpoint: String,
    /// How many seconds a gate may run.
    pub seconds: u32,
    /// Whether pods name their user and group; otherwise the platform does.
    pub fixed_ids: bool,
    /// The proxy to other networks.
    pub proxy: ProxyArgs,
    /// The network policies.
    pub network: NetworkArgs,
    /// The namespace of the release.
    pub release: String,
}
