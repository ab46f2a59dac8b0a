//! The command line.

/// Controller-specific flags: none so far.
#[derive(clap::Args, Clone, Debug)]
pub struct WitnessArgs {}
