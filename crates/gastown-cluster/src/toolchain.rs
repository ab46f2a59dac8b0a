//! The binaries that a cluster is made of: found, or built once and kept in the user's cache
//! folder.
//!
//! Each part is built from its public Go module with the `go.mod` and `go.sum` of `toolchain/<part>`,
//! which are compiled into this library. What is built lies under a key made of those files, so a
//! changed version never meets old binaries and a fresh checkout finds what another one built.

mod host;
mod parts;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

pub use host::{need_debian, need_node_tools};
use parts::{CNI, CONTAINERD, CONTROL_PLANE, COREDNS, ETCD, HELM, NODE, Part, RUNC};

/// The version that the Kubernetes binaries report, and that nodes show.
pub use parts::KUBERNETES_VERSION;

/// How often a long build says that it goes on.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The helm program: the one on the search path, or ours.
pub async fn helm() -> Result<PathBuf> {
    if let Some(found) = host::find("helm") {
        return Ok(found);
    }
    Ok(provide(&[&HELM]).await?.join("helm"))
}

/// The folder that holds etcd, kube-apiserver, kube-controller-manager and kubectl:
/// `KUBEBUILDER_ASSETS` when it has all four, or ours.
pub async fn control_plane_binaries() -> Result<PathBuf> {
    if let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from)
        && [&ETCD, &CONTROL_PLANE].iter().all(|part| part.is_in(&assets))
    {
        return Ok(assets);
    }
    provide(&[&ETCD, &CONTROL_PLANE]).await
}

/// The folder that holds everything of a cluster with a node: the control plane's binaries, the
/// scheduler, kubelet, kube-proxy, containerd with its shim and client, runc, the CNI plugins and
/// CoreDNS.
pub async fn node_binaries() -> Result<PathBuf> {
    provide(&[&ETCD, &CONTROL_PLANE, &NODE, &CONTAINERD, &RUNC, &CNI, &COREDNS]).await
}

/// The user's cache folder for this project.
pub fn cache_dir() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    Ok(cache
        .context("neither XDG_CACHE_HOME nor HOME says where the cache folder is")?
        .join("gastown"))
}

/// Builds what lacks of the wanted parts, one process at a time, and answers with the folder that
/// holds them all.
async fn provide(wanted: &[&Part]) -> Result<PathBuf> {
    let ground = cache_dir()?.join("ground").join(key());
    let bin = ground.join("bin");
    if wanted.iter().all(|part| part.is_in(&bin)) {
        return Ok(bin);
    }
    std::fs::create_dir_all(&bin).with_context(|| format!("making {}", bin.display()))?;
    let _lock = lock(&ground.join("lock")).await?;
    for part in wanted {
        // Asked again under the lock: another process may have built it while this one waited.
        if !part.is_in(&bin) {
            build(part, &ground, &bin).await?;
        }
    }
    Ok(bin)
}

/// Names the folder of one set of versions.
fn key() -> String {
    let mut hash = Sha256::new();
    for part in [&ETCD, &CONTROL_PLANE, &NODE, &CONTAINERD, &RUNC, &CNI, &COREDNS, &HELM] {
        for text in [part.name, part.go_mod, part.go_sum, part.ldflags, part.tags] {
            hash.update(text.as_bytes());
            hash.update([0]);
        }
    }
    hash.finalize().iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Takes an exclusive lock that ends with the returned file, or with the process.
pub(crate) async fn lock(path: &Path) -> Result<File> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("waiting for another process, which holds {}", path.display());
            file.lock().with_context(|| format!("locking {}", path.display()))?;
        }
        Ok(file)
    })
    .await?
}

