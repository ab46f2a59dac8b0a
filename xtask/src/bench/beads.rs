//! `cargo xtask bench beads`: a large store in git before one beadstore-ctl.

mod client;
mod store;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gastown_api::names::condition;
use gastown_api::rbac::Controller;
use gastown_api::{BeadStore, BeadStoreSpec, Rig, conditions};
use gastown_cluster::control_plane::{ControlPlane, Options};
use gastown_cluster::install;
use gastown_cluster::process::Process;
use gastown_fakes::git_http::GitHttp;
use gastown_proto::v1::{CommentRequest, GetBeadsRequest};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;

use super::spread::Spread;
use super::{Figures, mebibytes, metrics};
use client::caller;

/// Where the BeadStores are.
const NAMESPACE: &str = "default";
/// How long a store may take to be read.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long an unchanged store is watched, and how often it is read meanwhile: as often as it may
/// be.
const QUIET: Duration = Duration::from_secs(60);
const OFTEN: &str = "5s";
/// Nothing is read by itself while calls are timed.
const SELDOM: &str = "1h";

/// Flags of `cargo xtask bench beads`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many beads the store holds.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1000..=100_000))]
    lines: u32,
    /// How many beads are commented on.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    calls: u32,
    /// How many commits the write branch of a second store has.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    history: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    lines: u32,
    /// From the BeadStore's creation to `Synced=True` in its status, without a mirror.
    first_sync_seconds: f64,
    comment: Option<Spread>,
    unchanged: Unchanged,
    /// Resident memory of beadstore-ctl after that, in bytes.
    rss_bytes: u64,
    /// From the start of a process that finds its mirror to its first answer with a bead.
    restart_seconds: f64,
    history: u32,
    /// As the first, of a store whose write branch has a long history.
    history_first_sync_seconds: f64,
    /// As the restart, of that store.
    history_restart_seconds: f64,
    history_rss_bytes: u64,
}

/// Reading a store that has not changed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unchanged {
    /// How often it was read.
    syncs: u64,
    git_requests_per_sync: f64,
    /// All work of the controller on it, divided by the readings.
    ms_per_sync: f64,
}

/// Where it all happens.
struct Ground<'a> {
    plane: &'a ControlPlane,
    client: Client,
    git: &'a GitHttp,
    program: &'a Path,
    data: &'a Path,
}

/// Measures.
pub async fn run(args: &Args) -> Result<Figures> {
    let program = super::program("beadstore-ctl").await?;
    println!("beads: a control plane and a git server");
    let plane = ControlPlane::start(Options::default()).await?;
    install::install(&plane, Controller::BeadStore, &["polecat-ctl"]).await?;
    let (repositories, data) = (
        TempDir::new().context("a folder for repositories")?,
        TempDir::new().context("a folder for mirrors")?,
    );
    let git = GitHttp::start(repositories.path()).await?;
    let ground = Ground {
        plane: &plane,
        client: plane.client()?,
        git: &git,
        program: &program,
        data: data.path(),
    };
    let measured = measure(&ground, args).await?;
    Figures::new(table(&measured), &measured)
}

async fn measure(ground: &Ground<'_>, args: &Args) -> Result<Measured> {
    let (lines, calls) = (usize::try_from(args.lines)?, usize::try_from(args.calls)?);
    let process = ground.start().await?;
    println!("beads: a store of {lines} lines");
    store::fill(&ground.git.create("plain").await?, lines, 0).await?;
    let first_sync_seconds = ground.first_sync("plain").await?;
    println!("beads: {calls} comments");
    let comment =
        ground.comments(&process, "plain", store::free(lines).take(calls).collect()).await?;
    println!("beads: an unchanged store for {} s", QUIET.as_secs());
    let unchanged = ground.unchanged(&process, "plain").await?;
    let rss_bytes = process.resident()?;
    process.end().await?;
    let (process, restart_seconds) = ground.restart("plain").await?;
    process.end().await?;

    println!("beads: a write branch of {} commits", args.history);
    Api::<BeadStore>::namespaced(ground.client.clone(), NAMESPACE)
        .delete("plain", &kube::api::DeleteParams::default())
        .await?;
    store::fill(&ground.git.create("old").await?, lines, usize::try_from(args.history)?).await?;
    let process = ground.start().await?;
    let history_first_sync_seconds = ground.first_sync("old").await?;
    process.end().await?;
    let (process, history_restart_seconds) = ground.restart("old").await?;
    let history_rss_bytes = process.resident()?;
    process.end().await?;
    Ok(Measured {
        lines: args.lines,
        first_sync_seconds,
        comment,
        unchanged,
        rss_bytes,
        restart_seconds,
        history: args.history,
        history_first_sync_seconds,
        history_restart_seconds,
        history_rss_bytes,
    })
}

