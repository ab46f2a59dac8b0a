//! `cargo xtask bench demo|boltons`: changes that land on a cluster, and what that took.

mod freed;
mod observe;

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};
use gastown_api::rbac::Controller;
use gastown_cluster::http_client;
use gastown_cluster::install::SYSTEM;
use gastown_demo::{Kubectl, Plan};
use http::Method;
use serde::Serialize;

use xtask::cli::PlanArgs;
use xtask::handover::Handover;

use super::figures::{Figures, mebibytes};
use super::metrics::{self, Request};
use super::spread::Spread;
use crate::clock::Clock;
use crate::demo::DemoCluster;
use crate::images::{self, Build, Names};
use freed::{Event, Freed};
use observe::Observer;

/// The admin server's port.
const ADMIN_PORT: u16 = 8080;
/// The verbs that write.
const WRITES: [&str; 6] = ["create", "update", "patch", "apply", "delete", "deletecollection"];

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    changes: usize,
    attempts: i32,
    /// From the first object to the last landed change.
    seconds: f64,
    /// From the landing that a change waited for last to the pod of its polecat, while a slot was
    /// free.
    landing_to_start: Option<Spread>,
    /// From the end of a pod to the pod that took its slot, while a change was ready.
    #[serde(rename = "placeToStart")]
    slot_to_start: Option<Spread>,
    /// From the end of an agent whose work is done to its Polecat's phase Done.
    exit_to_done: Option<Spread>,
    writes: Vec<Writes>,
    /// Writes of each writer, divided by the number of changes.
    writes_per_life: BTreeMap<String, f64>,
    /// Resident memory of each controller after the run, in bytes; git processes of its own
    /// included.
    rss_bytes: BTreeMap<String, u64>,
    /// The size of each image as it is loaded, in bytes.
    image_bytes: BTreeMap<String, u64>,
}

/// Requests of one writer that change one kind of object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Writes {
    writer: String,
    resource: String,
    verb: String,
    count: u64,
    /// The count divided by the number of changes.
    per_life: f64,
}

/// Plays the demo's own project.
pub async fn demo(args: &PlanArgs, handover: Handover) -> Result<Figures> {
    run(&Plan::default_project().await?, args, handover).await
}

/// Plays changes of a real repository.
pub async fn boltons(args: &PlanArgs, handover: Handover) -> Result<Figures> {
    let data = gastown_fakes::outside_data("boltons")
        .context("this bench needs the outside data: set GASTOWN_TEST_DATA")?;
    let bundle = data.join("boltons.bundle");
    run(
        &Plan::load(bundle.to_str().context("a path of text")?, &data.join("replay.json")).await?,
        args,
        handover,
    )
    .await
}

async fn run(plan: &Plan, args: &PlanArgs, handover: Handover) -> Result<Figures> {
    let clock = Clock::new(handover);
    let mut cluster = DemoCluster::choose(None, None, Names::new(None, None)?).await?;
    let mut interrupted = false;
    let outcome = tokio::select! {
        outcome = measure(&mut cluster, plan, args.polecats, &clock) => outcome,
        _ = tokio::signal::ctrl_c() => { interrupted = true; Err(anyhow!("interrupted")) }
    };
    let cleaned = cluster.leave(args.keep, args.polecats).await;
    if interrupted {
        // A compiler that still runs is not waited for.
        std::process::exit(130);
    }
    let measured = outcome?;
    Ok(Figures { error: cleaned.err(), ..Figures::new(table(&measured), &measured)? })
}

async fn measure(
    cluster: &mut DemoCluster,
    plan: &Plan,
    polecats: i32,
    clock: &Clock,
) -> Result<Measured> {
    let client = cluster.prepare(clock).await?;
    let kubectl = Kubectl::find(cluster.kubeconfig()).await?;
    let before = requests(&kubectl).await?;
    let settings = cluster.settings(polecats, plan.changes.len())?;
    let observer = Observer::start(&client, &settings.namespace);
    let (_, report) = gastown_demo::run(&client, settings, plan, |line| clock.print(line)).await?;
    let events = observer.finish().await?;
    report.check()?;
    let after = requests(&kubectl).await?;
    let writes = writes(&before, &after, report.changes.len());
    let Freed { landing_to_start, end_to_start, exit_to_done } = pair(plan, polecats, events);
    Ok(Measured {
        changes: report.changes.len(),
        attempts: report.changes.iter().map(|c| c.attempts).sum(),
        seconds: report.seconds,
        landing_to_start: Spread::of(landing_to_start),
        slot_to_start: Spread::of(end_to_start),
        exit_to_done: Spread::of(exit_to_done),
        writes_per_life: totals(&writes),
        writes,
        rss_bytes: memory(&kubectl).await?,
        image_bytes: image_sizes().await?,
    })
}

fn pair(plan: &Plan, polecats: i32, events: Vec<Event>) -> Freed {
    let waits = plan.changes.iter().map(|c| (c.bead.clone(), c.depends_on.clone())).collect();
    freed::pair(events, usize::try_from(polecats).unwrap_or_default(), &waits)
}

/// The requests of each controller to the API server so far.
async fn requests(kubectl: &Kubectl) -> Result<BTreeMap<&'static str, BTreeMap<Request, u64>>> {
    let mut all = BTreeMap::new();
    for controller in Controller::ALL.map(Controller::name) {
        let tunnel =
            kubectl.forward(SYSTEM, &format!("deployment/{controller}"), ADMIN_PORT).await?;
        let text = http_client::send(
            Method::GET,
            &format!("http://127.0.0.1:{}/metrics", tunnel.port),
            Vec::new(),
        )
        .await?;
        all.insert(controller, metrics::requests(&String::from_utf8_lossy(&text)));
    }
    Ok(all)
}

