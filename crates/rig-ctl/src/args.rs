//! The command line beyond what every controller has.

/// Controller-specific flags.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct RigArgs {}