impl Ground<'_> {
    async fn start(&self) -> Result<Process> {
        let flags = ["--data-dir".to_owned(), self.data.display().to_string()];
        Process::start(self.plane, Controller::BeadStore, self.program, &flags).await
    }

    fn stores(&self) -> Api<BeadStore> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Makes a rig and its store of this name; how long the store took to be read, in seconds.
    async fn first_sync(&self, name: &str) -> Result<f64> {
        let spec = json!({"gitURL": self.git.repository(name), "beadsPrefix": store::PREFIX});
        Api::all(self.client.clone())
            .create(&PostParams::default(), &Rig::new(name, serde_json::from_value(spec)?))
            .await?;
        let spec = BeadStoreSpec {
            sync_interval: SELDOM.to_owned(),
            ..BeadStoreSpec::of_rig(name, store::PREFIX)
        };
        let begun = Instant::now();
        self.stores().create(&PostParams::default(), &BeadStore::new(name, spec)).await?;
        let synced = |s: Option<&BeadStore>| {
            s.and_then(|s| s.status.as_ref())
                .is_some_and(|s| conditions::is_true(&s.conditions, condition::SYNCED))
        };
        let seen =
            tokio::time::timeout(PATIENCE, await_condition(self.stores(), name, synced)).await;
        let Ok(seen) = seen else { bail!("the store was not read in {} s", PATIENCE.as_secs()) };
        seen?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Comments on beads, one after the other: each comment is a commit and a push.
    async fn comments(
        &self,
        process: &Process,
        rig: &str,
        beads: Vec<String>,
    ) -> Result<Option<Spread>> {
        let mut polecat = caller(process, &self.client, "polecat-ctl").await?;
        let mut times = Vec::new();
        for id in &beads {
            let comment = CommentRequest {
                rig: rig.to_owned(),
                id: id.clone(),
                author: format!("{rig}/polecats/nux"),
                text: "done".to_owned(),
            };
            let begun = Instant::now();
            let answer = polecat.comment(comment).await;
            let answer = answer.with_context(|| format!("commenting on {id}"))?.into_inner();
            times.push(begun.elapsed());
            ensure!(answer.changed, "{id} had the comment already");
        }
        Ok(Spread::of(times))
    }

    /// Lets a store be read often while nothing changes it.
    async fn unchanged(&self, process: &Process, name: &str) -> Result<Unchanged> {
        let often = json!({"spec": {"syncInterval": OFTEN}});
        self.stores().patch(name, &PatchParams::default(), &Patch::Merge(&often)).await?;
        let look = async || {
            let worked = metrics::value(
                &process.metrics().await?,
                "gastown_reconcile_duration_seconds_sum{controller=\"beadstore\"}",
            );
            anyhow::Ok((self.git.sessions(), self.git.requests(), worked))
        };
        // The first reading under the new interval is of a store that calls have changed.
        let (sessions, deadline) = (self.git.sessions(), Instant::now() + PATIENCE);
        while self.git.sessions() == sessions {
            ensure!(
                Instant::now() < deadline,
                "the store was not read again in {} s",
                PATIENCE.as_secs()
            );
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_secs(1)).await;
        let before = look().await?;
        sleep(QUIET).await;
        let after = look().await?;
        let syncs = after.0 - before.0;
        ensure!(syncs > 0, "the store was not read again in {} s", QUIET.as_secs());
        Ok(Unchanged {
            syncs,
            git_requests_per_sync: (after.1 - before.1) as f64 / syncs as f64,
            ms_per_sync: (after.2 - before.2) * 1e3 / syncs as f64,
        })
    }

    /// Starts the controller anew; how long it takes until it answers with a bead, in seconds.
    async fn restart(&self, rig: &str) -> Result<(Process, f64)> {
        let begun = Instant::now();
        let process = self.start().await?;
        let mut caller = caller(&process, &self.client, "polecat-ctl").await?;
        let ask = GetBeadsRequest { rig: rig.to_owned(), ids: vec![store::id(0)] };
        let found = caller.get(ask).await.context("asking for a bead")?.into_inner();
        ensure!(found.beads.len() == 1, "the store does not hold {}", store::id(0));
        Ok((process, begun.elapsed().as_secs_f64()))
    }
}

fn table(m: &Measured) -> String {
    let spread =
        |of: &Option<Spread>| of.as_ref().map_or_else(|| "never".to_owned(), ToString::to_string);
    let Unchanged { syncs, git_requests_per_sync, ms_per_sync } = &m.unchanged;
    [
        format!("a store of {} lines in git", m.lines),
        format!("first sync: {:.2} s", m.first_sync_seconds),
        format!("comment: {}", spread(&m.comment)),
        format!("sync of the unchanged store: {ms_per_sync:.1} ms and {git_requests_per_sync:.1} requests to the git server, of {syncs}"),
        format!("resident memory after that: {:.1} MiB", mebibytes(m.rss_bytes)),
        format!("from a restart to the first answer: {:.2} s", m.restart_seconds),
        format!("\nwith a write branch of {} commits", m.history),
        format!("first sync: {:.2} s", m.history_first_sync_seconds),
        format!("from a restart to the first answer: {:.2} s", m.history_restart_seconds),
        format!("resident memory after that: {:.1} MiB", mebibytes(m.history_rss_bytes)),
    ]
    .join("\n")
}
