//! `cargo xtask test`: every tier, or one.

use anyhow::{Result, bail};
use xtask::cli::{TestArgs, Tier};

use crate::util;

/// The names that test programs have, one a tier but the first.
pub const PROGRAMS: [&str; 3] = ["process", "plane", "e2e"];

/// Runs the tiers in the order of what they cost.
pub async fn run(args: &TestArgs) -> Result<()> {
    let tiers = args
        .tier
        .map_or_else(|| vec![Tier::Unit, Tier::Process, Tier::Plane, Tier::E2e], |t| vec![t]);
    prepare(&tiers).await?;
    // The scenarios call commands of ours; this program is one that is built already.
    let us = std::env::current_exe()?;
    for tier in tiers {
        println!("test: {tier:?}");
        util::run(util::cargo().env("GASTOWN_XTASK", &us).args(command(tier)).args(&args.rest))?;
    }
    Ok(())
}

/// Fetches what the tiers need before the first test runs, so that a test never waits for a build
/// of it.
async fn prepare(tiers: &[Tier]) -> Result<()> {
    if tiers.contains(&Tier::Process) {
        util::need_debian(&[("git", "git"), ("sshd", "openssh-server")])?;
        gastown_cluster::toolchain::helm().await?;
        gastown_cluster::agents::claude_code().await?;
    }
    if tiers.contains(&Tier::Plane) || tiers.contains(&Tier::E2e) {
        gastown_cluster::toolchain::control_plane_binaries().await?;
    }
    if tiers.contains(&Tier::E2e) {
        gastown_cluster::toolchain::node_binaries().await?;
    }
    let data = std::env::var_os("GASTOWN_TEST_DATA")
        .map_or_else(|| util::root().join("../shared/data"), Into::into);
    if !data.is_dir() {
        println!(
            "test: not run: tests that read outside data; {} is not there (set GASTOWN_TEST_DATA)",
            data.display()
        );
        if std::env::var("CI").is_ok_and(|v| v == "true") {
            bail!("under CI=true every test must run: provide GASTOWN_TEST_DATA");
        }
    }
    Ok(())
}

fn command(tier: Tier) -> Vec<&'static str> {
    match tier {
        Tier::Unit => vec!["test", "--workspace", "--lib", "--bins"],
        Tier::Process => vec!["test", "--workspace", "--test", "process"],
        Tier::Plane => vec!["test", "--workspace", "--test", "plane"],
        Tier::E2e => vec!["test", "--workspace", "--test", "e2e", "--", "--test-threads", "1"],
    }
}
