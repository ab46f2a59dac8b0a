//! kubectl, for port forwarding and the logs of controllers.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use gastown_cluster::toolchain;

/// How long a tunnel may take to open.
const DEADLINE: Duration = Duration::from_mins(1);

/// kubectl for one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

/// A tunnel from a free port of this machine into a pod; dropping it closes it.
#[derive(Debug)]
pub struct Forward {
    /// The port on 127.0.0.1.
    pub port: u16,
    _child: Child,
}

impl Kubectl {
    /// The kubectl on the search path, or the one that our own cluster is built with.
    pub async fn find(kubeconfig: &Path) -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|d| d.join("kubectl")).find(|p| p.is_file());
        let program = match found {
            Some(program) => program,
            None => toolchain::control_plane_binaries().await?.join("kubectl"),
        };
        Ok(Self { program, kubeconfig: kubeconfig.to_owned() })
    }

    /// A command for this cluster.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end and returns what it printed.
    pub async fn output(&self, args: &[&str]) -> Result<String> {
        let out = self
            .command(args)
            .output()
            .await
            .with_context(|| format!("starting {}", self.program.display()))?;
        if !out.status.success() {
            bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Opens a tunnel to a port of a pod (`pod/NAME`, `deployment/NAME`).
    pub async fn forward(&self, namespace: &str, target: &str, port: u16) -> Result<Forward> {
        let what = format!("a tunnel to port {port} of {target} in {namespace}");
        let mut command = self.command(&[
            "--namespace",
            namespace,
            "port-forward",
            "--address",
            "127.0.0.1",
            target,
            &format!(":{port}"),
        ]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| what.clone())?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let first = tokio::time::timeout(DEADLINE, lines.next_line())
            .await
            .with_context(|| format!("{what}: kubectl printed nothing"))??;
        let local = first.as_deref().and_then(local_port);
        let Some(local) = local else {
            let out = child.wait_with_output().await?;
            bail!("{what}: {}", String::from_utf8_lossy(&out.stderr).trim());
        };
        // It prints a line for each connection and stops when nothing reads them.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let mut errors = BufReader::new(child.stderr.take().context("no errors")?).lines();
        tokio::spawn(async move { while let Ok(Some(_)) = errors.next_line().await {} });
        Ok(Forward { port: local, _child: child })
    }
}

/// The port in `Forwarding from 127.0.0.1:40123 -> 8080`.
fn local_port(line: &str) -> Option<u16> {
    line.split(" -> ").next()?.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::local_port;

    #[test]
    fn the_port_is_read_from_kubectls_output() {
        assert_eq!(local_port("Forwarding from 127.0.0.1:40123 -> 8080"), Some(40123));
        assert_eq!(local_port("error: lost"), None);
    }
}
