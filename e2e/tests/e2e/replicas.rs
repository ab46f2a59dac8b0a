//! Two replicas of each controller: any of them may be asked, and the one that works may go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::environment::Environment;
use gastown_api::rbac::Controller;
use gastown_cluster::install::{SYSTEM, until};
use gastown_demo::{Plan, Report, Settings, clear, run};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};

/// How long another replica may take to hold the lease.
const LIMIT: Duration = Duration::from_mins(3);

/// The default demo, while the pod of each controller that holds its lease is deleted once.
pub async fn replaced(env: &Environment) -> Result<()> {
    let settings = env.settings("replicas", Duration::from_mins(30));
    let plan = Plan::default_project().await?;
    scale(env, 2).await?;
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

/// Deletes the pods that hold the leases, one after the other.
async fn replace(env: &Environment) -> Result<()> {
    let pods = Api::<Pod>::namespaced(env.client.clone(), SYSTEM);
    for controller in Controller::ALL {
        let name = controller.name();
        let before = holder(env, name, |_| true).await?;
        let deleted = pods.delete(&before, &DeleteParams::default()).await;
        deleted.with_context(|| format!("deleting {before}"))?;
        let deleted = Instant::now();
        let next = holder(env, name, |holder| holder != before).await?;
        println!("  {before} is deleted: {next} works after {:.1?}", deleted.elapsed());
    }
    Ok(())
}

/// The holder of a controller's lease, once it is a `wanted` one.
async fn holder(
    env: &Environment,
    controller: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<String> {
    let leases = Api::<Lease>::namespaced(env.client.clone(), SYSTEM);
    let name = format!("gastown-{controller}");
    until(LIMIT, &leases, &name, "a holder", |lease: Option<&Lease>| {
        let holder = lease?.spec.as_ref()?.holder_identity.as_deref()?;
        (!holder.is_empty() && wanted(holder)).then(|| holder.to_owned())
    })
    .await
}
