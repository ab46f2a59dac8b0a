//! Three replicas of each controller: any of them may be asked, they divide the work, and each may go.

use std::time::Duration;

use anyhow::Result;
use e2e::environment::{Environment, text};
use e2e::replicas::{REPLICAS, replace_at_random, replace_each, scale};
use gastown_demo::{Plan, Report, Settings, clear, run};
use gastown_fakes::outside_data;

/// The default demo, while a pod of each controller is deleted once.
pub async fn replaced(env: &Environment) -> Result<()> {
    let settings = env.settings("replicas", Duration::from_mins(30));
    let plan = Plan::default_project().await?;
    scale(env, REPLICAS).await?;
    let played = play(env, &settings, &plan).await;
    // The other scenarios know one, whatever became of this one.
    scale(env, 1).await?;
    let report = played?;
    println!("{}", report.table());
    report.check_plan(&plan)?;
    clear(&env.client, &settings).await
}

async fn play(env: &Environment, settings: &Settings, plan: &Plan) -> Result<Report> {
    let playing = run(&env.client, settings.clone(), plan, |line| println!("  {line}"));
    let ((_scenario, report), ()) = tokio::try_join!(playing, replace_each(env))?;
    Ok(report)
}

/// The default demo, then 21 real changes, while pods of all controllers are deleted at random.
pub async fn deleted_at_random(env: &Environment) -> Result<()> {
    let plan = Plan::default_project().await?;
    let settings = env.settings("random", Duration::from_mins(30));
    land_at_random(env, &settings, &plan).await?;
    let Some(data) = outside_data("boltons") else { return Ok(()) };
    let bundle = data.join("boltons.bundle");
    let plan = Plan::load(text(&bundle)?, &data.join("replay.json")).await?;
    let settings = env.settings("random-boltons", Duration::from_hours(1));
    land_at_random(env, &settings, &plan).await
}

async fn land_at_random(env: &Environment, settings: &Settings, plan: &Plan) -> Result<()> {
    scale(env, REPLICAS).await?;
    let playing = run(&env.client, settings.clone(), plan, |line| println!("  {line}"));
    let played = tokio::select! {
        played = playing => played,
        replaced = replace_at_random(env) => replaced.map(|never| match never {}),
    };
    scale(env, 1).await?;
    let (_scenario, report) = played?;
    println!("{}", report.table());
    report.check_plan(plan)?;
    clear(&env.client, settings).await
}
