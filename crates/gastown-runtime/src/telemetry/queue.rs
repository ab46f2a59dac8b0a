//! The bounded queue of one signal's records, and the task that sends them in batches. Whoever adds a
//! record never waits: what does not fit is dropped and counted.

use std::time::Duration;

use futures::future::BoxFuture;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::counters::records;
use super::settings::Batch;
use super::transport::Refusal;

/// How often a batch is sent before it is given up.
const TRIES: u32 = 4;

/// Sends one batch once.
pub(super) type Send<B> =
    Box<dyn Fn(B) -> BoxFuture<'static, Result<(), Refusal>> + std::marker::Send + Sync>;

/// The queue. Clones share.
#[derive(Debug)]
pub(super) struct Queue<T> {
    records: mpsc::Sender<T>,
    dropped: Counter,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { records: self.records.clone(), dropped: self.dropped.clone() }
    }
}

impl<T> Queue<T> {
    /// Adds a record, or drops it.
    pub(super) fn add(&self, record: T) {
        if self.records.try_send(record).is_err() {
            self.dropped.inc();
        }
    }
}

/// The task that sends a queue's records.
#[derive(Debug)]
pub(super) struct Sending {
    task: JoinHandle<()>,
    stop: tokio::sync::oneshot::Sender<()>,
}

impl Sending {
    /// Has what waits sent, for at most `limit`.
    pub(super) async fn end(self, limit: Duration) {
        let Self { mut task, stop } = self;
        // It fails when the task has ended.
        let _ = stop.send(());
        if tokio::time::timeout(limit, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("the last telemetry was not sent within {limit:?}");
        }
    }
}

/// Begins to send records of a signal (`spans`, `logs`).
pub(super) fn start<T: Clone + std::marker::Send + 'static>(
    signal: &'static str,
    batch: Batch,
    send: Send<Vec<T>>,
) -> (Queue<T>, Sending) {
    let (sender, receiver) = mpsc::channel(batch.queue);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let sender_task = Sender { records: receiver, batch, outlet: Outlet::new(signal, send) };
    let task = tokio::spawn(sender_task.run(stopped));
    (Queue { records: sender, dropped: records(signal, "dropped") }, Sending { task, stop })
}

struct Sender<T> {
    records: mpsc::Receiver<T>,
    batch: Batch,
    outlet: Outlet<Vec<T>>,
}

impl<T: Clone + std::marker::Send + 'static> Sender<T> {
    async fn run(mut self, mut stopped: tokio::sync::oneshot::Receiver<()>) {
        loop {
            let mut batch = Vec::new();
            let is_last = self.fill(&mut batch, &mut stopped).await;
            let count = batch.len() as u64;
            if count > 0 {
                self.outlet.send(batch, count, is_last).await;
            } else if is_last {
                return;
            }
        }
    }

    /// Collects a batch: until it is full, or its first record has waited long enough. Returns whether
    /// no records come any more.
    async fn fill(
        &mut self,
        batch: &mut Vec<T>,
        stopped: &mut tokio::sync::oneshot::Receiver<()>,
    ) -> bool {
        let mut deadline = None;
        while batch.len() < self.batch.size {
            let wait = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = &mut *stopped, if !self.records.is_closed() => self.records.close(),
                record = self.records.recv() => match record {
                    Some(record) => batch.push(record),
                    None => return true,
                },
                () = wait => return false,
            }
            deadline.get_or_insert_with(|| Instant::now() + self.batch.delay);
        }
        self.records.is_closed()
    }
}

/// Sends batches, counts their records, and logs when the collector stops or begins to take them.
pub(super) struct Outlet<B> {
    signal: &'static str,
    way: Send<B>,
    sent: Counter,
    failed: Counter,
    is_failing: bool,
}

impl<B: Clone> Outlet<B> {
    pub(super) fn new(signal: &'static str, way: Send<B>) -> Self {
        let (sent, failed) = (records(signal, "sent"), records(signal, "failed"));
        Self { signal, way, sent, failed, is_failing: false }
    }

    /// Sends a batch of `count` records, again where that may help. `is_last`: the process ends, and
    /// there is no time for that.
    pub(super) async fn send(&mut self, batch: B, count: u64, is_last: bool) {
        for tried in 1..=TRIES {
            let Err(refusal) = (self.way)(batch.clone()).await else {
                self.sent.inc_by(count);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!(signal = self.signal, "telemetry is taken again");
                }
                return;
            };
            self.report(&refusal);
            if !refusal.retryable || is_last || tried == TRIES {
                break;
            }
            let pause = Duration::from_secs(1 << tried.min(5));
            tokio::time::sleep(crate::jittered(pause)).await;
        }
        self.failed.inc_by(count);
    }

    /// Logs the first failure, and none of those that follow from it.
    fn report(&mut self, refusal: &Refusal) {
        if !std::mem::replace(&mut self.is_failing, true) {
            let (signal, detail) = (self.signal, &refusal.why);
            tracing::warn!(signal, detail, "telemetry is not taken by the collector");
        }
    }
}