type ByController = BTreeMap<&'static str, BTreeMap<Request, u64>>;

fn writes(before: &ByController, after: &ByController, changes: usize) -> Vec<Writes> {
    let nothing = BTreeMap::new();
    let news = after.iter().flat_map(|(writer, all)| {
        let new = metrics::since(before.get(writer).unwrap_or(&nothing), all);
        new.into_iter().map(move |((resource, verb), count)| (*writer, resource, verb, count))
    });
    let writes = news.filter(|(_, _, verb, _)| WRITES.contains(&verb.as_str()));
    let per_life = |count: u64| count as f64 / changes.max(1) as f64;
    let row = |(writer, resource, verb, count): (&str, String, String, u64)| Writes {
        writer: writer.to_owned(),
        resource,
        verb,
        count,
        per_life: per_life(count),
    };
    writes.map(row).collect()
}

fn totals(writes: &[Writes]) -> BTreeMap<String, f64> {
    let mut totals = BTreeMap::new();
    for w in writes {
        *totals.entry(w.writer.clone()).or_default() += w.per_life;
    }
    totals
}

/// Resident memory by controller, from the kubelet.
async fn memory(kubectl: &Kubectl) -> Result<BTreeMap<String, u64>> {
    let nodes =
        kubectl.output(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]).await?;
    let mut rss = BTreeMap::new();
    for node in nodes.split_whitespace() {
        let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
        let summary: serde_json::Value =
            serde_json::from_str(&kubectl.output(&["get", "--raw", &path]).await?)?;
        for pod in summary["pods"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|p| p["podRef"]["namespace"] == SYSTEM)
        {
            let name = pod["podRef"]["name"].as_str().unwrap_or_default();
            let Some(controller) =
                Controller::ALL.map(Controller::name).into_iter().find(|c| name.starts_with(*c))
            else {
                continue;
            };
            let containers = pod["containers"].as_array().into_iter().flatten();
            *rss.entry((*controller).to_owned()).or_default() +=
                containers.filter_map(|c| c["memory"]["rssBytes"].as_u64()).sum::<u64>();
        }
    }
    if rss.is_empty() {
        bail!("the kubelet has no memory figures of the controllers");
    }
    Ok(rss)
}

async fn image_sizes() -> Result<BTreeMap<String, u64>> {
    let mut sizes = BTreeMap::new();
    for image in images::build(&[], Build::Dev).await? {
        let size =
            std::fs::metadata(&image.path).with_context(|| image.path.display().to_string())?.len();
        sizes.insert(image.reference, size);
    }
    Ok(sizes)
}

fn table(figures: &Measured) -> String {
    let spread =
        |of: &Option<Spread>| of.as_ref().map_or_else(|| "never".to_owned(), ToString::to_string);
    let mut lines = vec![
        format!(
            "{} changes in {} attempts landed in {:.1} s",
            figures.changes, figures.attempts, figures.seconds
        ),
        format!("landing → next polecat started:     {}", spread(&figures.landing_to_start)),
        format!("slot freed → next polecat started: {}", spread(&figures.slot_to_start)),
        format!("agent's exit → Done:               {}", spread(&figures.exit_to_done)),
        format!(
            "\n{:<14} {:<28} {:<8} {:>7} {:>9}",
            "WRITER", "OBJECT", "VERB", "COUNT", "PER LIFE"
        ),
    ];
    let row = |w: &Writes| {
        format!(
            "{:<14} {:<28} {:<8} {:>7} {:>9.1}",
            w.writer, w.resource, w.verb, w.count, w.per_life
        )
    };
    lines.extend(figures.writes.iter().map(row));
    let total = |name: &str, per_life: f64| {
        let count = figures
            .writes
            .iter()
            .filter(|w| name == "all" || w.writer == name)
            .map(|w| w.count)
            .sum::<u64>();
        format!("{name:<14} {:<28} {:<8} {count:>7} {per_life:>9.1}", "everything", "")
    };
    lines.extend(figures.writes_per_life.iter().map(|(writer, per_life)| total(writer, *per_life)));
    lines.push(total("all", figures.writes_per_life.values().sum()));
    lines.push(format!("\n{:<52} {:>8}", "RESIDENT MEMORY AFTER THE RUN", "MiB"));
    lines.extend(
        figures
            .rss_bytes
            .iter()
            .map(|(name, bytes)| format!("{name:<52} {:>8.1}", mebibytes(*bytes))),
    );
    lines.push(format!("\n{:<52} {:>8}", "IMAGE", "MiB"));
    lines.extend(
        figures
            .image_bytes
            .iter()
            .map(|(name, bytes)| format!("{name:<52} {:>8.1}", mebibytes(*bytes))),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(writer: &'static str, all: &[(&str, &str, u64)]) -> ByController {
        let counted = all
            .iter()
            .map(|(resource, verb, count)| (((*resource).to_owned(), (*verb).to_owned()), *count));
        BTreeMap::from([(writer, counted.collect())])
    }

    #[test]
    fn only_writes_of_the_run_are_counted() {
        let before = of("polecat-ctl", &[("pods", "create", 2), ("pods", "get", 1)]);
        let after = of(
            "polecat-ctl",
            &[
                ("pods", "create", 5),
                ("pods", "get", 9),
                ("pods", "delete", 0),
                ("events", "patch", 1),
            ],
        );
        let writes = writes(&before, &after, 2);
        let shown: Vec<(&str, &str, u64)> =
            writes.iter().map(|w| (w.resource.as_str(), w.verb.as_str(), w.count)).collect();
        assert_eq!(shown, [("events", "patch", 1), ("pods", "create", 3)]);
        assert_eq!(format!("{:?}", totals(&writes)), r#"{"polecat-ctl": 2.0}"#);
    }
}
