//! The sidecar's loop of git work: it pushes what the agent committed, saves uncommitted changes,
//! fetches the target branch, and answers requests for any of it.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::failure::Failure;
use super::pusher::Pusher;
use super::relay::Relay;
use super::spacing::Spacing;
use crate::paths::Paths;
use crate::settings::SyncSettings;
use crate::socket::{Answer, PendingRequest, Request};
use crate::state::write_atomically;
use crate::termination;

/// How often the agent's branch is read.
const POLL: Duration = Duration::from_millis(500);
/// The first pause between two attempts; it doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often the workspace is saved while the agent must end and has not.
const ENDING_EVERY: Duration = Duration::from_secs(30);
/// How many pushes follow each other at once, and how often one more may.
const PUSHES: (u32, Duration) = (10, Duration::from_secs(3));
/// How many saves of the workspace that the agent causes follow each other at once, and how often
/// one more may.
const SAVES: (u32, Duration) = (4, Duration::from_secs(20));

/// How many requests for the end of the work are carried out at once, and how often one more may be;
/// further ones wait.
const FINISHES: (u32, Duration) = (4, Duration::from_secs(20));

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

/// The sidecar's git work.
pub(super) struct Worker<'a> {
    pub pusher: &'a mut Pusher,
    pub settings: &'a SyncSettings,
    pub paths: &'a Paths,
    pub relay: &'a Relay,
}

/// What the loop remembers between two steps.
struct Progress {
    pause: Pause,
    pushes: Spacing,
    saves: Spacing,
    finishes: Spacing,
    /// The clients whose request for the end of the work waits for its turn.
    delayed: Vec<oneshot::Sender<Answer>>,
    /// The clients that wait for the end of the work.
    finishing: Vec<oneshot::Sender<Answer>>,
    /// Since when the agent must end.
    ending: Option<Instant>,
    /// When the workspace was last saved as a whole.
    last_all: Instant,
    /// The refusal that was shown to the agent.
    reported: Option<Failure>,
    /// What the file of the readiness probe holds.
    unsaved: Option<String>,
}

