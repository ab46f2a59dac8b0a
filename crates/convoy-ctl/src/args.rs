//! The command line beyond what every controller has.

/// Controller-specific flags.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ConvoyArgs {
    /// Where beadstore-ctl serves beads, as https://host:port; by default its Service in the
    /// namespace of the installation
    #[arg(long, env = "GASTOWN_BEADSTORE_ENDPOINT")]
    pub beadstore_endpoint: Option<String>,
}

/// The endpoint of beadstore-ctl. An empty flag, as a chart may set it, is an absent one.
pub(crate) fn endpoint(flag: Option<String>, namespace: &str) -> String {
    flag.filter(|endpoint| !endpoint.is_empty())
        .unwrap_or_else(|| format!("https://beadstore-ctl.{namespace}.svc:9443"))
}
