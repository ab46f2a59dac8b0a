//! Does what `cargo xtask` is asked for; `xtask` starts it when everything that it needs is built.

mod bench;
mod clock;
mod cluster;
mod compat;
mod demo;
mod generate;
mod images;
mod install;
mod lint;
mod test;
mod uninstall;
mod util;

use anyhow::Result;
use clap::Parser as _;
use xtask::cli::{Cli, Command};
use xtask::handover::Handover;

fn main() -> Result<()> {
    let cli = Cli::parse();
    let handover = Handover::from_env();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Cluster(command) => cluster::run(command).await,
            Command::Images(args) => images::run(args).await,
            Command::Install(args) => install::run(args).await,
            Command::Uninstall(args) => uninstall::run(args).await,
            Command::Demo(args) => demo::run(args, handover.clone()).await,
            Command::Test(args) => test::run(&args).await,
            Command::Gen(args) => generate::run(&args),
            Command::Bench(args) => bench::run(args, handover.clone()).await,
            Command::Lint(args) => lint::run(&args).await,
        }
    })?;
    handover.record();
    Ok(())
}
