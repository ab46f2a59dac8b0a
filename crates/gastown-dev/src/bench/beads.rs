//! `cargo xtask bench beads`: one beadstore-ctl with a large store in git.

mod client;

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

use xtask::cli::BeadsArgs;

use super::figures::{Figures, mebibytes, program};
use super::metrics;
use super::spread::Spread;
use super::store;
use client::caller;

/// Where the BeadStores are.
const NAMESPACE: &str = "default";
/// How long a store may take to be read.
const SYNC_LIMIT: Duration = Duration::from_mins(5);
/// How long an unchanged store is watched.
const UNCHANGED: Duration = Duration::from_mins(1);
/// The sync interval meanwhile, the shortest that is allowed.
const SHORT_INTERVAL: &str = "5s";
/// The sync interval while calls are timed, so that no sync disturbs them.
const LONG_INTERVAL: &str = "1h";

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
    /// From the start of a process that finds its mirror to its first response with a bead.
    restart_seconds: f64,
    history: u32,
    /// As `first_sync_seconds`, for a store whose write branch has a long history.
    history_first_sync_seconds: f64,
    /// As `restart_seconds`, for that store.
    history_restart_seconds: f64,
    history_rss_bytes: u64,
}

/// Syncs of a store that has not changed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unchanged {
    /// How many there were.
    syncs: u64,
    git_requests_per_sync: f64,
    /// The time of all reconciles, divided by the syncs.
    ms_per_sync: f64,
}

/// What the measurements use.
struct Setup<'a> {
    plane: &'a ControlPlane,
    client: Client,
    git: &'a GitHttp,
    program: &'a Path,
    data: &'a Path,
}

/// Measures.
pub async fn run(args: &BeadsArgs) -> Result<Figures> {
    let program = program("beadstore-ctl").await?;
    println!("beads: a control plane and a git server");
    let plane = ControlPlane::start(Options::default()).await?;
    install::install(&plane, Controller::BeadStore, &["polecat-ctl"]).await?;
    let (repositories, data) = (
        TempDir::new().context("a folder for repositories")?,
        TempDir::new().context("a folder for mirrors")?,
    );
    let git = GitHttp::start(repositories.path()).await?;
    let setup = Setup {
        plane: &plane,
        client: plane.client()?,
        git: &git,
        program: &program,
        data: data.path(),
    };
    let measured = measure(&setup, args).await?;
    Figures::new(table(&measured), &measured)
}

async fn measure(setup: &Setup<'_>, args: &BeadsArgs) -> Result<Measured> {
    let (lines, calls) = (usize::try_from(args.lines)?, usize::try_from(args.calls)?);
    let process = setup.start().await?;
    println!("beads: a store of {lines} lines");
    store::fill(&setup.git.create("plain").await?, lines, 0).await?;
    let first_sync_seconds = setup.first_sync("plain").await?;
    println!("beads: {calls} comments");
    let comment =
        setup.comments(&process, "plain", store::free(lines).take(calls).collect()).await?;
    println!("beads: an unchanged store for {} s", UNCHANGED.as_secs());
    let unchanged = setup.unchanged(&process, "plain").await?;
    let rss_bytes = process.resident()?;
    process.end().await?;
    let (process, restart_seconds) = setup.restart("plain").await?;
    process.end().await?;

    println!("beads: a write branch of {} commits", args.history);
    Api::<BeadStore>::namespaced(setup.client.clone(), NAMESPACE)
        .delete("plain", &kube::api::DeleteParams::default())
        .await?;
    store::fill(&setup.git.create("old").await?, lines, usize::try_from(args.history)?).await?;
    let process = setup.start().await?;
    let history_first_sync_seconds = setup.first_sync("old").await?;
    process.end().await?;
    let (process, history_restart_seconds) = setup.restart("old").await?;
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

impl Setup<'_> {
    async fn start(&self) -> Result<Process> {
        let flags = ["--data-dir".to_owned(), self.data.display().to_string()];
        Process::start(self.plane, Controller::BeadStore, self.program, &flags).await
    }

    fn stores(&self) -> Api<BeadStore> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Creates a rig and its store of this name; returns how long the first sync took, in seconds.
    async fn first_sync(&self, name: &str) -> Result<f64> {
        let spec = json!({"gitURL": self.git.repository(name), "beadsPrefix": store::PREFIX});
        Api::all(self.client.clone())
            .create(&PostParams::default(), &Rig::new(name, serde_json::from_value(spec)?))
            .await?;
        let spec = BeadStoreSpec {
            sync_interval: LONG_INTERVAL.to_owned(),
            ..BeadStoreSpec::of_rig(name, store::PREFIX)
        };
        let begun = Instant::now();
        self.stores().create(&PostParams::default(), &BeadStore::new(name, spec)).await?;
        let synced = |s: Option<&BeadStore>| {
            s.and_then(|s| s.status.as_ref())
                .is_some_and(|s| conditions::is_true(&s.conditions, condition::SYNCED))
        };
        let seen =
            tokio::time::timeout(SYNC_LIMIT, await_condition(self.stores(), name, synced)).await;
        let Ok(seen) = seen else {
            bail!("the store was not synced within {} s", SYNC_LIMIT.as_secs())
        };
        seen?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Comments on beads, one call at a time: each comment is a commit and a push.
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

    /// Measures syncs of a store that nothing changes.
    async fn unchanged(&self, process: &Process, name: &str) -> Result<Unchanged> {
        let often = json!({"spec": {"syncInterval": SHORT_INTERVAL}});
        self.stores().patch(name, &PatchParams::default(), &Patch::Merge(&often)).await?;
        let read = async || {
            let worked = metrics::value(
                &process.metrics().await?,
                "gastown_reconcile_duration_seconds_sum{controller=\"beadstore\"}",
            );
            anyhow::Ok((self.git.sessions(), self.git.requests(), worked))
        };
        // The first sync under the new interval is of a store that calls have changed.
        let (sessions, deadline) = (self.git.sessions(), Instant::now() + SYNC_LIMIT);
        while self.git.sessions() == sessions {
            ensure!(
                Instant::now() < deadline,
                "the store was not synced again within {} s",
                SYNC_LIMIT.as_secs()
            );
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_secs(1)).await;
        let before = read().await?;
        sleep(UNCHANGED).await;
        let after = read().await?;
        let syncs = after.0 - before.0;
        ensure!(syncs > 0, "the store was not synced again within {} s", UNCHANGED.as_secs());
        Ok(Unchanged {
            syncs,
            git_requests_per_sync: (after.1 - before.1) as f64 / syncs as f64,
            ms_per_sync: (after.2 - before.2) * 1e3 / syncs as f64,
        })
    }

    /// Starts the controller again; returns how long it took to return a bead, in seconds.
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
        format!("from a restart to the first response: {:.2} s", m.restart_seconds),
        format!("\nwith a write branch of {} commits", m.history),
        format!("first sync: {:.2} s", m.history_first_sync_seconds),
        format!("from a restart to the first response: {:.2} s", m.history_restart_seconds),
        format!("resident memory after that: {:.1} MiB", mebibytes(m.history_rss_bytes)),
    ]
    .join("\n")
}
