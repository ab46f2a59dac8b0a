//! Command line of every controller; each flag can come from the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How lines of the log look.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For a person at a terminal.
    Pretty,
}

/// What every controller can be told.
#[derive(clap::Args, Clone, Debug)]
pub struct RuntimeArgs {
    /// Which spans and lines are logged, in the syntax of tracing's `EnvFilter`
    #[arg(
        long,
        env = "GASTOWN_LOG",
        default_value = "info,hyper=warn,h2=warn,tonic=warn,tower=warn,kube=warn,rustls=warn"
    )]
    pub log: String,
    /// How a line of the log looks
    #[arg(long, env = "GASTOWN_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
    /// Where /livez, /readyz, /metrics and /version are served
    #[arg(long, env = "GASTOWN_ADMIN_ADDR", default_value = "0.0.0.0:8080")]
    pub admin_addr: SocketAddr,
    /// Where gRPC is served, by a controller that serves any
    #[arg(long, env = "GASTOWN_GRPC_ADDR", default_value = "0.0.0.0:9443")]
    pub grpc_addr: SocketAddr,
    /// The namespace of the installation: leases, children of rigs
    #[arg(long, env = "GASTOWN_NAMESPACE", default_value = "gastown-system")]
    pub namespace: String,
    /// Folder with ca.crt, tls.crt and tls.key
    #[arg(long, env = "GASTOWN_TLS_DIR", default_value = "/var/run/gastown/tls")]
    pub tls_dir: PathBuf,
    /// The projected token for calls to other controllers: the file, or a folder that holds it as
    /// `token`
    #[arg(long, env = "GASTOWN_TOKEN_FILE", default_value = "/var/run/gastown/token")]
    pub token_file: PathBuf,
    /// Who holds the lease; by default the host's name and a random suffix
    #[arg(long, env = "GASTOWN_POD_NAME")]
    pub pod_name: Option<String>,
    /// How many objects are reconciled at a time
    #[arg(long, env = "GASTOWN_CONCURRENCY", default_value_t = 8)]
    pub concurrency: u16,
    /// Seconds that running work gets to end after SIGTERM
    #[arg(long, env = "GASTOWN_DRAIN_SECONDS", default_value_t = 20)]
    pub drain_seconds: u64,
}

impl RuntimeArgs {
    /// The holder's name in the lease. A pod's name is reused by the next process in the same pod,
    /// whose predecessor is dead by then, so that it may go on at once; anything else must be
    /// unique a process.
    pub fn identity(&self) -> String {
        if let Some(name) = self.pod_name.as_deref().filter(|name| !name.is_empty()) {
            return name.to_owned();
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        format!("{}-{:08x}", if host.is_empty() { "process" } else { host }, fastrand::u32(..))
    }

    /// How long running work gets to end after SIGTERM.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// The arguments that a bare command line gives. Environment variables count, as they do for a
    /// program.
    pub fn from_env() -> Result<Self, clap::Error> {
        #[derive(clap::Parser)]
        struct Bare {
            #[command(flatten)]
            args: RuntimeArgs,
        }
        <Bare as clap::Parser>::try_parse_from(["gastown"]).map(|bare| bare.args)
    }
}