/// Builds one part in a folder of its own and renames its binaries into place one by one.
async fn build(part: &Part, ground: &Path, bin: &Path) -> Result<()> {
    host::need_go()?;
    if part.cgo {
        host::need_seccomp().await?;
    }
    eprintln!("building {} (once; kept in {})", part.name, bin.display());
    let started = Instant::now();
    let module = tempfile::Builder::new()
        .prefix("build-")
        .tempdir_in(ground)
        .context("making a folder to build in")?;
    tokio::fs::write(module.path().join("go.mod"), part.go_mod).await?;
    tokio::fs::write(module.path().join("go.sum"), part.go_sum).await?;
    let out = module.path().join("bin");
    tokio::fs::create_dir(&out).await?;
    let mut go = Command::new("go");
    go.args(go_arguments(part, &out)).args(part.packages());
    go.current_dir(module.path()).env("CGO_ENABLED", if part.cgo { "1" } else { "0" });
    // A workspace or flags of the user's own must not change what is built.
    go.env("GOWORK", "off").env("GOFLAGS", "-mod=readonly").stdin(Stdio::null()).kill_on_drop(true);
    run_with_progress(go, part.name).await?;
    for (made, wanted) in part.binaries() {
        let from = out.join(made);
        tokio::fs::rename(&from, bin.join(wanted))
            .await
            .with_context(|| format!("go build made no {}", from.display()))?;
    }
    eprintln!("built {} in {} s", part.name, started.elapsed().as_secs());
    Ok(())
}

/// Runs `go build -v`, which names each package that it compiles: the count tells that it has not
/// stopped.
async fn run_with_progress(mut go: Command, name: &str) -> Result<()> {
    let mut child =
        go.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("starting go")?;
    let mut said = BufReader::new(child.stderr.take().context("go has no standard error")?).lines();
    let (mut last, mut count, mut told) = (VecDeque::new(), 0_u32, Instant::now());
    while let Some(line) = said.next_line().await? {
        count += 1;
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            eprintln!("  {name}: {count} packages compiled");
        }
        last.push_back(line);
        if last.len() > 30 {
            last.pop_front();
        }
    }
    let status = child.wait().await?;
    if !status.success() {
        bail!("building {name} failed ({status}):\n{}", Vec::from(last).join("\n"));
    }
    Ok(())
}

fn go_arguments(part: &Part, out: &Path) -> Vec<OsString> {
    let mut ldflags = String::from("-s -w");
    if !part.ldflags.is_empty() {
        ldflags = format!("{ldflags} {}", part.ldflags);
    }
    let mut arguments: Vec<OsString> =
        ["build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", &ldflags]
            .iter()
            .map(Into::into)
            .collect();
    if !part.tags.is_empty() {
        arguments.extend(["-tags".into(), part.tags.into()]);
    }
    // The folder's slash is what tells `go build` to put a single package into it instead of naming
    // it so.
    let mut folder = out.as_os_str().to_owned();
    folder.push("/");
    arguments.extend(["-o".into(), folder]);
    arguments
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_package_is_built_into_a_folder_with_its_flags() {
        let arguments = go_arguments(&RUNC, Path::new("/x/bin"));
        let text: Vec<_> = arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect();
        assert_eq!(
            text,
            [
                "build",
                "-v",
                "-trimpath",
                "-buildvcs=false",
                "-ldflags",
                "-s -w",
                "-tags",
                "seccomp",
                "-o",
                "/x/bin/"
            ]
        );
    }

    #[test]
    fn kubernetes_says_its_version() {
        let arguments = go_arguments(&CONTROL_PLANE, Path::new("/x"));
        assert!(
            arguments.iter().any(|a| a.to_string_lossy().ends_with("version.gitVersion=v1.36.3")),
            "{arguments:?}"
        );
    }

    #[test]
    fn the_key_is_a_folder_name_and_does_not_change_by_itself() {
        assert_eq!(key(), key());
        assert_eq!(key().len(), 16);
        assert!(key().chars().all(|c| c.is_ascii_hexdigit()));
    }

    #[test]
    fn the_version_is_the_one_that_the_module_file_asks_for() {
        assert!(CONTROL_PLANE.go_mod.contains(&format!("k8s.io/kubernetes {KUBERNETES_VERSION}")));
    }

    #[test]
    fn every_package_is_a_tool_of_its_module_file() {
        for part in [&ETCD, &CONTROL_PLANE, &NODE, &CONTAINERD, &RUNC, &CNI, &COREDNS, &HELM] {
            for package in part.packages() {
                assert!(
                    part.go_mod.contains(package),
                    "{package} is not in toolchain/{}/go.mod",
                    part.name
                );
            }
        }
    }

    #[test]
    fn a_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 5), "a");
    }
}
