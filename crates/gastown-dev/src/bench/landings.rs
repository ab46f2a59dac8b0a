//! `cargo xtask bench landings`: one refinery-ctl, with rigs that land, and rigs that cost it most.
//!
//! Gates pass as soon as their pods are there: what is measured is refinery-ctl, git and the API
//! server.

mod repository;
mod rig;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use gastown_api::rbac::Controller;
use gastown_cluster::control_plane::{ControlPlane, Options, free_port};
use gastown_cluster::install;
use gastown_cluster::process::Process;
use gastown_fakes::black_hole::BlackHole;
use gastown_fakes::git_http::GitHttp;
use serde::Serialize;
use tempfile::TempDir;
use tokio::process::Command;
use xtask::cli::LandingsArgs;

use super::figures::{Figures, mebibytes, program};
use super::metrics;
use super::spread::Spread;
use rig::{BenchRig, Ended};

/// How long the first look at a remote that does not answer may take to begin.
const SILENCE_LIMIT: Duration = Duration::from_mins(1);
/// How often memory is read.
const INTERVAL: Duration = Duration::from_millis(20);
/// Verbs that change nothing.
const READS: [&str; 3] = ["get", "list", "watch"];

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    rigs: usize,
    /// From the creation of a request to its landing.
    alone: Option<Spread>,
    /// The same while other rigs wait for a remote that never answers, and one fetches a long history.
    beside: Option<Spread>,
    silent: usize,
    landed: usize,
    /// Requests to the API server while they landed alone, by verb and resource.
    requests: BTreeMap<String, u64>,
    history: History,
    taken: Taken,
    file: LargeFile,
}

/// How long the first landing takes of a rig with a long history that another process worked for before,
/// in seconds.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Taken {
    /// The mirror was kept.
    kept_seconds: f64,
    /// It is fetched anew.
    anew_seconds: f64,
}

/// What the gate of a rig with a long history fetches.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct History {
    mebibytes: u32,
    /// The files of the candidate, in bytes.
    tree_bytes: u64,
    /// What is received with `fetchDepth: 1`, in bytes.
    shallow_bytes: u64,
    /// What is received with all history, in bytes.
    whole_bytes: u64,
}

/// The merge of two versions of a large file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LargeFile {
    mebibytes: u32,
    /// How the request ended.
    end: String,
    seconds: f64,
    /// The most resident memory of refinery-ctl meanwhile, in bytes.
    rss_bytes: u64,
    /// The most resident memory of its child processes together, in bytes.
    children_rss_bytes: u64,
}

/// What the measurements use.
struct Setup<'a> {
    plane: &'a ControlPlane,
    git: &'a GitHttp,
    refinery: &'a Process,
    /// The port of refinery-ctl's git server.
    port: u16,
}

/// Measures.
pub async fn run(args: &LandingsArgs) -> Result<Figures> {
    let program = program("refinery-ctl").await?;
    println!("landings: a control plane and a git server");
    let plane = ControlPlane::start(Options::default()).await?;
    install::install(&plane, Controller::Refinery, &[]).await?;
    let (repositories, data) = (
        TempDir::new().context("a folder for repositories")?,
        TempDir::new().context("a folder for mirrors")?,
    );
    let git = GitHttp::start(repositories.path()).await?;
    let port = free_port()?;
    let flags = [
        "--data-dir".to_owned(),
        data.path().display().to_string(),
        "--git-addr".to_owned(),
        format!("127.0.0.1:{port}"),
        "--git-endpoint".to_owned(),
        format!("https://localhost:{port}"),
        "--agent-image".to_owned(),
        "agent:bench".to_owned(),
    ];
    let refinery = Process::start(&plane, Controller::Refinery, &program, &flags).await?;
    let setup = Setup { plane: &plane, git: &git, refinery: &refinery, port };
    let (mut measured, with_history) = setup
        .measure(args)
        .await
        .with_context(|| format!("the end of refinery-ctl's log:\n{}", refinery.log(15)))?;
    refinery.end().await?;
    println!("landings: the history is taken over, with its mirror and without");
    let taken_over = async |branch: &str| {
        let refinery = Process::start(&plane, Controller::Refinery, &program, &flags).await?;
        let landed = with_history.land(branch).await;
        let took = landed.with_context(|| refinery.log(15))?.as_secs_f64();
        refinery.end().await?;
        anyhow::Ok(took)
    };
    let [_, kept, anew] = repository::WORK;
    measured.taken.kept_seconds = taken_over(kept).await?;
    let mirrors = data.path().join("mirrors");
    std::fs::remove_dir_all(&mirrors).with_context(|| format!("deleting {}", mirrors.display()))?;
    measured.taken.anew_seconds = taken_over(anew).await?;
    Figures::new(table(&measured), &measured)
}

