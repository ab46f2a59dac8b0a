//! `gt sync`: the sidecar that carries the agent's work to the remote. It alone holds the git credentials.

mod carrier;

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

pub use carrier::{Carrier, Trouble};

use crate::paths::Paths;
use crate::record;
use crate::settings::Carry;
use crate::socket::{self, Answer, Asked, Request};

/// How often the agent's branch is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Runs until SIGTERM, then carries what is left and writes the record.
pub async fn run(settings: Carry, paths: &Paths) -> anyhow::Result<()> {
    tempfile::env::override_temp_dir(&paths.private_tmp()).ok();
    let mut term = signal(SignalKind::terminate())?;
    let (to, asked) = mpsc::channel(8);
    let listener = socket::bind(&paths.socket())?;
    let server = tokio::spawn(socket::serve(listener, to));
    let grace = settings.grace;
    let mut carrier = Carrier::open(settings.clone(), paths.clone())?;
    tracing::info!(branch = %settings.work, "carrying the work branch");
    tokio::select! {
        () = serve(&mut carrier, &settings, paths, asked) => {}
        _ = term.recv() => tracing::info!("ending: the last carry"),
    }
    server.abort();
    last_carry(&mut carrier, grace).await;
    let mut report = carrier.report().await;
    tracing::info!(result = ?report.result, commit = ?report.commit, ahead = report.ahead, wip = ?report.wip, "ended");
    record::write(paths, &mut report)?;
    Ok(())
}

/// A pause that doubles until something works.
struct Pause {
    next: Instant,
    length: Duration,
}

impl Pause {
    fn new() -> Self {
        Self { next: Instant::now(), length: Duration::from_secs(1) }
    }

    fn note(&mut self, failed: bool) {
        if failed {
            self.next = Instant::now() + self.length;
            self.length = (self.length * 2).min(PAUSE_MAX);
        } else {
            *self = Self::new();
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.next
    }
}

fn ticker(every: Duration) -> tokio::time::Interval {
    let mut ticker = interval(every.max(Duration::from_millis(100)));
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker.reset();
    ticker
}

async fn serve(carrier: &mut Carrier, settings: &Carry, paths: &Paths, mut asked: mpsc::Receiver<Asked>) {
    let (mut look, mut snapshot, mut refresh) = (ticker(LOOK), ticker(settings.snapshot_every), ticker(settings.refresh_every));
    let mut pause = Pause::new();
    let mut finishing: Vec<oneshot::Sender<Answer>> = Vec::new();
    let mut drained = false;
    loop {
        tokio::select! {
            Some((request, reply)) = asked.recv() => {
                let retry = answer(carrier, request, reply, &mut finishing).await;
                pause.note(retry);
            }
            _ = look.tick() => {
                let drain = !drained && drain_asked(paths);
                drained |= drain;
                if drain || (pause.is_over() && (carrier.wants_retry() || !finishing.is_empty())) {
                    let _ = carrier.carry().await;
                    let _ = carrier.save().await;
                    pause.note(carrier.wants_retry());
                    settle(carrier, &mut finishing);
                } else if carrier.moved() {
                    let _ = carrier.carry().await;
                    pause.note(carrier.wants_retry());
                }
            }
            _ = snapshot.tick() => {
                let _ = carrier.save().await;
            }
            _ = refresh.tick() => {
                if let Err(t) = carrier.refresh_target().await {
                    tracing::debug!(message = t.message, "the target branch is not refreshed");
                }
            }
        }
    }
}

/// Whether the controller asks for the pod's end.
fn drain_asked(paths: &Paths) -> bool {
    std::fs::metadata(paths.drain()).is_ok_and(|m| m.len() > 0)
}

/// Does what is asked for; `true` when it failed in passing.
async fn answer(
    carrier: &mut Carrier,
    request: Request,
    reply: oneshot::Sender<Answer>,
    finishing: &mut Vec<oneshot::Sender<Answer>>,
) -> bool {
    let mut done = carrier.carry().await;
    if request != Request::Push {
        done = done.and(carrier.save().await);
    }
    let transient = done.as_ref().is_err_and(|t| t.transient);
    if request == Request::Finish && transient {
        finishing.push(reply);
    } else {
        // Who asked may be gone; the work is done all the same.
        let _ = reply.send(told(carrier, done));
    }
    transient
}

/// Answers those who wait for the end, when nothing is left to try.
fn settle(carrier: &Carrier, finishing: &mut Vec<oneshot::Sender<Answer>>) {
    finishing.retain(|r| !r.is_closed());
    if carrier.wants_retry() {
        return;
    }
    for reply in finishing.drain(..) {
        let _ = reply.send(told(carrier, carrier.verdict()));
    }
}

fn told(carrier: &Carrier, done: Result<(), Trouble>) -> Answer {
    let (commit, wip) = carrier.holds();
    match done {
        Ok(()) => Answer { ok: true, commit, wip, ..Answer::default() },
        Err(t) => Answer { ok: false, commit, wip, reason: Some(t.result), message: t.message },
    }
}

/// Tries until all is on the remote, nothing helps, or the grace is nearly over.
async fn last_carry(carrier: &mut Carrier, grace: Duration) {
    let end = Instant::now() + grace.saturating_sub(Duration::from_secs(5).min(grace / 4));
    let mut pause = Duration::from_secs(1);
    loop {
        let both = async {
            let branch = carrier.carry().await;
            let tree = carrier.save().await;
            branch.and(tree)
        };
        match tokio::time::timeout_at(end, both).await {
            Err(_) => return,
            Ok(_) if !carrier.wants_retry() => return,
            Ok(_) => {}
        }
        if Instant::now() + pause >= end {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
