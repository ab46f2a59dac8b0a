//! One command for each thing that a developer of the operator does: `cargo xtask --help`.

mod bench;
mod cluster;
mod demo;
mod generate;
mod images;
mod install;
mod lint;
mod test;
mod util;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A real Kubernetes on this machine: up, down, status, env.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Build the OCI images, without a container engine; `--load` puts them on the cluster's node.
    Images(images::Args),
    /// CRDs and chart on a cluster; waits until every controller is ready.
    Install(install::Args),
    /// The main job, from an empty machine to landed branches.
    Demo(demo::Args),
    /// All tests, or one tier of them.
    Test(test::Args),
    /// Write the generated files (CRDs, API reference, RBAC tables), or check that they are fresh.
    Gen(generate::Args),
    /// Figures.
    Bench(bench::Args),
    /// fmt, clippy, deny, shellcheck, helm lint, generated files.
    Lint(lint::Args),
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Cluster(command) => cluster::run(command).await,
            Command::Images(args) => images::run(args).await,
            Command::Install(args) => install::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Test(args) => test::run(&args).await,
            Command::Gen(args) => generate::run(&args),
            Command::Bench(args) => bench::run(args).await,
            Command::Lint(args) => lint::run(&args).await,
        }
    })
}
