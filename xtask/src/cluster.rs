//! `cargo xtask cluster`: a real Kubernetes on this machine.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;
use gastown_cluster::cluster::{Cluster, Nodes, Options, default_dir};

/// What to do with the cluster.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Start it, or find it running.
    Up {
        #[command(flatten)]
        place: Place,
        /// `kubelet`: this machine is a node (needs root); `none`: a control plane alone.
        #[arg(long, value_enum, default_value_t)]
        nodes: NodesArg,
    },
    /// Stop it and remove all that it made.
    Down(Place),
    /// Say what runs; exit code 1 unless all of it is ready.
    Status(Place),
    /// Print the variables that make kubectl find it, for `eval "$(cargo xtask cluster env)"`.
    Env(Place),
}

/// Where the cluster is.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The cluster's folder; by default one in the user's cache folder.
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Place {
    fn dir(&self) -> Result<PathBuf> {
        self.dir.clone().map_or_else(default_dir, Ok)
    }
}

/// The word on the command line for [`Nodes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum NodesArg {
    /// One real node.
    #[default]
    Kubelet,
    /// No node.
    None,
}

impl From<NodesArg> for Nodes {
    fn from(word: NodesArg) -> Self {
        match word {
            NodesArg::Kubelet => Self::Kubelet,
            NodesArg::None => Self::None,
        }
    }
}

/// Runs it.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Up { place, nodes } => {
            Cluster::up(Options { dir: place.dir()?, nodes: nodes.into() }, &say).await?;
            Ok(())
        }
        Command::Down(place) => down(place.dir()?).await,
        Command::Status(place) => status(place.dir()?).await,
        Command::Env(place) => env(place.dir()?).await,
    }
}

/// A progress line. Who reads them may stop reading; the work goes on.
fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

async fn down(dir: PathBuf) -> Result<()> {
    if Cluster::down(&dir, &say).await? {
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
            "the cluster in {} is not whole; `cargo xtask cluster up` starts it anew",
            dir.display()
        );
    }
    Ok(())
}

async fn env(dir: PathBuf) -> Result<()> {
    let Some(cluster) = Cluster::find(&dir).await? else {
        bail!("no cluster is up in {}", dir.display())
    };
    for (name, value) in cluster.env() {
        print(&format!("export {name}={}", quoted(&value)));
    }
    Ok(())
}

/// A line for a reader who may have seen enough: `| head -1` is no fault.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A word that a shell takes as it is.
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
