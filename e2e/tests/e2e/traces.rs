//! Each life is one whole trace.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::environment::{Environment, text, xtask};
use gastown_api::rbac::Controller;
use gastown_cluster::install::SYSTEM;
use gastown_demo::{ChangeReport, Plan, Report, Scenario, clear, run};
use gastown_observe::{Jaeger, attribute, problems, tree};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};
use kube::{Client, ResourceExt};
use serde_json::Value;

/// How often each controller is killed: a kubelet waits longer before each start of a container that
/// ended soon, so that a third time would take most of a minute.
const ROUNDS: usize = 2;
/// How long the last spans of a life may be on their way: a controller that was killed before it sent them
/// sends them again when it has started and seen all objects.
const LAST_SPANS: Duration = Duration::from_mins(2);
/// How often they are looked for.
const INTERVAL: Duration = Duration::from_millis(500);

/// The demo, while every controller is killed at random: each life that landed is one whole trace, and the
/// same one in status, requests and logs.
pub async fn whole(env: &Environment) -> Result<()> {
    let jaeger = Jaeger::start(env.cluster.address()).await?;
    let kubeconfig = env.cluster.kubeconfig();
    let endpoint = format!("telemetry.otlpEndpoint={}", jaeger.otlp());
    let install = ["install", "--kubeconfig", text(&kubeconfig)?];
    xtask(&[&install[..], &["--set", &endpoint]].concat()).await?;
    let played = Box::pin(play(env, &jaeger)).await;
    xtask(&install).await?;
    played
}

async fn play(env: &Environment, jaeger: &Jaeger) -> Result<()> {
    let plan = Plan::default_project().await?;
    let settings = env.settings("traces", Duration::from_mins(20));
    let seed = fastrand::u64(..);
    println!("  controllers are killed by seed {seed}");
    let playing = run(&env.client, settings.clone(), &plan, |line| println!("  {line}"));
    let harming = async {
        harm(env, &mut fastrand::Rng::with_seed(seed)).await?;
        std::future::pending::<Result<()>>().await
    };
    let (scenario, report) = tokio::select! {
        played = playing => played?,
        harmed = harming => { harmed?; bail!("unreachable") }
    };
    report.check()?;
    let reworked = report.changes.iter().filter(|change| change.reworks > 0).count();
    ensure!(reworked == 1, "{reworked} changes were reworked");
    for change in &report.changes {
        check(jaeger, change).await.with_context(|| format!("the life of {}", change.polecat))?;
    }
    check_requests(&scenario, &report).await?;
    check_convoy(jaeger, &scenario, &report).await?;
    check_logs(&env.client, &report).await?;
    drop(scenario);
    clear(&env.client, &settings).await
}

/// Kills each controller in a random order after random times, again and again.
async fn harm(env: &Environment, random: &mut fastrand::Rng) -> Result<()> {
    for _ in 0..ROUNDS {
        let mut order = Controller::ALL.map(Controller::name);
        random.shuffle(&mut order);
        for controller in order {
            tokio::time::sleep(Duration::from_millis(random.u64(500..6000))).await;
            match env.kill(controller).await {
                Ok(()) => println!("  killed {controller}"),
                // It has not started again since it was killed before.
                Err(error) => println!("  {controller} is not running: {error:#}"),
            }
        }
    }
    Ok(())
}

/// The life's trace has no problem, and no other trace is about it.
async fn check(jaeger: &Jaeger, change: &ChangeReport) -> Result<()> {
    let deadline = Instant::now() + LAST_SPANS;
    loop {
        let spans = jaeger.life(&change.trace_id).await?;
        let wrong = problems(&spans);
        if wrong.is_empty() {
            println!("  {} ({} spans came)\n{}", change.polecat, spans.len(), tree(&spans));
            break;
        }
        ensure!(Instant::now() < deadline, "{}\n{}", wrong.join("\n"), tree(&spans));
        tokio::time::sleep(INTERVAL).await;
    }
    let mut traces = BTreeSet::new();
    for span in jaeger.lives("polecat-ctl").await? {
        if attribute(&span, "gastown.polecat.name").as_ref() == Some(&change.polecat) {
            traces.insert(hex::encode(&span.trace_id));
        }
    }
    ensure!(traces == BTreeSet::from([change.trace_id.clone()]), "its traces are {traces:?}");
    Ok(())
}

/// Each request is part of the trace of its author.
async fn check_requests(scenario: &Scenario, report: &Report) -> Result<()> {
    let snapshot = scenario.snapshot().await?;
    for change in &report.changes {
        for request in snapshot.requests_for(&change.bead) {
            let trace = request.status.as_ref().and_then(|status| status.trace_id.as_deref());
            let name = request.name_any();
            ensure!(trace == Some(&change.trace_id), "request {name} has trace {trace:?}");
        }
    }
    Ok(())
}

/// The Convoy is a trace of one span, which links to the lives of its Polecats.
async fn check_convoy(jaeger: &Jaeger, scenario: &Scenario, report: &Report) -> Result<()> {
    let snapshot = scenario.snapshot().await?;
    let convoy = snapshot.convoy(&report.convoy.name).context("the Convoy is gone")?;
    let trace = convoy.status.as_ref().and_then(|status| status.trace_id.as_deref());
    let trace = trace.context("the Convoy has no trace")?;
    let deadline = Instant::now() + LAST_SPANS;
    let spans = loop {
        let spans = jaeger.life(trace).await?;
        if !spans.is_empty() {
            break spans;
        }
        ensure!(Instant::now() < deadline, "the Convoy's trace {trace} has not come");
        tokio::time::sleep(INTERVAL).await;
    };
    for span in &spans {
        let links = span.links.iter().map(|link| hex::encode(&link.trace_id));
        let links: BTreeSet<String> = links.collect();
        let lives = report.changes.iter().map(|change| change.trace_id.clone()).collect();
        ensure!(span.name == "convoy" && span == &spans[0], "{span:?} is in the Convoy's trace");
        ensure!(links == lives, "the Convoy links to {links:?} instead of {lives:?}");
    }
    Ok(())
}

/// Lines of polecat-ctl that name a trace name that of the Polecat that they are about.
async fn check_logs(client: &Client, report: &Report) -> Result<()> {
    let pods = Api::<Pod>::namespaced(client.clone(), SYSTEM);
    let selector = ListParams::default().labels("app.kubernetes.io/component=polecat-ctl");
    let mut found = BTreeSet::new();
    for pod in pods.list(&selector).await? {
        for previous in [true, false] {
            let which = LogParams { previous, ..LogParams::default() };
            // There may be no previous container, and its log may be gone.
            let Ok(log) = pods.logs(&pod.name_any(), &which).await else { continue };
            for line in log.lines() {
                // The span's own name has the same key, so that a parser keeps one of the two.
                let is_about = |change: &&ChangeReport| {
                    line.contains(&format!(r#""name":"{}""#, change.polecat))
                };
                let parsed: Value = serde_json::from_str(line).unwrap_or_default();
                let trace = parsed["span"]["trace_id"].as_str();
                if let (Some(change), Some(trace)) = (report.changes.iter().find(is_about), trace) {
                    ensure!(
                        trace == change.trace_id,
                        "a line about {} has {trace}",
                        change.polecat
                    );
                    found.insert(change.polecat.clone());
                }
            }
        }
    }
    ensure!(!found.is_empty(), "no line of polecat-ctl's log names the trace of a Polecat");
    Ok(())
}
