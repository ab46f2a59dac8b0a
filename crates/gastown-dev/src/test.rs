//! `cargo xtask test`: runs every tier, or one.

mod rights;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use gastown_cluster::control_plane::audit;
use xtask::cli::{TestArgs, Tier};

use crate::util;

/// The folders of the outside data that tests read.
const OUTSIDE_DATA: [&str; 3] = ["beads", "boltons", "known_hosts"];

/// The names of test programs: one for each tier but the first.
pub const PROGRAMS: [&str; 4] = ["process", "plane", "e2e", "versions"];

/// Runs the tiers, the cheapest first. Two versions are run beside each other only when that is asked for:
/// the earlier one has to be compiled first.
pub async fn run(args: &TestArgs) -> Result<()> {
    let tiers = args
        .tier
        .map_or_else(|| vec![Tier::Unit, Tier::Process, Tier::Plane, Tier::E2e], |t| vec![t]);
    prepare(&tiers).await?;
    // The end-to-end scenarios run commands of ours, for which this program is built already.
    let us = std::env::current_exe()?;
    let records = tempfile::tempdir().context("a folder for the records of API servers")?;
    for tier in &tiers {
        println!("test: {tier:?}");
        let (selection, arguments) = selection(*tier);
        let test = || {
            let mut cargo = util::cargo();
            // All that fails is found in one run.
            cargo.args(["test", "--workspace", "--no-fail-fast"]).args(selection);
            cargo
        };
        let mut compile = test();
        compile.arg("--no-run");
        xtask::cargo::compile(compile, "test: cargo build")?;
        let mut run = test();
        run.env(audit::FOLDER, records.path());
        run.env("GASTOWN_XTASK", &us).args(arguments).args(&args.rest);
        if args.all {
            run.env("GASTOWN_MATRIX", "all");
        }
        util::run(&mut run)?;
    }
    if tiers.contains(&Tier::Plane) {
        compare_rights(records.path(), args.rest.is_empty())?;
    }
    Ok(())
}

/// Compares what the controllers did in all tests of the control plane with what their roles allow.
fn compare_rights(records: &Path, is_whole: bool) -> Result<()> {
    if !is_whole {
        println!("test: rights are not compared with their use: only some tests ran");
        return Ok(());
    }
    let complaints = rights::Record::read(records)?.complaints();
    ensure!(
        complaints.is_empty(),
        "rights (crates/gastown-api/src/rbac.rs) that no test of the control plane needs, or that are missing:\n{}",
        complaints.join("\n")
    );
    println!("test: every right of every controller was used");
    Ok(())
}

/// Fetches what the tiers need before the first test runs, so that a test never waits for a build
/// of it.
async fn prepare(tiers: &[Tier]) -> Result<()> {
    if tiers.contains(&Tier::Process) {
        util::need_debian(&[("git", "git"), ("sshd", "openssh-server"), ("git-lfs", "git-lfs")])?;
        gastown_cluster::toolchain::helm().await?;
        gastown_cluster::agents::claude_code().await?;
    }
    let on_node = tiers.contains(&Tier::E2e) || tiers.contains(&Tier::Versions);
    if tiers.contains(&Tier::Plane) || on_node {
        gastown_cluster::toolchain::control_plane_binaries().await?;
    }
    if on_node {
        gastown_cluster::toolchain::node_binaries().await?;
    }
    check_data(&gastown_fakes::outside_data_dir(), gastown_fakes::is_ci())
}

/// Names the folders of outside data that are missing or empty: their tests do not run. Under CI
/// that is an error.
fn check_data(data: &Path, is_ci: bool) -> Result<()> {
    let is_there =
        |folder: &Path| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    let missing: Vec<&str> =
        OUTSIDE_DATA.into_iter().filter(|folder| !is_there(&data.join(folder))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text = format!(
        "tests that read outside data do not run: {} has no {} (set GASTOWN_TEST_DATA)",
        data.display(),
        missing.join(", ")
    );
    if is_ci {
        bail!("{text}; under CI=true every test must run");
    }
    println!("test: {text}");
    Ok(())
}

/// The test programs of a tier, and further arguments for `cargo test`.
fn selection(tier: Tier) -> (&'static [&'static str], &'static [&'static str]) {
    match tier {
        Tier::Unit => (&["--lib", "--bins"], &[]),
        Tier::Process => (&["--test", "process"], &[]),
        Tier::Plane => (&["--test", "plane"], &[]),
        Tier::E2e => (&["--test", "e2e"], &["--", "--test-threads", "1"]),
        Tier::Versions => (&["--test", "versions"], &["--", "--test-threads", "1"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_folder_of_outside_data_is_a_failure_under_ci_alone() {
        let data = tempfile::tempdir().unwrap();
        for folder in OUTSIDE_DATA {
            std::fs::create_dir(data.path().join(folder)).unwrap();
            std::fs::write(data.path().join(folder).join("file"), "x").unwrap();
        }
        check_data(data.path(), true).unwrap();
        std::fs::remove_file(data.path().join("boltons/file")).unwrap();
        check_data(data.path(), false).unwrap();
        let error = check_data(data.path(), true).unwrap_err().to_string();
        assert!(error.contains("boltons") && !error.contains("beads"), "{error}");
    }
}
