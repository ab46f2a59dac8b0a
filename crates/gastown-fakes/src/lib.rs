//! The other side of a connection, for tests and the demo: a git server over HTTP and one over ssh,
//! a scripted Messages API, `bd serve`, a receiver of webhooks, and a kubelet that does what a test
//! says.
//!
//! Each speaks the real protocol; what it answers is the test's to say. Nothing of the operator's
//! own code is here.

pub mod bd_serve;
pub mod callers;
pub mod git_http;
pub mod hooks;
pub mod kubelet;
pub mod messages;
pub mod repository;
pub mod sshd;

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
