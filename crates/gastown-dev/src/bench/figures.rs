//! What the benches share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::images::{self, Build};
use crate::util;

/// What a bench measured: a table for a person, and the same as JSON for a program.
pub struct Figures {
    /// For the terminal.
    pub table: String,
    /// For a program.
    pub json: serde_json::Value,
    /// What went wrong after the measurement; it is returned last.
    pub error: Option<anyhow::Error>,
}

impl Figures {
    /// Figures without an error.
    pub fn new(table: String, figures: &impl Serialize) -> Result<Self> {
        Ok(Self { table, json: serde_json::to_value(figures)?, error: None })
    }
}

/// A program of this workspace, built as for its image.
pub async fn program(name: &'static str) -> Result<PathBuf> {
    let mut built = programs(&[name], Build::Dev).await?;
    built.remove(name).with_context(|| format!("{name} was not built"))
}

/// Programs of this workspace by name, built together as for their images.
pub async fn programs(names: &[&'static str], build: Build) -> Result<BTreeMap<String, PathBuf>> {
    let all = names.iter().copied().collect();
    let compiling = tokio::task::spawn_blocking(move || {
        util::need_debian(&[("strip", "binutils")])?;
        images::compile(&all, build)
    });
    compiling.await?
}

/// Bytes as MiB.
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
