//! Runs commands as a person types them: with the real kubectl and helm on the path, against a
//! plane of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, bail};
use gastown_cluster::control_plane::{ControlPlane, Options};
use gastown_cluster::toolchain;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A shell with a plane.
pub struct Shell {
    plane: ControlPlane,
    /// kubectl and helm, and nothing else of ours.
    bin: TempDir,
    home: TempDir,
    /// Where commands run: the tree's files are here by links, so that what a command writes beside
    /// them stays out of the tree.
    folder: TempDir,
}

/// The top folder of the tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

impl Shell {
    /// A plane that nobody else uses: what is typed changes the whole cluster.
    pub async fn new() -> Result<Self> {
        let plane = ControlPlane::start(Options::default()).await?;
        let bin = tempfile::tempdir()?;
        let kubectl = toolchain::control_plane_binaries().await?.join("kubectl");
        std::os::unix::fs::symlink(kubectl, bin.path().join("kubectl"))?;
        std::os::unix::fs::symlink(toolchain::helm().await?, bin.path().join("helm"))?;
        let folder = tempfile::tempdir()?;
        for entry in std::fs::read_dir(root())? {
            let entry = entry?;
            std::os::unix::fs::symlink(entry.path(), folder.path().join(entry.file_name()))?;
        }
        Ok(Self { plane, bin, home: tempfile::tempdir()?, folder })
    }

    /// Runs a script of `bash -euo pipefail` as in the top folder, and returns what it printed.
    pub async fn run(&self, script: &str) -> Result<String> {
        let out = self.output(script, "").await?;
        succeeded(script, &out)
    }

    /// Runs a script on what it reads from its standard input.
    pub async fn run_on(&self, script: &str, input: &str) -> Result<String> {
        let out = self.output(script, input).await?;
        succeeded(script, &out)
    }

    async fn output(&self, script: &str, input: &str) -> Result<Output> {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(self.folder.path());
        command.env("PATH", format!("{}:{path}", self.bin.path().display()));
        command.env("KUBECONFIG", self.plane.kubeconfig()).env("HOME", self.home.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().context("starting bash")?;
        let mut stdin = child.stdin.take().context("bash has no standard input")?;
        let (written, out) = tokio::join!(
            async move { stdin.write_all(input.as_bytes()).await },
            child.wait_with_output()
        );
        let out = out?;
        // A script that does not read its input has closed it.
        if out.status.success() && !input.is_empty() {
            written.context("writing the script's input")?;
        }
        Ok(out)
    }
}

fn succeeded(script: &str, out: &Output) -> Result<String> {
    let printed = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        let errors = String::from_utf8_lossy(&out.stderr);
        bail!("{}:\n{script}\n{printed}\n{errors}", out.status);
    }
    Ok(printed)
}
