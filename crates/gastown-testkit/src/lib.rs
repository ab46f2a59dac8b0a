//! Cluster launcher, git servers, scripted Messages API and fixtures, for tests and the demo.

pub mod agents;
pub mod bd_serve;
pub mod callers;
pub mod cluster;
pub mod control_plane;
pub mod demo;
pub mod git_http;
pub mod ground;
pub mod hooks;
pub mod http_client;
pub mod kubelet;
pub mod messages;
pub mod oci;
pub mod process;
pub mod repository;
pub mod sshd;
pub mod tenant;

/// A folder of the outside test data (`GASTOWN_TEST_DATA`, by default `../shared/data` beside the
/// workspace), or a line that says what is not run for the lack of it. Under `CI=true` `cargo xtask
/// test` refuses to start without the data.
pub fn outside_data(folder: &str) -> Option<std::path::PathBuf> {
    let beside = || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let data = std::env::var_os("GASTOWN_TEST_DATA").map_or_else(beside, Into::into).join(folder);
    if !data.is_dir() {
        println!("not run: outside data is not at {}", data.display());
        return None;
    }
    Some(data)
}