impl Worker<'_> {
    /// Works until it is cancelled.
    pub async fn run(&mut self, mut requests: mpsc::Receiver<PendingRequest>) {
        let settings = self.settings;
        let (mut poll, mut snapshot, mut refresh) =
            (ticker(POLL), ticker(settings.snapshot_every), ticker(settings.refresh_every));
        let deadline = settings.deadline.map(|after| Instant::now() + after);
        let now = Instant::now();
        let mut progress = Progress {
            pause: Pause::new(),
            pushes: Spacing::new(PUSHES.0, PUSHES.1, now),
            saves: Spacing::new(SAVES.0, SAVES.1, now),
            finishes: Spacing::new(FINISHES.0, FINISHES.1, now),
            delayed: Vec::new(),
            finishing: Vec::new(),
            ending: None,
            last_all: now,
            reported: None,
            unsaved: None,
        };
        loop {
            self.publish(&mut progress, false);
            tokio::select! {
                Some((request, reply)) = requests.recv() => {
                    self.publish(&mut progress, request == Request::Finish);
                    self.answer(&request, reply, &mut progress).await;
                }
                _ = poll.tick() => {
                    let over = deadline.is_some_and(|at| Instant::now() >= at);
                    if progress.ending.is_none() && (over || is_draining(self.paths)) {
                        progress.ending = Some(Instant::now());
                    }
                    self.step(&mut progress).await;
                }
                _ = snapshot.tick() => {
                    let _ = self.pusher.save_tree().await;
                }
                _ = refresh.tick() => {
                    if let Err(failure) = self.pusher.fetch_target().await {
                        let message = failure.message;
                        tracing::debug!(message, "the target branch is not fetched");
                    }
                }
            }
        }
    }

    /// Pushes what has moved, and tries again what failed.
    async fn step(&mut self, progress: &mut Progress) {
        let now = Instant::now();
        let is_over = progress.pause.is_over();
        progress.delayed.retain(|reply| !reply.is_closed());
        if !progress.delayed.is_empty() && progress.finishes.take(now) {
            progress.finishing.append(&mut progress.delayed);
        }
        let ended = progress.ending.is_some() || !progress.finishing.is_empty();
        let unsaved = progress.ending.is_some_and(|since| {
            self.pusher.complete_since().is_none_or(|complete| complete < since)
                || now >= progress.last_all + ENDING_EVERY
        });
        if is_over && (self.pusher.wants_retry() || !progress.finishing.is_empty() || unsaved) {
            progress.last_all = now;
            let _ = self.pusher.push_all(ended).await;
            progress.pause.update(self.pusher.wants_retry());
            self.answer_finishing(progress);
            if ended {
                self.write_record().await;
            }
        } else if self.pusher.has_moved() && is_over && progress.pushes.take(now) {
            let _ = self.pusher.push_branch().await;
            progress.pause.update(self.pusher.wants_retry());
        } else if is_over && self.pusher.has_side_commit() && progress.saves.take(now) {
            let _ = self.pusher.save_tree().await;
            progress.pause.update(self.pusher.wants_retry());
        }
        self.report_refusal(progress);
    }

    /// Carries out a request.
    async fn answer(
        &mut self,
        request: &Request,
        reply: oneshot::Sender<Answer>,
        progress: &mut Progress,
    ) {
        let now = Instant::now();
        let (result, spacing) = match request {
            Request::Push if progress.pushes.take(now) => (self.pusher.push_branch().await, None),
            Request::Push => (Ok(()), Some(PUSHES.1)),
            Request::Checkpoint if progress.saves.take(now) => {
                (self.pusher.push_all(false).await, None)
            }
            Request::Checkpoint => (Ok(()), Some(SAVES.1)),
            Request::Finish if !progress.finishes.take(now) => {
                progress.delayed.push(reply);
                return;
            }
            _ => (self.pusher.push_all(true).await, None),
        };
        if let Some(spacing) = spacing {
            let message = format!(
                "too many of these requests: one in {} s is carried out; the work is saved without them",
                spacing.as_secs()
            );
            let _ = reply.send(Answer { message, ..Answer::default() });
            return;
        }
        progress.pause.update(self.pusher.wants_retry());
        if *request == Request::Finish {
            progress.finishing.push(reply);
            self.answer_finishing(progress);
            self.write_record().await;
        } else {
            // The client may be gone; the work is done in any case.
            let _ = reply.send(answer_of(self.pusher, result));
        }
        self.report_refusal(progress);
    }

    /// Answers the clients that wait for the end of the work, once everything is on the remote: the
    /// work branch, or what the remote refused of it with the snapshot.
    fn answer_finishing(&self, progress: &mut Progress) {
        progress.finishing.retain(|reply| !reply.is_closed());
        if self.pusher.wants_retry() {
            return;
        }
        for reply in progress.finishing.drain(..) {
            let _ = reply.send(answer_of(self.pusher, self.pusher.result()));
        }
    }

    /// Shows the agent once what the remote refuses, while it can still do something about it.
    fn report_refusal(&self, progress: &mut Progress) {
        let refused = self.pusher.result().err().filter(|failure| !failure.retryable);
        if refused.is_some() && refused != progress.reported && progress.ending.is_none() {
            let message = refused.as_ref().map(|f| f.message.as_str()).unwrap_or_default();
            self.relay.nudge_agent(&format!(
                "The remote does not accept the work branch: {message}\nYour commits are saved, but \
                 they cannot be merged like this. Change them so that the remote accepts them."
            ));
        }
        progress.reported = refused;
    }

    /// Publishes the state for the witness and for the readiness probe.
    fn publish(&mut self, progress: &mut Progress, finishing: bool) {
        self.publish_steps();
        let waits = !progress.finishing.is_empty() || !progress.delayed.is_empty();
        let saving = finishing || waits;
        self.relay.set_git_state(self.pusher.pushed_commit(), saving, crate::now_ms());
        let failure = self.pusher.saving();
        self.relay.set_saving(failure.as_deref().unwrap_or_default());
        let unsaved = failure.or_else(|| {
            let since = progress.ending?;
            let saved = self.pusher.complete_since().is_some_and(|complete| complete >= since);
            (!saved).then(|| "the end of the work is being saved".to_owned())
        });
        let text = unsaved.unwrap_or_default();
        if progress.unsaved.as_ref() != Some(&text) {
            if let Err(e) = write_atomically(&self.paths.unsaved(), text.as_bytes()) {
                tracing::warn!(error = %e, "the state of saving cannot be written");
            }
            progress.unsaved = Some(text);
        }
    }

    fn publish_steps(&mut self) {
        for step in self.pusher.take_steps() {
            self.relay.add_step(step);
        }
    }

    /// Writes the record as it is now: a sidecar that is killed leaves this one.
    async fn write_record(&self) {
        let mut report = self.pusher.report().await;
        if let Err(e) = termination::write(self.paths, &mut report) {
            tracing::warn!(error = %e, "the record cannot be written");
        }
    }

    /// Pushes until everything is on the remote, or the grace period is nearly over.
    pub async fn push_until(&mut self, grace: Duration) {
        let end = Instant::now() + grace.saturating_sub(Duration::from_secs(5).min(grace / 4));
        let mut pause = FIRST_PAUSE;
        loop {
            match tokio::time::timeout_at(end, self.pusher.push_all(true)).await {
                Err(_) => return,
                Ok(_) if !self.pusher.wants_retry() => return,
                Ok(_) => {}
            }
            self.publish_steps();
            // It may be killed before the grace period is over: the agent's end used a part of it.
            self.write_record().await;
            self.relay.set_saving(&self.pusher.saving().unwrap_or_default());
            if Instant::now() + pause >= end {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Whether the controller wants the pod to end.
fn is_draining(paths: &Paths) -> bool {
    std::fs::metadata(paths.drain()).is_ok_and(|m| m.len() > 0)
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
