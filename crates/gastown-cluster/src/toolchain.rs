//! [`gastown_toolchain`] for callers that must not block.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Result;
use gastown_toolchain::{Programs, cache, host};

pub use gastown_toolchain::KUBERNETES_VERSION;
pub(crate) use gastown_toolchain::tail;

/// The helm program: the one on the search path, or ours.
pub async fn helm() -> Result<PathBuf> {
    apart(gastown_toolchain::helm).await
}

/// The folder that holds etcd, kube-apiserver, kube-controller-manager and kubectl:
/// `KUBEBUILDER_ASSETS` when it has all four, or ours.
pub async fn control_plane_binaries() -> Result<PathBuf> {
    apart(|| Programs::ControlPlane.provide()).await
}

/// The folder that holds the programs of a control plane, the scheduler and kwok.
pub async fn fake_node_binaries() -> Result<PathBuf> {
    apart(|| Programs::FakeNodes.provide()).await
}

/// The folder that holds every program of a cluster with a node but runc.
pub async fn node_binaries() -> Result<PathBuf> {
    apart(|| Programs::Node.provide()).await
}

/// The Claude Code program, fetched when it is not in the cache.
pub async fn claude_code() -> Result<PathBuf> {
    apart(gastown_toolchain::claude_code).await
}

/// The jaeger program.
pub async fn jaeger() -> Result<PathBuf> {
    Ok(apart(|| Programs::Jaeger.provide()).await?.join("jaeger"))
}

/// The folder that holds prometheus and promtool: the machine's own, or Debian's, which are fetched when
/// they are not in the cache.
pub async fn prometheus() -> Result<PathBuf> {
    apart(gastown_toolchain::prometheus).await
}

/// Installs the programs that a node calls; what cannot be installed is an error.
pub(crate) async fn need_node_tools() -> Result<()> {
    apart(host::need_node_tools).await
}

/// Makes sure that programs of Debian packages are there; `wanted` pairs a program with the package
/// that holds it.
pub(crate) async fn need_debian(wanted: &'static [(&'static str, &'static str)]) -> Result<()> {
    apart(|| host::need_debian(wanted)).await
}

/// Takes an exclusive lock that ends with the returned file, or with the process.
pub(crate) async fn lock(path: &Path) -> Result<File> {
    let path = path.to_owned();
    apart(move || cache::lock(&path)).await
}

/// Runs what blocks on a thread that may.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}
