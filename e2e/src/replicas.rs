//! Several replicas of each controller, of which any may go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gastown_api::rbac::Controller;
use gastown_cluster::install::SYSTEM;
use gastown_cluster::shares::{self, Shares, is_even};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};

use crate::environment::Environment;

/// How many replicas each controller has.
pub const REPLICAS: u8 = 3;
/// How long the others may take to divide a replica's shards.
const LIMIT: Duration = Duration::from_mins(3);

/// Gives all controllers so many replicas and waits until they are ready.
pub async fn scale(env: &Environment, replicas: u8) -> Result<()> {
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
pub async fn replace_each(env: &Environment) -> Result<()> {
    for controller in Controller::ALL {
        let before = shares(env, controller, |_| true).await?;
        println!("  {}: {}", controller.name(), shown(&before));
        let most = before.iter().max_by_key(|(_, shards)| shards.len());
        let (replica, _) = most.context("nobody has a shard")?;
        delete(env, controller, replica, &DeleteParams::default()).await?;
    }
    Ok(())
}

/// Deletes pods of controllers at random, some without any grace, until it is dropped.
pub async fn replace_at_random(env: &Environment) -> Result<std::convert::Infallible> {
    let mut random = fastrand::Rng::with_seed(1);
    loop {
        let controller = random.choice(Controller::ALL).context("there are six")?;
        let replicas = shares(env, controller, |all| is_even(all, REPLICAS)).await?;
        let replica = random.choice(replicas.keys()).context("nobody has a shard")?;
        let grace = DeleteParams {
            grace_period_seconds: random.bool().then_some(0),
            ..DeleteParams::default()
        };
        delete(env, controller, replica, &grace).await?;
    }
}

async fn shares(
    env: &Environment,
    controller: Controller,
    wanted: impl Fn(&Shares) -> bool,
) -> Result<Shares> {
    shares::of(env.client.clone(), controller, LIMIT, wanted).await
}

/// Deletes the pod of a replica, and waits until its shards are divided evenly.
async fn delete(
    env: &Environment,
    controller: Controller,
    replica: &str,
    params: &DeleteParams,
) -> Result<()> {
    let pods = Api::<Pod>::namespaced(env.client.clone(), SYSTEM);
    let pod = replica.rsplit_once('_').map_or(replica, |(pod, _)| pod);
    pods.delete(pod, params).await.with_context(|| format!("deleting {pod}"))?;
    let deleted = Instant::now();
    shares(env, controller, |shares| !shares.contains_key(replica)).await?;
    let handed_over = deleted.elapsed();
    let after = shares(env, controller, |shares| is_even(shares, REPLICAS)).await?;
    println!(
        "  {pod} is deleted: all its shards are others' after {handed_over:.1?}, evenly after {:.1?}: {}",
        deleted.elapsed(),
        shown(&after)
    );
    Ok(())
}

fn shown(shares: &Shares) -> String {
    let shown = shares.iter().map(|(replica, shards)| format!("{replica} {}", shards.len()));
    shown.collect::<Vec<_>>().join(", ")
}
