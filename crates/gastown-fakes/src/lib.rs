//! The other side of a connection, for tests and the demo: a git server over HTTP and one over ssh, a
//! scripted Messages API, `bd serve`, a receiver of webhooks, a collector of traces, an OCI registry, a
//! kubelet that a test controls, a connection to the API server on which a process can end, and stores of
//! watched objects.
//!
//! Each speaks the real protocol; the test decides its answers. This crate must not know the
//! operator's own code.

pub mod bd_serve;
pub mod black_hole;
pub mod callers;
pub mod collector;
pub mod connection;
pub mod git_http;
pub mod hooks;
pub mod kills;
pub mod kubelet;
pub mod messages;
pub mod registry;
pub mod repository;
pub mod sshd;
pub mod stores;

use std::path::{Path, PathBuf};

/// The folder of the outside test data: `GASTOWN_TEST_DATA`, by default `../shared/data` beside the
/// workspace.
pub fn outside_data_dir() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    std::env::var_os("GASTOWN_TEST_DATA").map_or_else(beside, Into::into)
}

/// One folder of the outside test data. Without it a line is printed, and the test returns.
///
/// # Panics
///
/// Under `CI=true`, where every test must run.
pub fn outside_data(folder: &str) -> Option<PathBuf> {
    let data = outside_data_dir().join(folder);
    if data.is_dir() {
        return Some(data);
    }
    let missing = format!("not run: the outside data is not at {}", data.display());
    assert!(!is_ci(), "{missing}; under CI=true every test must run");
    println!("{missing}");
    None
}

/// Whether everything that cannot run is a failure.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}
