//! `cargo xtask cluster`: Kubernetes on this machine.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use gastown_cluster::cluster::{Cluster, Nodes, Options, default_dir};
use xtask::cli::{ClusterCommand, ClusterFolder, NodesArg};

/// Runs it.
pub async fn run(command: ClusterCommand) -> Result<()> {
    match command {
        ClusterCommand::Up { folder, nodes } => {
            let nodes = match nodes {
                NodesArg::Kubelet => Nodes::Kubelet,
                NodesArg::Kwok(count) => Nodes::Kwok(count),
                NodesArg::None => Nodes::None,
            };
            Cluster::up(Options { dir: dir(folder)?, nodes }, &print).await?;
            Ok(())
        }
        ClusterCommand::Down(folder) => down(dir(folder)?).await,
        ClusterCommand::Status(folder) => status(dir(folder)?).await,
        ClusterCommand::Env(folder) => env(dir(folder)?).await,
    }
}

fn dir(folder: ClusterFolder) -> Result<PathBuf> {
    folder.dir.map_or_else(default_dir, Ok)
}

async fn down(dir: PathBuf) -> Result<()> {
    if Cluster::down(&dir, &print).await? {
        println!("stopped");
    } else {
        println!("no cluster in {}", dir.display());
    }
    let left = Cluster::leftovers(&dir).await;
    if !left.is_empty() {
        bail!("still on this machine:\n  {}", left.join("\n  "));
    }
    Ok(())
}

async fn status(dir: PathBuf) -> Result<()> {
    let Some(status) = Cluster::status(&dir).await? else {
        bail!("no cluster in {}", dir.display())
    };
    print(&format!(
        "{}  nodes: {:?}  {}",
        status.server,
        status.nodes,
        if status.ready { "ready" } else { "not ready" }
    ));
    for part in &status.parts {
        let state = if part.running { "running" } else { "ended" };
        print(&format!("  {:<24} {:>8}  {state:<8} {}", part.name, part.pid, part.log.display()));
    }
    if !status.ready {
        bail!(
            "the cluster in {} is incomplete; `cargo xtask cluster up` starts it again",
            dir.display()
        );
    }
    Ok(())
}

async fn env(dir: PathBuf) -> Result<()> {
    let Some(cluster) = Cluster::find(&dir).await? else {
        bail!("no cluster runs in {}", dir.display())
    };
    for (name, value) in cluster.env() {
        print(&format!("export {name}={}", quoted(&value)));
    }
    Ok(())
}

/// Prints a line. A reader may have stopped reading, as `| head -1` does, and the work goes on.
fn print(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// The value in quotes that a shell takes as one word.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_the_shell() {
        let nasty = "/a b/it's $HOME";
        let printed = std::process::Command::new("sh")
            .args(["-c", &format!("printf %s {}", quoted(nasty))])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&printed.stdout), nasty);
    }
}
