//! `cargo xtask`: one command for each thing that a developer of the operator does.
//!
//! This package is small, so that it answers within seconds on a fresh machine. It knows the command
//! line, checks what the machine brings, builds what is missing with Go and cargo side by side, and
//! hands over to `gastown-dev`, which does the work.

pub mod cargo;
pub mod cli;
pub mod handover;

use std::path::{Path, PathBuf};

/// The workspace's top folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
