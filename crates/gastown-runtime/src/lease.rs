//! Who may write: a `coordination.k8s.io` Lease taken by compare-and-swap.
//!
//! Nobody compares clocks. A holder trusts its lease for [`Config::renew_deadline`] after it *sent*
//! the last renewal that succeeded; a candidate takes over when it has *seen no change* for
//! [`Config::duration`], both on their own monotonic clock. The second is longer than the first, so
//! at most one believes in itself.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Which lease, for whom, how fast.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Who asks.
    pub identity: String,
    /// A lease unchanged for this long is free.
    pub duration: Duration,
    /// A holder stops believing in itself after this long without a successful renewal. Less than
    /// `duration`.
    pub renew_deadline: Duration,
    /// Between two renewals that succeed.
    pub renew: Duration,
    /// Between two looks of a candidate, and before a failed renewal is tried again.
    pub retry: Duration,
}

impl Config {
    /// 15 s, 10 s, 5 s, 2 s.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            renew: Duration::from_secs(5),
            retry: Duration::from_secs(2),
        }
    }
}

/// What is known of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseState {
    /// Who holds it; empty when nobody is known to.
    pub holder: String,
    /// How often it changed hands: the fencing token of external effects.
    pub transitions: i32,
    /// Until when the holder may act. In the past for another's lease whose end is not known.
    pub valid_until: Instant,
}

/// A view of the lease. Clones share.
#[derive(Clone, Debug)]
pub struct Leadership {
    identity: Arc<str>,
    state: watch::Receiver<Arc<LeaseState>>,
}

impl Leadership {
    /// Leadership that is always held, for a process that cannot have a rival: a test, a tool.
    pub fn always(identity: &str) -> Self {
        // Thirty years: tokio's clock cannot go to infinity.
        let valid_until = Instant::now() + Duration::from_secs(86_400 * 365 * 30);
        let (sender, state) = watch::channel(Arc::new(LeaseState {
            holder: identity.to_owned(),
            transitions: 0,
            valid_until,
        }));
        // The sender lives as long as the process: a closed channel would read as a lost lease.
        std::mem::forget(sender);
        Self { identity: identity.into(), state }
    }

    /// The transitions of our lease while we hold it at this moment, else nothing. Look before each
    /// write.
    pub fn held(&self) -> Option<i32> {
        let state = self.state.borrow();
        (*state.holder == *self.identity && Instant::now() < state.valid_until)
            .then_some(state.transitions)
    }

    /// Who holds it, as far as is known: where a call may be sent on.
    pub fn holder(&self) -> Option<String> {
        let holder = self.state.borrow().holder.clone();
        (!holder.is_empty()).then_some(holder)
    }

    /// Waits until we hold it.
    pub async fn acquired(&self) -> i32 {
        let mut state = self.state.clone();
        loop {
            if let Some(transitions) = self.held() {
                return transitions;
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until we do not hold it, by its release, by another's name in it, or by its end.
    pub async fn lost(&self) {
        let mut state = self.state.clone();
        while self.held().is_some() {
            let until = state.borrow_and_update().valid_until;
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                changed = state.changed() => if changed.is_err() { return },
            }
        }
    }

    /// The channel itself.
    pub fn subscribe(&self) -> watch::Receiver<Arc<LeaseState>> {
        self.state.clone()
    }
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("talking to the API server about the lease")]
    Api(#[source] Box<kube::Error>),
    #[error("no answer about the lease within {0:?}")]
    Timeout(Duration),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// Takes and keeps the lease until `stop` is cancelled, then releases it. The task ends after the
/// release.
pub fn spawn(
    client: kube::Client,
    config: Config,
    metrics: &Metrics,
    stop: CancellationToken,
) -> (Leadership, tokio::task::JoinHandle<()>) {
    let nobody = LeaseState { holder: String::new(), transitions: 0, valid_until: Instant::now() };
    let (sender, state) = watch::channel(Arc::new(nobody));
    let leadership = Leadership { identity: config.identity.as_str().into(), state };
    let api = Api::namespaced(client, &config.namespace);
    let keeper = Keeper { api, config, sender, seen: None, ours: false, metrics: metrics.clone() };
    (leadership, tokio::spawn(keeper.run(stop)))
}

struct Keeper {
    api: Api<Lease>,
    config: Config,
    sender: watch::Sender<Arc<LeaseState>>,
    /// The record as last read or written, and when we first saw it so.
    seen: Option<(Lease, Instant)>,
    /// Whether `seen` is our own write of this process.
    ours: bool,
    metrics: Metrics,
}

impl Keeper {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let held = self.step().await;
            self.metrics.lease_held.set(i64::from(held));
            // A holder whose renewal failed has little time left.
            let retry = if self.still_valid() { self.config.retry / 4 } else { self.config.retry };
            let wait = crate::jittered(if held { self.config.renew } else { retry });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => break,
            }
        }
        self.release().await;
        self.metrics.lease_held.set(0);
    }

