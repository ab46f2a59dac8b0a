//! `cargo xtask bench`: figures of a warm run, in counts, ratios and percentiles.
//!
//! `demo` and `boltons` land changes on a cluster: it is up, the images are on its node and the
//! controllers run before the clock starts. `streams` and `beads` load one controller, a
//! process of its own on a control plane without a node.

mod beads;
mod metrics;
mod plan;
mod spread;
mod streams;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use xtask::cli::{Bench, BenchArgs};
use xtask::handover::Handover;

use crate::images::{self, Build};
use crate::util;

/// What a bench measured: a table for a person, and the same as JSON for a program.
struct Figures {
    table: String,
    json: serde_json::Value,
    /// What went wrong after the measurement; it is returned last.
    error: Option<anyhow::Error>,
}

impl Figures {
    fn new(table: String, figures: &impl Serialize) -> Result<Self> {
        Ok(Self { table, json: serde_json::to_value(figures)?, error: None })
    }
}

/// Runs it.
pub async fn run(args: BenchArgs, handover: Handover) -> Result<()> {
    let figures = match &args.bench {
        Bench::Demo(own) => plan::demo(own, handover).await?,
        Bench::Boltons(own) => plan::boltons(own, handover).await?,
        Bench::Streams(own) => unless_interrupted(Box::pin(streams::run(own))).await?,
        Bench::Beads(own) => unless_interrupted(Box::pin(beads::run(own))).await?,
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

/// A program of this workspace, built as for its image.
async fn program(name: &'static str) -> Result<PathBuf> {
    let built = tokio::task::spawn_blocking(move || {
        util::need_debian(&[("strip", "binutils")])?;
        images::compile(&[name].into(), Build::Dev)
    });
    built.await??.remove(name).with_context(|| format!("{name} was not built"))
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
