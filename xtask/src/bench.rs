//! `cargo xtask bench`: figures of a warm run, in counts and ratios.
//!
//! Warm: the cluster is up, the images are on its node and the controllers have run before the clock starts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use gastown_testkit::demo::{CONTROLLERS, Kubectl, Report, SYSTEM, Story};
use gastown_testkit::http_client;
use http::Method;
use serde::Serialize;

use crate::demo::{Clock, Ground};
use crate::{images, util};

/// The admin server's port.
const ADMIN_PORT: u16 = 8080;
/// The verbs that write.
const WRITES: [&str; 6] = ["create", "update", "patch", "apply", "delete", "deletecollection"];

/// Flags of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to run.
    #[arg(value_enum)]
    name: Name,
    /// Write the figures as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// How many polecats work at a time.
    #[arg(long, default_value_t = 3)]
    polecats: i32,
    /// Leave the cluster.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// The demo's own project: three changes, one of them reworked.
    Demo,
    /// 21 changes of a real repository, from the outside data.
    Boltons,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    changes: usize,
    attempts: i32,
    /// From the first object to the last landed change.
    seconds: f64,
    writes: Vec<Writes>,
    /// Resident memory of each controller after the run, in bytes; git processes of its own included.
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

/// Writer, resource and verb.
type Key = (String, String, String);

/// Runs it.
pub async fn run(args: Args) -> Result<()> {
    let story = match args.name {
        Name::Demo => Story::default_project().await?,
        Name::Boltons => boltons().await?,
    };
    let clock = Clock::start();
    let mut ground = Ground::choose(None, None).await?;
    let outcome = measure(&mut ground, &story, args.polecats, &clock).await;
    let cleaned = ground.leave(args.keep, args.polecats).await;
    let figures = outcome?;
    println!("\n{}", table(&figures));
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&figures)?).with_context(|| format!("writing {}", path.display()))?;
    }
    cleaned
}

async fn boltons() -> Result<Story> {
    let data = std::env::var_os("GASTOWN_TEST_DATA").map_or_else(|| util::root().join("../shared/data"), PathBuf::from).join("boltons");
    if !data.is_dir() {
        bail!("{} is not there; set GASTOWN_TEST_DATA", data.display());
    }
    let bundle = data.join("boltons.bundle");
    Story::load(bundle.to_str().context("a path of text")?, &data.join("replay.json")).await
}

async fn measure(ground: &mut Ground, story: &Story, polecats: i32, clock: &Clock) -> Result<Figures> {
    let client = ground.prepare(clock).await?;
    let kubectl = Kubectl::find(ground.kubeconfig()).await?;
    let before = requests(&kubectl).await?;
    let settings = ground.settings(polecats, story.changes.len())?;
    let (_, report) = gastown_testkit::demo::run(&client, settings, story, |line| clock.say(line)).await?;
    report.check()?;
    let after = requests(&kubectl).await?;
    Ok(Figures {
        changes: report.changes.len(),
        attempts: report.changes.iter().map(|c| c.attempts).sum(),
        seconds: report.seconds,
        writes: difference(&before, &after, &report),
        rss_bytes: memory(&kubectl).await?,
        image_bytes: image_sizes().await?,
    })
}

/// What each controller has asked of the API server so far.
async fn requests(kubectl: &Kubectl) -> Result<BTreeMap<Key, u64>> {
    let mut all = BTreeMap::new();
    for controller in CONTROLLERS {
        let tunnel = kubectl.forward(SYSTEM, &format!("deployment/{controller}"), ADMIN_PORT).await?;
        let text = http_client::send(Method::GET, &format!("http://127.0.0.1:{}/metrics", tunnel.port), Vec::new()).await?;
        for (resource, verb, count) in String::from_utf8_lossy(&text).lines().filter_map(request_count) {
            *all.entry((controller.to_owned(), resource, verb)).or_default() += count;
        }
    }
    Ok(all)
}