    /// One attempt; true after a renewal that succeeded.
    async fn step(&mut self) -> bool {
        let attempt = self.attempt().await;
        match attempt {
            Ok(held) => held,
            Err(error) => {
                // What a request that failed has done is not known: look again before writing.
                self.ours = false;
                tracing::warn!(
                    lease = self.config.name,
                    error = &error as &dyn std::error::Error,
                    "the lease could not be renewed"
                );
                false
            }
        }
    }

    async fn attempt(&mut self) -> Result<bool, Error> {
        if !self.ours {
            self.look().await?;
        }
        let Some((lease, since)) = self.seen.clone() else {
            let fresh = self.record(None, 0);
            let sent = Instant::now();
            let params = PostParams::default();
            let answer = self.within(self.api.create(&params, &fresh)).await?;
            return self.write(sent, answer);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let transitions = spec.lease_transitions.unwrap_or_default();
        let wanted = if self.ours {
            self.record(Some(&lease), transitions)
        } else if holder.is_empty()
            || holder == self.config.identity
            || since.elapsed() >= self.patience_with(&spec)
        {
            // A lease of ours that this process did not write is a predecessor's: its effects need
            // another token.
            let predecessor = holder != self.config.identity || !self.still_valid();
            self.record(
                Some(&lease),
                if predecessor { transitions.saturating_add(1) } else { transitions },
            )
        } else {
            self.publish(&holder, transitions, Instant::now());
            return Ok(false);
        };
        let sent = Instant::now();
        let params = PostParams::default();
        let answer = self.within(self.api.replace(&self.config.name, &params, &wanted)).await?;
        self.write(sent, answer)
    }

    /// A request that is not answered in a quarter of the renew deadline has failed: there must be
    /// time for another.
    async fn within<T>(&self, request: impl Future<Output = T>) -> Result<T, Error> {
        let patience = self.config.renew_deadline / 4;
        tokio::time::timeout(patience, request).await.map_err(|_| Error::Timeout(patience))
    }

    /// How long another's lease stands unchanged: what its holder wrote, but never less than our
    /// own measure.
    fn patience_with(&self, spec: &LeaseSpec) -> Duration {
        let theirs = Duration::from_secs(
            u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default(),
        );
        theirs.clamp(self.config.duration, self.config.duration * 4)
    }

    fn still_valid(&self) -> bool {
        let state = self.sender.borrow();
        state.holder == self.config.identity && Instant::now() < state.valid_until
    }

    async fn look(&mut self) -> Result<(), Error> {
        let Some(lease) = self.within(self.api.get_opt(&self.config.name)).await?? else {
            self.seen = None;
            return Ok(());
        };
        let same = self.seen.as_ref().is_some_and(|(seen, _)| {
            seen.resource_version() == lease.resource_version() && seen.uid() == lease.uid()
        });
        if !same {
            self.seen = Some((lease, Instant::now()));
        }
        Ok(())
    }

    fn write(&mut self, sent: Instant, answer: kube::Result<Lease>) -> Result<bool, Error> {
        match answer {
            Ok(lease) => {
                let transitions =
                    lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default();
                self.seen = Some((lease, Instant::now()));
                self.ours = true;
                let identity = self.config.identity.clone();
                self.publish(&identity, transitions, sent + self.config.renew_deadline);
                Ok(true)
            }
            // Somebody was faster, or it is gone: look again next time.
            Err(kube::Error::Api(status))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                self.ours = false;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn record(&self, present: Option<&Lease>, transitions: i32) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = present.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let taken = spec.holder_identity.as_deref() != Some(&self.config.identity)
            || spec.lease_transitions != Some(transitions);
        let mut lease = present.cloned().unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.config.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        lease.metadata.managed_fields = None;
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(
                i32::try_from(self.config.duration.as_secs()).unwrap_or(15),
            ),
            lease_transitions: Some(transitions),
            acquire_time: if taken { Some(now.clone()) } else { spec.acquire_time },
            renew_time: Some(now),
            ..spec
        });
        lease
    }

    fn publish(&self, holder: &str, transitions: i32, valid_until: Instant) {
        let before = self.sender.send_replace(Arc::new(LeaseState {
            holder: holder.to_owned(),
            transitions,
            valid_until,
        }));
        if before.holder != holder || before.transitions != transitions {
            tracing::info!(
                lease = self.config.name,
                holder,
                transitions,
                "the holder of the lease has changed"
            );
        }
    }

    /// Empties the holder, if it is us, so that the next candidate need not wait.
    async fn release(&mut self) {
        let held = self.ours;
        self.publish("", 0, Instant::now());
        let (true, Some((lease, _))) = (held, self.seen.take()) else { return };
        let mut free = lease;
        free.metadata.managed_fields = None;
        if let Some(spec) = free.spec.as_mut() {
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        let params = PostParams::default();
        let release = self.api.replace(&self.config.name, &params, &free);
        match tokio::time::timeout(Duration::from_secs(3), release).await {
            Ok(Ok(_)) => tracing::info!(lease = self.config.name, "the lease is released"),
            Ok(Err(error)) => {
                tracing::warn!(
                    lease = self.config.name,
                    error = &error as &dyn std::error::Error,
                    "the lease was not released"
                );
            }
            Err(_) => {
                tracing::warn!(lease = self.config.name, "the lease was not released: no answer")
            }
        }
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