impl Setup<'_> {
    async fn measure(&self, args: &LandingsArgs) -> Result<(Measured, BenchRig)> {
        let (rigs, requests) = (usize::from(args.rigs), usize::from(args.requests));
        println!("landings: {requests} requests of each of {rigs} rigs");
        let all = try_join_all((0..rigs).map(|n| self.landing_rig(n, 2 * requests + 1))).await?;
        // Fetches the repositories.
        try_join_all(all.iter().map(|rig| rig.land("work-0"))).await?;
        let before = metrics::requests(&self.refinery.metrics().await?);
        let alone = land(&all, 1..=requests).await?;
        let after = metrics::requests(&self.refinery.metrics().await?);
        let requests_by_kind = metrics::since(&before, &after);

        println!("landings: a history of {} MiB", args.history_mib);
        let mebibytes = args.history_mib;
        let with_history =
            self.rig("history", move |path| repository::with_history(path, mebibytes)).await?;
        println!("landings: the same beside {} remotes that never answer", args.silent);
        let hole = BlackHole::listen().await?;
        let silent = (1..=usize::from(args.silent)).map(|n| self.silent_rig(&hole, n));
        let silent = try_join_all(silent).await?;
        hole.connections(silent.len(), SILENCE_LIMIT).await?;
        with_history.submit("work").await?;
        let beside = land(&all, requests + 1..=2 * requests).await?;
        let history = self.history(&with_history, args.history_mib).await?;
        let file = self.large_file(args.file_mib).await?;
        let measured = Measured {
            rigs,
            landed: alone.len(),
            alone: Spread::of(alone),
            beside: Spread::of(beside),
            silent: silent.len(),
            requests: requests_by_kind
                .into_iter()
                .map(|((resource, verb), count)| (format!("{verb} {resource}"), count))
                .collect(),
            history,
            taken: Taken::default(),
            file,
        };
        Ok((measured, with_history))
    }

    /// A rig with a repository of this name that `fill` fills.
    async fn rig(
        &self,
        name: &str,
        fill: impl FnOnce(&Path) -> Result<()> + Send + 'static,
    ) -> Result<BenchRig> {
        let path = self.git.create(name).await?;
        let filled = path.clone();
        tokio::task::spawn_blocking(move || fill(&filled)).await??;
        BenchRig::create(self.plane, name, &self.git.repository(name), path).await
    }

    async fn landing_rig(&self, n: usize, branches: usize) -> Result<BenchRig> {
        self.rig(&format!("rig-{n}"), move |path| repository::with_branches(path, branches)).await
    }

    /// A rig whose remote never answers, with a request.
    async fn silent_rig(&self, hole: &BlackHole, n: usize) -> Result<BenchRig> {
        let url = format!("http://{}/r", hole.authority(n));
        let rig = BenchRig::create(self.plane, &format!("silent-{n}"), &url, "/".into()).await?;
        rig.submit_commit("work", &"a".repeat(40)).await?;
        Ok(rig)
    }

    /// Fetches the candidate as its gate does.
    async fn history(&self, rig: &BenchRig, mebibytes: u32) -> Result<History> {
        let pod = rig.gate().await?;
        let token = install::token(&rig.client, &rig.namespace, "default", Some(&pod)).await?;
        let candidate = repository::commit_of(&rig.repository, "work")?;
        let fetch = async |depth: &[&str]| -> Result<u64> {
            let into = TempDir::new().context("a folder for a fetch")?;
            let header = format!("http.extraHeader=Authorization: Bearer {token}");
            let authority = format!("http.sslCAInfo={}", self.refinery.ca().display());
            let url = format!("https://localhost:{}/git/{}/main", self.port, rig.name);
            git(into.path(), &["init", "--quiet", "--bare", "."]).await?;
            let mut args = vec!["-c", &header, "-c", &authority, "fetch", "--quiet", "--no-tags"];
            args.extend(depth);
            args.extend([url.as_str(), &candidate]);
            git(into.path(), &args).await?;
            let objects = git(into.path(), &["count-objects", "-v"]).await?;
            let kibibytes = |name: &str| {
                let line = objects.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|size| size.trim().parse::<u64>().ok()).unwrap_or_default()
            };
            Ok((kibibytes("size:") + kibibytes("size-pack:")) * 1024)
        };
        let (shallow_bytes, whole_bytes) = (fetch(&["--depth=1"]).await?, fetch(&[]).await?);
        rig.pass(&pod).await?;
        let listed = git(&rig.repository, &["ls-tree", "-r", "-l", "work"]).await?;
        let sizes = listed.lines().filter_map(|line| line.split_whitespace().nth(3));
        let tree_bytes = sizes.filter_map(|size| size.parse::<u64>().ok()).sum();
        Ok(History { mebibytes, tree_bytes, shallow_bytes, whole_bytes })
    }

    async fn large_file(&self, mebibytes: u32) -> Result<LargeFile> {
        println!("landings: a file of {mebibytes} MiB");
        let fill = move |path: &Path| repository::with_large_file(path, mebibytes);
        let rig = self.rig("file", fill).await?;
        let (mut rss_bytes, mut children_rss_bytes) = (0, 0);
        let begun = Instant::now();
        let mut run = std::pin::pin!(rig.run("work"));
        let mut ticks = tokio::time::interval(INTERVAL);
        let Ended { phase, reason, .. } = loop {
            tokio::select! {
                ended = &mut run => break ended?,
                _ = ticks.tick() => {
                    rss_bytes = self.refinery.resident()?.max(rss_bytes);
                    children_rss_bytes = self.refinery.resident_children().max(children_rss_bytes);
                }
            }
        };
        let end = [format!("{phase:?}"), reason].join(" ").trim_end().to_owned();
        let seconds = begun.elapsed().as_secs_f64();
        Ok(LargeFile { mebibytes, end, seconds, rss_bytes, children_rss_bytes })
    }
}

