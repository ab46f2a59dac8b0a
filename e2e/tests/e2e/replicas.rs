//! Three replicas of each controller: any of them may be asked, they divide the work, and each may go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::environment::Environment;
use gastown_api::rbac::Controller;
use gastown_cluster::install::SYSTEM;
use gastown_cluster::shares::{self, Shares, is_even};
use gastown_demo::{Plan, Report, Settings, clear, run};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};

/// How many replicas each controller has.
const REPLICAS: u8 = 3;
/// How long the others may take to divide a replica's shards.
const LIMIT: Duration = Duration::from_mins(3);

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
    report.check()?;
    ensure!(report.changes.len() == 4, "{} of 4 landed", report.changes.len());
    clear(&env.client, &settings).await
}

async fn play(env: &Environment, settings: &Settings, plan: &Plan) -> Result<Report> {
    let playing = run(&env.client, settings.clone(), plan, |line| println!("  {line}"));
    let ((_scenario, report), ()) = tokio::try_join!(playing, replace(env))?;
    Ok(report)
}

async fn scale(env: &Environment, replicas: u8) -> Result<()> {
    let names = Controller::ALL.map(|controller| format!("deployment/{}", controller.name()));
    let replicas = format!("--replicas={replicas}");
    let mut arguments = vec!["scale", "-n", SYSTEM, &replicas];
    arguments.extend(names.iter().map(String::as_str));
    env.kubectl.output(&arguments).await?;
    for name in &names {
        env.kubectl.output(&["rollout", "status", "-n", SYSTEM, name, "--timeout=3m"]).await?;
    }
    Ok(())
}

/// Deletes one pod of each controller, one after the other: the one that has most of the shards.
async fn replace(env: &Environment) -> Result<()> {
    let pods = Api::<Pod>::namespaced(env.client.clone(), SYSTEM);
    for controller in Controller::ALL {
        let name = controller.name();
        let shares = async |wanted: &dyn Fn(&Shares) -> bool| {
            shares::of(env.client.clone(), controller, LIMIT, wanted).await
        };
        let before = shares(&|_| true).await?;
        println!("  {name}: {}", shown(&before));
        let most = before.iter().max_by_key(|(_, shards)| shards.len());
        let (replica, _) = most.context("nobody has a shard")?;
        let pod = replica.rsplit_once('_').map_or(replica.as_str(), |(pod, _)| pod);
        let deleted = pods.delete(pod, &DeleteParams::default()).await;
        deleted.with_context(|| format!("deleting {pod}"))?;
        let deleted = Instant::now();
        shares(&|shares| !shares.contains_key(replica)).await?;
        let handed_over = deleted.elapsed();
        let after = shares(&|shares| is_even(shares, REPLICAS)).await?;
        println!(
            "  {pod} is deleted: all its shards are others' after {handed_over:.1?}, evenly after {:.1?}: {}",
            deleted.elapsed(),
            shown(&after)
        );
    }
    Ok(())
}

fn shown(shares: &Shares) -> String {
    let shown = shares.iter().map(|(replica, shards)| format!("{replica} {}", shards.len()));
    shown.collect::<Vec<_>>().join(", ")
}
