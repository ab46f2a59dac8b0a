//! `gt sync`: the sidecar that pushes the agent's work to the remote. Of the pod's long-running
//! containers it alone has the git credentials, and it alone talks to the witness.

mod escalations;
pub(crate) mod failure;
mod inventory;
mod pusher;
mod relay;
mod repository;
pub mod server;
mod spacing;
pub(crate) mod wip;
pub mod witness;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub use escalations::Escalations;
pub use relay::Relay;

use crate::paths::Paths;
use crate::settings::SyncSettings;
use crate::termination;
use pusher::Pusher;
use server::Handlers;
use witness::Link;
use worker::Worker;

/// How long escalations that the witness has not received may delay the end.
const LAST_ESCALATIONS: Duration = Duration::from_secs(10);

/// How long the last heartbeat may delay the end.
const LAST_HEARTBEAT: Duration = Duration::from_secs(1);

/// Runs until SIGTERM, then pushes what is left and writes the termination message.
pub async fn run(settings: SyncSettings, paths: &Paths) -> anyhow::Result<()> {
    tempfile::env::override_temp_dir(&paths.private_tmp()).ok();
    let mut term = signal(SignalKind::terminate())?;
    let (git, requests) = mpsc::channel(8);
    let listener = server::bind(&paths.socket())?;
    let relay = Arc::new(Relay::new(crate::now_ms().unsigned_abs()));
    let escalations = Arc::new(Escalations::new(settings.who.clone(), settings.witness.clone()));
    let mut server = JoinSet::new();
    server.spawn(server::serve(
        listener,
        Handlers { git: git.clone(), relay: relay.clone(), escalations: escalations.clone() },
    ));
    // Beside the git work, which waits for neither; both end with this function.
    let mut link = JoinSet::new();
    let finish = CancellationToken::new();
    let mut raising = JoinSet::new();
    if let Some(witness) = settings.witness.clone() {
        let (who, relay, finish) = (settings.who.clone(), relay.clone(), finish.clone());
        link.spawn(Link { witness, who, relay, git, finish }.run());
        let escalations = escalations.clone();
        raising.spawn(async move { escalations.run().await });
    }
    let grace = settings.grace;
    let mut pusher = Pusher::open(settings.clone(), paths.clone())?;
    tracing::info!(branch = %settings.work, "watching the work branch");
    let mut worker = Worker { pusher: &mut pusher, settings: &settings, paths, relay: &relay };
    tokio::select! {
        () = worker.run(requests) => {}
        _ = term.recv() => tracing::info!("SIGTERM: pushing what is left"),
    }
    server.abort_all();
    raising.shutdown().await;
    relay.set_git_state(worker.pusher.pushed_commit(), true, crate::now_ms());
    let until = Instant::now() + LAST_ESCALATIONS.min(grace / 4);
    let ((), unsent) = tokio::join!(worker.push_until(grace), escalations.flush(until));
    let mut report = pusher.report().await;
    if unsent > 0 {
        let text = format!("the witness could not be reached; escalations not sent: {unsent}");
        termination::add_to_message(&mut report, &text);
    }
    tracing::info!(result = ?report.result, commit = ?report.commit, ahead = ?report.ahead, wip = ?report.wip, "ended");
    termination::write(paths, &mut report)?;
    // The record is written: the last heartbeat adds nothing but what is seen in a trace.
    finish.cancel();
    let _ = timeout(LAST_HEARTBEAT, link.join_next()).await;
    Ok(())
}