/// All rigs land these branches, each its own one after the other.
async fn land(
    rigs: &[BenchRig],
    branches: impl Iterator<Item = usize> + Clone,
) -> Result<Vec<Duration>> {
    let land = async |rig: &BenchRig| {
        let mut times = Vec::new();
        for n in branches.clone() {
            times.push(rig.land(&format!("work-{n}")).await?);
        }
        anyhow::Ok(times)
    };
    Ok(try_join_all(rigs.iter().map(land)).await?.concat())
}

async fn git(folder: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(args).stdin(Stdio::null()).kill_on_drop(true);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    // It would count more than the configuration.
    command.env_remove("GIT_SSL_CAINFO");
    let out = command.output().await.context("git is needed")?;
    // What comes before the command may be a token.
    let what = args.iter().find(|arg| !arg.starts_with('-') && !arg.contains('='));
    ensure!(
        out.status.success(),
        "git {}: {}",
        what.unwrap_or(&""),
        String::from_utf8_lossy(&out.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn table(m: &Measured) -> String {
    let spread =
        |of: &Option<Spread>| of.as_ref().map_or_else(|| "never".to_owned(), ToString::to_string);
    let is_read = |kind: &str| READS.iter().any(|verb| kind.starts_with(&format!("{verb} ")));
    let per_landing = |reads: bool| {
        let of_kind = m.requests.iter().filter(|(kind, _)| is_read(kind) == reads);
        of_kind.map(|(_, count)| *count).sum::<u64>() as f64 / m.landed.max(1) as f64
    };
    let History { mebibytes: history_mib, tree_bytes, shallow_bytes, whole_bytes } = &m.history;
    let mut lines = vec![
        format!("{} rigs land, from the creation of a request to its landing", m.rigs),
        format!("alone: {}", spread(&m.alone)),
        format!(
            "beside {} remotes that never answer, and one that fetches {history_mib} MiB: {}",
            m.silent,
            spread(&m.beside)
        ),
        format!("\n{:<40} {:>12}", "REQUESTS TO THE API SERVER", "A LANDING"),
    ];
    lines.extend(m.requests.iter().map(|(what, count)| {
        format!("{what:<40} {:>12.2}", *count as f64 / m.landed.max(1) as f64)
    }));
    lines.extend([
        format!("{:<40} {:>12.2}", "writes", per_landing(false)),
        format!("{:<40} {:>12.2}", "reads", per_landing(true)),
        format!(
            "\na gate's fetch of a candidate of {:.1} MiB with a history of {history_mib} MiB: {:.1} MiB with fetchDepth 1, {:.1} MiB without",
            mebibytes(*tree_bytes),
            mebibytes(*shallow_bytes),
            mebibytes(*whole_bytes)
        ),
        format!(
            "the first landing of that rig by another process: {:.1} s with the mirror kept, {:.1} s with all fetched anew",
            m.taken.kept_seconds, m.taken.anew_seconds
        ),
        format!(
            "two versions of a file of {} MiB are merged: {} after {:.1} s; refinery-ctl has at most {:.1} MiB, its children {:.1} MiB",
            m.file.mebibytes,
            m.file.end,
            m.file.seconds,
            mebibytes(m.file.rss_bytes),
            mebibytes(m.file.children_rss_bytes)
        ),
    ]);
    lines.join("\n")
}
