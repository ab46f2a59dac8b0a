//! `cargo xtask bench`: figures of a warm run, in counts, ratios and percentiles.
//!
//! `demo` and `boltons` land changes on a cluster: it is up, the images are on its node and the
//! controllers run before the clock starts. `streams`, `beads` and `landings` load one controller, a
//! process of its own on a control plane without a node. `fleet` loads all of them, on a control plane
//! with fake nodes.

mod beads;
mod figures;
mod fleet;
mod landings;
mod metrics;
mod plan;
mod spread;
mod store;
mod streams;

use anyhow::{Context, Result, bail};
use xtask::cli::{Bench, BenchArgs};
use xtask::handover::Handover;

/// Runs it.
pub async fn run(args: BenchArgs, handover: Handover) -> Result<()> {
    let figures = match &args.bench {
        Bench::Demo(own) => plan::demo(own, handover).await?,
        Bench::Boltons(own) => plan::boltons(own, handover).await?,
        Bench::Streams(own) => unless_interrupted(Box::pin(streams::run(own))).await?,
        Bench::Beads(own) => unless_interrupted(Box::pin(beads::run(own))).await?,
        Bench::Landings(own) => unless_interrupted(Box::pin(landings::run(own))).await?,
        Bench::Fleet(own) => unless_interrupted(Box::pin(fleet::run(own))).await?,
    };
    println!("\n{}", figures.table);
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&figures.json)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    figures.error.map_or(Ok(()), Err)
}

/// Ends early on Ctrl-C: the work is dropped, and what it started ends with it.
async fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}
