//! Scenarios with two versions of the operator on a real cluster: today's, and the release before, whose
//! programs are built from the commit of its baseline. What docs/upgrade.md promises is tried here.
//!
//! Arguments choose the scenarios whose names hold one of them.

mod alone;
mod upgrade;
mod version;

use anyhow::Result;
use e2e::environment::{Environment, xtask};
use e2e::scenarios;
use gastown_cluster::baselines::Baseline;

const SCENARIOS: [&str; 3] = [
    "no_pod_restarts_when_the_chart_is_upgraded_and_rolled_back_while_polecats_work",
    "a_convoy_lands_while_one_controller_after_the_other_is_of_the_next_version",
    "a_convoy_lands_while_one_controller_after_the_other_is_of_the_version_before",
];

#[tokio::main]
async fn main() -> Result<()> {
    let chosen = scenarios::chosen(&SCENARIOS, 0)?;
    if chosen.is_empty() {
        return Ok(());
    }
    let env = Environment::with_images().await?;
    let baseline = Baseline::newest()?;
    xtask(&["images", "--baseline", &baseline.version, "--load"]).await?;
    scenarios::run(env, &chosen, play).await
}

async fn play(env: &Environment, name: &str) -> Result<()> {
    match SCENARIOS.iter().position(|s| *s == name) {
        Some(0) => Box::pin(upgrade::upgraded_and_back(env)).await,
        Some(1) => Box::pin(alone::next_among_the_ones_before(env)).await,
        _ => Box::pin(alone::one_before_among_the_next(env)).await,
    }
}
