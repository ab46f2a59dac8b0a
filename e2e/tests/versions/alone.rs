//! One controller at a time is of the other version, while changes land.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::environment::{Environment, text};
use gastown_api::rbac::Controller;
use gastown_api::{MergePhase, MergeRequest, Polecat};
use gastown_demo::{Plan, Settings, clear, run};
use gastown_fakes::outside_data;
use kube::Api;
use kube::api::ListParams;

use crate::version::{Version, remove, replace, upgrade};

/// How often the cluster is looked at.
const INTERVAL: Duration = Duration::from_millis(300);

/// All are of the version before, with the roles and the CRDs of the next one, which come first; one after
/// the other is replaced by the next one.
pub async fn next_among_the_ones_before(env: &Environment) -> Result<()> {
    let (before, today) = (Version::before()?, Version::today());
    remove(env).await?;
    today.apply_crds(env).await?;
    upgrade(env, &today, &before).await?;
    land_both(env, &before, &today).await
}

/// All are of the next version; one after the other is replaced by the one before.
pub async fn one_before_among_the_next(env: &Environment) -> Result<()> {
    let (before, today) = (Version::before()?, Version::today());
    remove(env).await?;
    upgrade(env, &today, &today).await?;
    land_both(env, &today, &before).await
}

/// The changes of the demo, among them a rework and a silent agent, and those of a real repository.
async fn land_both(env: &Environment, usual: &Version, other: &Version) -> Result<()> {
    let plan = Plan::default_project().await?;
    land(env, &env.settings("versions", Duration::from_mins(30)), &plan, usual, other).await?;
    let Some(data) = outside_data("boltons") else { return Ok(()) };
    let bundle = data.join("boltons.bundle");
    let plan = Plan::load(text(&bundle)?, &data.join("replay.json")).await?;
    let settings = env.settings("versions-boltons", Duration::from_hours(1));
    land(env, &settings, &plan, usual, other).await
}

async fn land(
    env: &Environment,
    settings: &Settings,
    plan: &Plan,
    usual: &Version,
    other: &Version,
) -> Result<()> {
    let playing = run(&env.client, settings.clone(), plan, |line| println!("  {line}"));
    let replacing = replace_each(env, settings, plan.changes.len(), usual, other);
    let ((scenario, report), ()) = tokio::try_join!(playing, replacing)?;
    println!("{}", report.table());
    report.check_plan(plan)?;
    drop(scenario);
    clear(&env.client, settings).await
}

/// Runs each controller in the other version while its share of the changes lands.
async fn replace_each(
    env: &Environment,
    settings: &Settings,
    changes: usize,
    usual: &Version,
    other: &Version,
) -> Result<()> {
    await_begun(env, settings).await?;
    let share = |n: usize| changes * n / Controller::ALL.len();
    for (n, controller) in Controller::ALL.into_iter().enumerate() {
        await_landed(env, settings, share(n)).await?;
        let landed = landed(env, settings).await?;
        ensure!(landed < changes, "all landed before {} was replaced", controller.name());
        replace(env, controller, other).await?;
        println!("  {} alone is of {} ({landed} landed)", controller.name(), other.tag);
        await_landed(env, settings, share(n + 1)).await?;
        replace(env, controller, usual).await?;
    }
    Ok(())
}

/// Waits until an agent has its pod.
async fn await_begun(env: &Environment, settings: &Settings) -> Result<()> {
    let polecats = Api::<Polecat>::namespaced(env.client.clone(), &settings.namespace);
    let has_pod = |p: &Polecat| p.status.as_ref().is_some_and(|s| s.pod_name.is_some());
    while !polecats.list(&ListParams::default()).await?.iter().any(has_pod) {
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(())
}

async fn await_landed(env: &Environment, settings: &Settings, at: usize) -> Result<()> {
    while landed(env, settings).await? < at {
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(())
}

async fn landed(env: &Environment, settings: &Settings) -> Result<usize> {
    let requests = Api::<MergeRequest>::namespaced(env.client.clone(), &settings.namespace);
    let list = requests.list(&ListParams::default()).await.context("listing requests")?;
    let is_landed =
        |r: &&MergeRequest| r.status.as_ref().and_then(|s| s.phase) == Some(MergePhase::Landed);
    Ok(list.iter().filter(is_landed).count())
}
