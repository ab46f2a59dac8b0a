//! `gt sync`: the sidecar that carries the agent's work to the remote. It alone holds the git
//! credentials, and it alone speaks with the witness.

mod alarms;
mod board;
mod carrier;
pub mod witness;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

pub use alarms::Alarms;
pub use board::{Board, cut};
pub use carrier::{Carrier, Trouble};

use crate::paths::Paths;
use crate::record;
use crate::settings::Carry;
use crate::socket::{self, Answer, Asked, Desks, Request};
use witness::Link;

/// How often the agent's branch is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long alarms that the witness has not heard may hold up the end.
const LAST_ALARMS: Duration = Duration::from_secs(10);

/// Runs until SIGTERM, then carries what is left and writes the record.
pub async fn run(settings: Carry, paths: &Paths) -> anyhow::Result<()> {
    tempfile::env::override_temp_dir(&paths.private_tmp()).ok();
    let mut term = signal(SignalKind::terminate())?;
    let (git, asked) = mpsc::channel(8);
    let listener = socket::bind(&paths.socket())?;
    let board = Arc::new(Board::new(crate::now_ms().unsigned_abs()));
    let alarms = Arc::new(Alarms::new(settings.who.clone(), settings.witness.clone()));
    let mut server = JoinSet::new();
    server.spawn(socket::serve(
        listener,
        Desks { git: git.clone(), board: board.clone(), alarms: alarms.clone() },
    ));
    // Beside the git work, which waits for none of it; gone when this function ends.
    let mut beside = JoinSet::new();
    let mut raising = JoinSet::new();
    if let Some(witness) = settings.witness.clone() {
        beside.spawn(Link { witness, who: settings.who.clone(), board: board.clone(), git }.run());
        let alarms = alarms.clone();
        raising.spawn(async move { alarms.run().await });
    }
    let grace = settings.grace;
    let mut carrier = Carrier::open(settings.clone(), paths.clone())?;
    tracing::info!(branch = %settings.work, "carrying the work branch");
    tokio::select! {
        () = serve(&mut carrier, &settings, paths, asked, &board) => {}
        _ = term.recv() => tracing::info!("ending: the last carry"),
    }
    server.abort_all();
    raising.shutdown().await;
    board.note(carrier.holds().0, true, crate::now_ms());
    let until = Instant::now() + LAST_ALARMS.min(grace / 4);
    let ((), unheard) = tokio::join!(last_carry(&mut carrier, grace), alarms.last_try(until));
    let mut report = carrier.report().await;
    if unheard > 0 {
        let space = if report.message.is_empty() { "" } else { "; " };
        let _ = write!(
            report.message,
            "{space}the witness was away: alarms of the agent that nobody heard: {unheard}"
        );
    }
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

async fn serve(
    carrier: &mut Carrier,
    settings: &Carry,
    paths: &Paths,
    mut asked: mpsc::Receiver<Asked>,
    board: &Board,
) {
    let (mut look, mut snapshot, mut refresh) =
        (ticker(LOOK), ticker(settings.snapshot_every), ticker(settings.refresh_every));
    let mut pause = Pause::new();
    let mut finishing: Vec<oneshot::Sender<Answer>> = Vec::new();
    let mut drained = false;
    loop {
        board.note(carrier.holds().0, !finishing.is_empty(), crate::now_ms());
        tokio::select! {
            Some((request, reply)) = asked.recv() => {
                board.note(carrier.holds().0, !finishing.is_empty() || request == Request::Finish, crate::now_ms());
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
        Err(t) => Answer {
            ok: false,
            commit,
            wip,
            reason: Some(t.result),
            message: t.message,
            nudge: None,
        },
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
