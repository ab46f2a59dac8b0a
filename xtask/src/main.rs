//! `cargo xtask --help`.

mod machine;
mod needs;

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser as _;
use gastown_toolchain::timings::{self, shown};
use xtask::cargo;
use xtask::cli::Cli;
use xtask::handover::{Handover, VARIABLE};

use needs::Needs;

/// The program that does the work.
const WORKER: &str = "gastown-dev";

fn main() -> Result<()> {
    let cli = Cli::parse();
    let mut handover = Handover::default();
    let needs = Needs::of(&cli.command)?;
    announce(&cli, &needs);
    handover.timing = Some(needs.timing(cli.command.name()));
    machine::check(&needs)?;
    let worker = prepare(&needs, &mut handover)?;
    let mut worker = Command::new(worker);
    worker.args(std::env::args_os().skip(1)).env(VARIABLE, handover.to_string());
    Err(worker.exec()).context("starting gastown-dev")
}

/// Prints what takes long before it begins, and how long it is likely to take.
fn announce(cli: &Cli, needs: &Needs) {
    let name = cli.command.name();
    if !needs.missing.is_empty() {
        let parts: Vec<&str> = needs.missing.iter().map(|part| part.name).collect();
        eprintln!("xtask: builds with Go, once: {}", parts.join(", "));
    }
    if needs.claude_code {
        eprintln!("xtask: fetches Claude Code with npm, once");
    }
    if needs.cold {
        eprintln!("xtask: compiles this workspace: nothing of it is compiled yet");
    }
    let (estimate, source) = match timings::last(&needs.timing(name)) {
        Some(last) => (last, "as the last time"),
        None => (needs.expected(), "on a machine with 2 cores"),
    };
    if estimate > Duration::from_secs(10) {
        eprintln!("xtask: `{name}` takes about {} ({source})", shown(estimate));
    }
}

/// Builds what is missing, with Go and cargo side by side, and returns the worker.
fn prepare(needs: &Needs, handover: &mut Handover) -> Result<PathBuf> {
    std::thread::scope(|scope| {
        let toolchain = scope.spawn(|| provide(needs));
        let worker = compile(needs, handover);
        if worker.is_err() && !toolchain.is_finished() {
            eprintln!(
                "xtask: cargo failed; what Go builds is finished first, the next run uses it"
            );
        }
        let parts = toolchain.join().ok().context("the thread of the Go builds ended")?;
        let worker = worker?;
        handover.parts.extend(parts?);
        Ok(worker)
    })
}

fn provide(needs: &Needs) -> Result<Vec<(String, Duration)>> {
    let mut parts = Vec::new();
    let begun = Instant::now();
    if needs.claude_code {
        gastown_toolchain::claude_code()?;
        parts.push(("fetching Claude Code".to_owned(), begun.elapsed()));
    }
    needs.programs.iter().try_for_each(|programs| programs.provide().map(drop))?;
    let took = |part: &gastown_toolchain::Missing| {
        let name = format!("toolchain {}", part.name);
        timings::last(&name).map(|took| (name, took))
    };
    parts.extend(needs.missing.iter().filter_map(took));
    Ok(parts)
}

fn compile(needs: &Needs, handover: &mut Handover) -> Result<PathBuf> {
    let begun = Instant::now();
    let mut command = cargo::command();
    command.arg("build");
    if needs.binaries {
        // All that the images hold, in one run: its crates compile beside each other.
        command.arg("--bins");
    } else {
        command.args(["--bin", WORKER]);
    }
    let mut built = cargo::compile(command, "cargo build")?;
    if begun.elapsed() > Duration::from_secs(5) {
        handover.add("cargo build", begun.elapsed());
    }
    built.remove(WORKER).with_context(|| format!("cargo built no {WORKER}"))
}
