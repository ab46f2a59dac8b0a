//! The images that a cluster itself needs, and loading images into its node.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

use super::config::{PAUSE_IMAGE, Paths};
use super::{command, dns};
use crate::oci::{self, ImageBuilder};

/// Builds and loads the sandbox's image and the name server's.
pub async fn load_own(paths: &Paths, snapshotter: &str) -> Result<()> {
    let pause = pause_program(&paths.bin).await?;
    load_program(paths, snapshotter, PAUSE_IMAGE, &pause, "pause").await?;
    load_program(paths, snapshotter, dns::IMAGE, &paths.bin.join("coredns"), "coredns").await
}

/// An image of one static program.
async fn load_program(
    paths: &Paths,
    snapshotter: &str,
    image: &str,
    program: &Path,
    name: &str,
) -> Result<()> {
    let tar = paths.dir.join(format!("{name}.tar"));
    let inside = format!("/{name}");
    let builder = ImageBuilder::new(image)
        .layer_from_files(&[(inside.as_str(), program, 0o755)])
        .entrypoint([inside.clone()]);
    let (builder, path) = (builder.user("65532:65532"), tar.clone());
    tokio::task::spawn_blocking(move || builder.write(&path)).await??;
    load(paths, snapshotter, &tar).await?;
    std::fs::remove_file(&tar).with_context(|| format!("removing {}", tar.display()))
}

/// Loads an OCI layout tar, unless the node has exactly this image; returns whether it had to.
pub async fn load(paths: &Paths, snapshotter: &str, tar: &Path) -> Result<bool> {
    let layout = tar.to_owned();
    let (name, digest) = tokio::task::spawn_blocking(move || oci::identify(&layout)).await??;
    let filter = format!("name=={name}");
    let listed = ctr(paths, &["images", "list", &filter]).await?;
    if listed
        .lines()
        .any(|line| line.starts_with(&format!("{name} ")) && line.contains(digest.as_str()))
    {
        return Ok(false);
    }
    let tar = tar.to_string_lossy();
    ctr(paths, &["images", "import", "--local", "--snapshotter", snapshotter, &tar])
        .await
        .with_context(|| format!("loading {name}"))?;
    Ok(true)
}

/// Runs containerd's client in the namespace of Kubernetes.
pub async fn ctr(paths: &Paths, arguments: &[&str]) -> Result<String> {
    let (program, socket) = (paths.bin.join("ctr"), paths.socket());
    let (program, socket) = (program.to_string_lossy(), socket.to_string_lossy());
    let mut all = vec!["-a", &*socket, "-n", "k8s.io"];
    all.extend(arguments);
    command::output(&program, &all).await
}

/// The sandbox's program: built by the cargo that builds this workspace, once for each version of its
/// source, and kept beside the other binaries.
async fn pause_program(bin: &Path) -> Result<PathBuf> {
    let text = oci::Digest::of(include_bytes!("../bin/pause.rs"));
    let hash: String = text.as_str().chars().rev().take(12).collect();
    let kept = bin.join(format!("pause-{hash}"));
    if !kept.is_file() {
        let new = bin.join(format!("pause-{hash}.{}", std::process::id()));
        std::fs::copy(build_pause().await?, &new).context("keeping the pause program")?;
        std::fs::rename(&new, &kept).context("keeping the pause program")?;
    }
    Ok(kept)
}

async fn build_pause() -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Of the whole workspace, not of one package: so its features are those of every other build, and
    // the program is there already or costs one link.
    cargo.args(["build", "--bin", "pause", "--message-format", "json-render-diagnostics"]);
    cargo
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let built = cargo.output().await.context("starting cargo")?;
    if !built.status.success() {
        bail!(
            "building the pause program failed:\n{}",
            crate::toolchain::tail(&String::from_utf8_lossy(&built.stderr), 30)
        );
    }
    executable(&String::from_utf8_lossy(&built.stdout)).context("cargo named no pause program")
}

/// The path of the pause program in cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut built = messages
        .filter(|m| m["target"]["name"] == "pause")
        .filter_map(|m| Some(m["executable"].as_str()?.into()));
    built.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_read_from_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"x\"},\"executable\":\"/x\"}\nnoise\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"pause\"},\"executable\":\"/t/pause\"}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/pause")));
        assert_eq!(executable("{}"), None);
    }
}
