//! Branches land.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::environment::{Environment, text, xtask};
use gastown_api::rbac::Controller;
use gastown_api::{BeadStore, Convoy, MergePhase, MergeRequest, Polecat, Refinery, Rig, Witness};
use gastown_cluster::http_client;
use gastown_cluster::install::SYSTEM;
use gastown_demo::{Plan, Report, Settings, clear, run};
use gastown_fakes::messages::Entry;
use gastown_fakes::outside_data;
use kube::Api;
use kube::api::ListParams;

/// The port of the Messages API in the demo's pod.
const MESSAGES_PORT: u16 = 8081;

/// `cargo xtask demo` itself, as a person runs it.
pub async fn default(env: &Environment) -> Result<()> {
    let folder = tempfile::TempDir::new()?;
    let json = folder.path().join("demo.json");
    let kubeconfig = env.cluster.kubeconfig();
    xtask(&["demo", "--keep", "--json", text(&json)?, "--kubeconfig", text(&kubeconfig)?]).await?;
    let report: Report = serde_json::from_slice(&std::fs::read(&json)?)?;
    report.check()?;
    ensure!(report.changes.len() == 4, "{} of 4 landed", report.changes.len());
    ensure!(
        report.convoy.phase == "Complete" && report.convoy.progress == "4/4",
        "{:?}",
        report.convoy
    );
    let mute =
        report.changes.iter().find(|c| c.bead == "gt-4").context("gt-4 is not in the report")?;
    ensure!(
        mute.attempts == 2 && mute.reworks == 0,
        "the mute agent was not restarted once: {mute:?}"
    );
    ensure!(
        report.escalations.iter().map(|e| e.bead.as_str()).eq(["gt-5"]),
        "escalations: {:?}",
        report.escalations
    );
    let reworked: Vec<&str> =
        report.changes.iter().filter(|c| c.reworks == 1).map(|c| c.bead.as_str()).collect();
    ensure!(reworked == ["gt-2"], "reworked: {reworked:?}");
    // The scripted model makes the right change only when the prompt holds the failing test's
    // output; its log shows that it did.
    let tunnel = env.kubectl.forward("gastown-demo", "pod/demo-servers", MESSAGES_PORT).await?;
    let log: Vec<Entry> =
        http_client::get_json(&format!("http://127.0.0.1:{}/admin/log", tunnel.port)).await?;
    let reworked = |e: &&Entry| {
        e.key.as_deref() == Some("Change: gt-2") && e.attempt == Some(2) && e.evidence && e.called
    };
    ensure!(
        log.iter().find(reworked).is_some(),
        "no prompt of gt-2 held the failing test's output: {log:#?}"
    );
    let mut settings = env.settings("demo", Duration::ZERO);
    "gastown-demo".clone_into(&mut settings.namespace);
    "demo".clone_into(&mut settings.rig);
    clear(&env.client, &settings).await
}

/// 21 real changes as the beads of one Convoy, while each controller is killed once and every
/// status is erased.
pub async fn real_repository(env: &Environment) -> Result<()> {
    let Some(data) = outside_data("boltons") else { return Ok(()) };
    let bundle = data.join("boltons.bundle");
    let plan = Plan::load(text(&bundle)?, &data.join("replay.json")).await?;
    let settings = env.settings("boltons", Duration::from_hours(1));
    let mut before = Vec::new();
    for controller in Controller::ALL.map(Controller::name) {
        before.push(env.restarts(controller).await?);
    }
    let harming = harm(env, &settings, plan.changes.len());
    let playing = run(&env.client, settings.clone(), &plan, |line| println!("  {line}"));
    let (scenario, report) = tokio::select! {
        played = playing => played?,
        harmed = async { harming.await?; std::future::pending::<Result<()>>().await } => { harmed?; anyhow::bail!("unreachable") }
    };
    println!("{}", report.table());
    report.check()?;
    ensure!(report.changes.len() == 21, "{} of 21 landed", report.changes.len());
    ensure!(report.tree_as_planned == Some(true), "the landed tree is {}", report.target.tree);
    for (controller, before) in Controller::ALL.map(Controller::name).into_iter().zip(before) {
        let after = env.restarts(controller).await?;
        ensure!(after == before + 1, "{controller} was restarted {} times", after - before);
    }
    // A first prompt is a conversation that holds no command yet.
    let log = scenario.messages_log().await?;
    for change in &plan.changes {
        let key = change.key();
        let begun =
            log.iter().filter(|e| e.key.as_ref() == Some(&key) && e.step == 0 && e.called).count();
        ensure!(begun == 1, "{} was begun {begun} times", change.bead);
    }
    let events = env.events(&settings.namespace, "Convoy").await?;
    let complete = events.iter().filter(|reason| *reason == "Complete").count();
    ensure!(complete == 1, "{complete} events report the convoy's completion: {events:?}");
    drop(scenario);
    clear(&env.client, &settings).await
}

/// Kills each controller once, spread over the run, and erases the statuses when half have landed.
async fn harm(env: &Environment, settings: &Settings, changes: usize) -> Result<()> {
    for (n, controller) in Controller::ALL.map(Controller::name).into_iter().enumerate() {
        await_landed(
            env,
            settings,
            changes * (n + 1) / (Controller::ALL.map(Controller::name).len() + 1),
        )
        .await?;
        println!("  killing {controller}");
        env.kill(controller).await?;
        if n + 1 == Controller::ALL.map(Controller::name).len() / 2 {
            println!("  erasing the statuses");
            erase(env, settings).await?;
        }
    }
    Ok(())
}

async fn await_landed(env: &Environment, settings: &Settings, at: usize) -> Result<()> {
    let requests = Api::<MergeRequest>::namespaced(env.client.clone(), &settings.namespace);
    loop {
        let list = requests.list(&ListParams::default()).await.context("listing requests")?;
        let landed =
            |r: &&MergeRequest| r.status.as_ref().and_then(|s| s.phase) == Some(MergePhase::Landed);
        if list.iter().filter(landed).count() >= at {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn erase(env: &Environment, settings: &Settings) -> Result<()> {
    let (client, namespace) = (&env.client, settings.namespace.as_str());
    env.erase::<Rig>(&Api::all(client.clone()), |_| true).await?;
    env.erase::<Refinery>(&Api::namespaced(client.clone(), SYSTEM), |_| true).await?;
    env.erase::<Witness>(&Api::namespaced(client.clone(), SYSTEM), |_| true).await?;
    env.erase::<BeadStore>(&Api::namespaced(client.clone(), SYSTEM), |_| true).await?;
    env.erase::<Convoy>(&Api::namespaced(client.clone(), namespace), |_| true).await?;
    env.erase::<Polecat>(&Api::namespaced(client.clone(), namespace), |_| true).await?;
    env.erase::<MergeRequest>(&Api::namespaced(client.clone(), namespace), |_| true).await
}