/// Resource, verb and count of a line such as `gastown_kube_requests_total{verb="get",resource="pods",code="200"} 3`.
fn request_count(line: &str) -> Option<(String, String, u64)> {
    let rest = line.strip_prefix("gastown_kube_requests_total{")?;
    let (labels, count) = rest.rsplit_once("} ")?;
    let label =
        |name: &str| labels.split(',').find_map(|l| l.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"')).map(str::to_owned);
    Some((label("resource")?, label("verb")?, count.trim().parse().ok()?))
}

fn difference(before: &BTreeMap<Key, u64>, after: &BTreeMap<Key, u64>, report: &Report) -> Vec<Writes> {
    let lives = report.changes.len().max(1) as f64;
    let writing = after.iter().filter(|((_, _, verb), _)| WRITES.contains(&verb.as_str()));
    let writes = writing.map(|(key, count)| (key, count - before.get(key).copied().unwrap_or_default().min(*count)));
    let writes = writes.filter(|(_, count)| *count > 0).map(|((writer, resource, verb), count)| Writes {
        writer: writer.clone(),
        resource: resource.clone(),
        verb: verb.clone(),
        count,
        per_life: count as f64 / lives,
    });
    writes.collect()
}

/// Resident memory by controller, as the kubelet reckons it.
async fn memory(kubectl: &Kubectl) -> Result<BTreeMap<String, u64>> {
    let nodes = kubectl.output(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]).await?;
    let mut rss = BTreeMap::new();
    for node in nodes.split_whitespace() {
        let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
        let summary: serde_json::Value = serde_json::from_str(&kubectl.output(&["get", "--raw", &path]).await?)?;
        for pod in summary["pods"].as_array().into_iter().flatten().filter(|p| p["podRef"]["namespace"] == SYSTEM) {
            let name = pod["podRef"]["name"].as_str().unwrap_or_default();
            let Some(controller) = CONTROLLERS.iter().find(|c| name.starts_with(**c)) else { continue };
            let containers = pod["containers"].as_array().into_iter().flatten();
            *rss.entry((*controller).to_owned()).or_default() += containers.filter_map(|c| c["memory"]["rssBytes"].as_u64()).sum::<u64>();
        }
    }
    if rss.is_empty() {
        bail!("the kubelet has no memory figures of the controllers");
    }
    Ok(rss)
}

async fn image_sizes() -> Result<BTreeMap<String, u64>> {
    let mut sizes = BTreeMap::new();
    for image in images::build(&[], false).await? {
        let size = std::fs::metadata(&image.path).with_context(|| image.path.display().to_string())?.len();
        sizes.insert(image.reference, size);
    }
    Ok(sizes)
}

fn table(figures: &Figures) -> String {
    let mut lines = vec![
        format!("{} changes in {} attempts landed in {:.1} s", figures.changes, figures.attempts, figures.seconds),
        format!("\n{:<14} {:<28} {:<8} {:>7} {:>9}", "WRITER", "OBJECT", "VERB", "COUNT", "PER LIFE"),
    ];
    let row = |w: &Writes| format!("{:<14} {:<28} {:<8} {:>7} {:>9.1}", w.writer, w.resource, w.verb, w.count, w.per_life);
    lines.extend(figures.writes.iter().map(row));
    let total: u64 = figures.writes.iter().map(|w| w.count).sum();
    lines.push(format!("{:<14} {:<28} {:<8} {total:>7} {:>9.1}", "all", "", "", total as f64 / figures.changes.max(1) as f64));
    let mebibytes = |bytes: &u64| *bytes as f64 / f64::from(1 << 20);
    lines.push(format!("\n{:<52} {:>8}", "RESIDENT MEMORY AFTER THE RUN", "MiB"));
    lines.extend(figures.rss_bytes.iter().map(|(name, bytes)| format!("{name:<52} {:>8.1}", mebibytes(bytes))));
    lines.push(format!("\n{:<52} {:>8}", "IMAGE", "MiB"));
    lines.extend(figures.image_bytes.iter().map(|(name, bytes)| format!("{name:<52} {:>8.1}", mebibytes(bytes))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_the_text_of_metrics() {
        let line = r#"gastown_kube_requests_total{verb="apply",resource="polecats/status",code="200"} 12"#;
        assert_eq!(request_count(line), Some(("polecats/status".to_owned(), "apply".to_owned(), 12)));
        assert_eq!(request_count("# TYPE gastown_kube_requests counter"), None);
    }

    #[test]
    fn only_writes_of_the_run_are_counted() {
        let key = |verb: &str| ("polecat-ctl".to_owned(), "pods".to_owned(), verb.to_owned());
        let before = BTreeMap::from([(key("create"), 2), (key("get"), 1)]);
        let after = BTreeMap::from([(key("create"), 5), (key("get"), 9), (key("delete"), 0)]);
        let target = gastown_testkit::demo::Target { branch: String::new(), commit: String::new(), tree: String::new() };
        let convoy = gastown_testkit::demo::ConvoyReport { name: String::new(), phase: String::new(), progress: String::new() };
        let report = Report { changes: Vec::new(), convoy, escalations: Vec::new(), target, tree_as_planned: None, seconds: 1.0 };
        let writes = difference(&before, &after, &report);
        assert_eq!(writes.iter().map(|w| (w.verb.as_str(), w.count)).collect::<Vec<_>>(), [("create", 3)]);
    }
}
