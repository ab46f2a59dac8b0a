//! The sidecar's loop of git work: it pushes what the agent committed, saves uncommitted changes,
//! fetches the target branch, and answers requests for any of it.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::failure::Failure;
use super::pusher::Pusher;
use super::relay::Relay;
use crate::paths::Paths;
use crate::settings::SyncSettings;
use crate::socket::{Answer, PendingRequest, Request};

/// How often the agent's branch is read.
const POLL: Duration = Duration::from_millis(500);
/// The first pause between two attempts; it doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The pause after failures: it doubles until an attempt succeeds. The loop asks it at each tick
/// whether to try again, so there is not one call that `backon` could repeat.
struct Pause {
    end: Instant,
    next: Duration,
}

impl Pause {
    fn new() -> Self {
        Self { end: Instant::now(), next: FIRST_PAUSE }
    }

    fn update(&mut self, failed: bool) {
        if failed {
            self.end = Instant::now() + self.next;
            self.next = (self.next * 2).min(PAUSE_MAX);
        } else {
            *self = Self::new();
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}

fn ticker(every: Duration) -> Interval {
    let mut ticker = interval(every.max(Duration::from_millis(100)));
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker.reset();
    ticker
}

/// Works until it is cancelled.
pub(super) async fn run(
    pusher: &mut Pusher,
    settings: &SyncSettings,
    paths: &Paths,
    mut requests: mpsc::Receiver<PendingRequest>,
    relay: &Relay,
) {
    let (mut poll, mut snapshot, mut refresh) =
        (ticker(POLL), ticker(settings.snapshot_every), ticker(settings.refresh_every));
    let mut pause = Pause::new();
    let mut finishing: Vec<oneshot::Sender<Answer>> = Vec::new();
    let mut drained = false;
    loop {
        relay.set_git_state(pusher.pushed_commit(), !finishing.is_empty(), crate::now_ms());
        tokio::select! {
            Some((request, reply)) = requests.recv() => {
                let saving = !finishing.is_empty() || request == Request::Finish;
                relay.set_git_state(pusher.pushed_commit(), saving, crate::now_ms());
                let failed = answer(pusher, &request, reply, &mut finishing).await;
                pause.update(failed);
            }
            _ = poll.tick() => {
                let drain = !drained && is_draining(paths);
                drained |= drain;
                if drain || (pause.is_over() && (pusher.wants_retry() || !finishing.is_empty())) {
                    let _ = pusher.push_all().await;
                    pause.update(pusher.wants_retry());
                    answer_finishing(pusher, &mut finishing);
                } else if pusher.has_moved() {
                    let _ = pusher.push_branch().await;
                    pause.update(pusher.wants_retry());
                }
            }
            _ = snapshot.tick() => {
                let _ = pusher.save_tree().await;
            }
            _ = refresh.tick() => {
                if let Err(failure) = pusher.fetch_target().await {
                    tracing::debug!(message = failure.message, "the target branch is not fetched");
                }
            }
        }
    }
}

/// Whether the controller wants the pod to end.
fn is_draining(paths: &Paths) -> bool {
    std::fs::metadata(paths.drain()).is_ok_and(|m| m.len() > 0)
}

/// Carries out a request; `true` when it failed and has to be tried again.
async fn answer(
    pusher: &mut Pusher,
    request: &Request,
    reply: oneshot::Sender<Answer>,
    finishing: &mut Vec<oneshot::Sender<Answer>>,
) -> bool {
    let result = match request {
        Request::Push => pusher.push_branch().await,
        _ => pusher.push_all().await,
    };
    let retryable = result.as_ref().is_err_and(|failure| failure.retryable);
    if *request == Request::Finish && retryable {
        finishing.push(reply);
    } else {
        // The client may be gone; the work is done in any case.
        let _ = reply.send(answer_of(pusher, result));
    }
    retryable
}

/// Answers the clients that wait for the end of the work, once another attempt cannot help.
fn answer_finishing(pusher: &Pusher, finishing: &mut Vec<oneshot::Sender<Answer>>) {
    finishing.retain(|reply| !reply.is_closed());
    if pusher.wants_retry() {
        return;
    }
    for reply in finishing.drain(..) {
        let _ = reply.send(answer_of(pusher, pusher.result()));
    }
}

fn answer_of(pusher: &Pusher, result: Result<(), Failure>) -> Answer {
    let (commit, wip) = (pusher.pushed_commit(), pusher.wip_ref());
    match result {
        Ok(()) => Answer { ok: true, commit, wip, ..Answer::default() },
        Err(failure) => Answer {
            ok: false,
            commit,
            wip,
            reason: Some(failure.result),
            message: failure.message,
            nudge: None,
        },
    }
}

/// Pushes until everything is on the remote, another attempt cannot help, or the grace period is
/// nearly over.
pub(super) async fn push_until(pusher: &mut Pusher, grace: Duration) {
    let end = Instant::now() + grace.saturating_sub(Duration::from_secs(5).min(grace / 4));
    let mut pause = FIRST_PAUSE;
    loop {
        match tokio::time::timeout_at(end, pusher.push_all()).await {
            Err(_) => return,
            Ok(_) if !pusher.wants_retry() => return,
            Ok(_) => {}
        }
        if Instant::now() + pause >= end {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
