//! The flags that every controller has; each can also be set by an environment variable.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::Account;

/// The format of the log.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object on each line.
    #[default]
    Json,
    /// Text for a person at a terminal.
    Pretty,
}

/// The flags that every controller has.
#[derive(clap::Args, Clone, Debug)]
pub struct RuntimeArgs {
    /// Which spans and events are logged, in the syntax of tracing's `EnvFilter`
    #[arg(
        long,
        env = "GASTOWN_LOG",
        default_value = "info,hyper=warn,h2=warn,tonic=warn,tower=warn,kube=warn,rustls=warn"
    )]
    pub log: String,
    /// The format of the log
    #[arg(long, env = "GASTOWN_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
    /// The address that serves /livez, /readyz, /metrics and /version
    #[arg(long, env = "GASTOWN_ADMIN_ADDR", default_value = "0.0.0.0:8080")]
    pub admin_addr: SocketAddr,
    /// The address that serves gRPC, in a controller with a gRPC service
    #[arg(long, env = "GASTOWN_GRPC_ADDR", default_value = "0.0.0.0:9443")]
    pub grpc_addr: SocketAddr,
    /// The namespace of the installation: of leases and of the children of rigs
    #[arg(long, env = "GASTOWN_NAMESPACE", default_value = "gastown-system")]
    pub namespace: String,
    /// The folder of ca.crt, tls.crt and tls.key
    #[arg(long, env = "GASTOWN_TLS_DIR", default_value = "/var/run/gastown/tls")]
    pub tls_dir: PathBuf,
    /// The projected token for requests to other controllers: a file, or a folder with the file
    /// `token`
    #[arg(long, env = "GASTOWN_TOKEN_FILE", default_value = "/var/run/gastown/token")]
    pub token_file: PathBuf,
    /// The service accounts of controllers that have another name than their controller,
    /// comma-separated: polecat-ctl=agents
    #[arg(long, env = "GASTOWN_SERVICE_ACCOUNTS", value_delimiter = ',')]
    pub service_accounts: Vec<Account>,
    /// The name of this process in the lease; by default the host's name and a random suffix
    #[arg(long, env = "GASTOWN_POD_NAME")]
    pub pod_name: Option<String>,
    /// The address at which other pods reach this one; without it nobody is sent here by a replica that
    /// does not work for the rig
    #[arg(long, env = "GASTOWN_POD_IP")]
    pub pod_ip: Option<IpAddr>,
    /// How many objects are reconciled at a time
    #[arg(long, env = "GASTOWN_CONCURRENCY", default_value_t = 8)]
    pub concurrency: u16,
    /// How many seconds running work gets to end after SIGTERM
    #[arg(long, env = "GASTOWN_DRAIN_SECONDS", default_value_t = 20)]
    pub drain_seconds: u64,
}

impl RuntimeArgs {
    /// The name of this process in the lease. A pod's name is reused by the next process in the
    /// same pod, which may go on at once because its predecessor is dead by then; any other name
    /// must be unique to the process.
    pub fn identity(&self) -> String {
        if let Some(name) = self.pod_name.as_deref().filter(|name| !name.is_empty()) {
            return name.to_owned();
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        format!("{}-{:08x}", if host.is_empty() { "process" } else { host }, fastrand::u32(..))
    }

    /// How long running work may take to end after SIGTERM.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// The flags of an empty command line: environment variables, else defaults.
    pub fn from_env() -> Result<Self, clap::Error> {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: RuntimeArgs,
        }
        <Cli as clap::Parser>::try_parse_from(["gastown"]).map(|cli| cli.args)
    }
}
