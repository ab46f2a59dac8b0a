//! Leader election: a `coordination.k8s.io` Lease, acquired by compare-and-swap.
//!
//! Nobody compares clocks. A holder trusts its lease for [`Config::renew_deadline`] after it *sent*
//! the last renewal that succeeded; a candidate takes over when it has *seen no change* for
//! [`Config::duration`]; each on its own monotonic clock. The second time is longer than the first,
//! so at most one process believes that it holds the lease.
//!
//! The lease has its holder's address, which a replica that does not hold it answers with.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gastown_api::names::annotation;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::jitter::jittered;
use crate::metrics::Metrics;

/// Which lease a process wants, and how fast it acts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The lease's namespace.
    pub namespace: String,
    /// The lease's name.
    pub name: String,
    /// The name of this process in the lease.
    pub identity: String,
    /// The address at which this process serves.
    pub address: Option<IpAddr>,
    /// A lease that is unchanged for this long is free.
    pub duration: Duration,
    /// A holder stops trusting its lease this long after its last successful renewal. Less than
    /// `duration`.
    pub renew_deadline: Duration,
    /// The time between two successful renewals.
    pub renew: Duration,
    /// The time between two attempts of a candidate.
    pub retry: Duration,
}

impl Config {
    /// The usual times: duration 30 s, renew deadline 15 s, renewal every 10 s, retry every 2 s.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            address: None,
            duration: Duration::from_secs(30),
            renew_deadline: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// The state of the lease, as this process knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseState {
    /// The holder's name; empty when no holder is known.
    pub holder: String,
    /// Where the holder serves, if the lease has it.
    pub address: Option<IpAddr>,
    /// How many times the holder changed: the fencing token of external effects.
    pub transitions: i32,
    /// Until when the holder may act; in the past when another process is the holder.
    pub valid_until: Instant,
}

/// Whether this process holds the lease. Clones share.
#[derive(Clone, Debug)]
pub struct Leadership {
    identity: Arc<str>,
    state: watch::Receiver<Arc<LeaseState>>,
}

impl Leadership {
    /// Leadership that is always held, for a process without competitors: a test, a tool.
    pub fn always(identity: &str) -> Self {
        Self::fixed(identity, identity, None)
    }

    /// Leadership that another process holds for good, for a test of a stand-by.
    pub fn of(holder: &str, address: IpAddr) -> Self {
        Self::fixed("", holder, Some(address))
    }

    fn fixed(identity: &str, holder: &str, address: Option<IpAddr>) -> Self {
        // Thirty years: tokio's clock has no infinity.
        let valid_until = Instant::now() + Duration::from_secs(86_400 * 365 * 30);
        let (sender, state) = watch::channel(Arc::new(LeaseState {
            holder: holder.to_owned(),
            address,
            transitions: 0,
            valid_until,
        }));
        // The sender lives as long as the process: a closed channel would mean a lost lease.
        std::mem::forget(sender);
        Self { identity: identity.into(), state }
    }

    /// The fencing token while this process holds the lease, else none. To be checked before each
    /// write.
    pub fn held(&self) -> Option<i32> {
        let state = self.state.borrow();
        (*state.holder == *self.identity && Instant::now() < state.valid_until)
            .then_some(state.transitions)
    }

    /// The holder's name, if it is known.
    pub fn holder(&self) -> Option<String> {
        let holder = self.state.borrow().holder.clone();
        (!holder.is_empty()).then_some(holder)
    }

    /// Where the process serves that holds the lease, when it is another one and the lease has it.
    pub fn elsewhere(&self) -> Option<IpAddr> {
        let state = self.state.borrow();
        state.address.filter(|_| *state.holder != *self.identity)
    }

    /// Waits until this process holds the lease; returns the fencing token.
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

    /// Waits until this process does not hold the lease: it was released, taken over, or ran out.
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
}

/// Why an attempt to acquire or renew failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("reading or writing the lease")]
    Api(#[source] Box<kube::Error>),
    #[error("the API server did not answer within {0:?}")]
    Timeout(Duration),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// Starts the task that acquires and renews the lease until `stop` is cancelled, and then releases
/// it.
pub fn spawn(
    client: kube::Client,
    config: Config,
    metrics: &Metrics,
    stop: CancellationToken,
) -> (Leadership, tokio::task::JoinHandle<()>) {
    let unknown = LeaseState {
        holder: String::new(),
        address: None,
        transitions: 0,
        valid_until: Instant::now(),
    };
    let (sender, state) = watch::channel(Arc::new(unknown));
    let leadership = Leadership { identity: config.identity.as_str().into(), state };
    let api = Api::namespaced(client, &config.namespace);
    let elector = Elector {
        api,
        config,
        sender,
        seen: None,
        gone: None,
        ours: false,
        metrics: metrics.clone(),
    };
    (leadership, tokio::spawn(elector.run(stop)))
}

/// The task that acquires and renews the lease.
struct Elector {
    api: Api<Lease>,
    config: Config,
    sender: watch::Sender<Arc<LeaseState>>,
    /// The object as last read or written, and since when it has been unchanged.
    seen: Option<(Lease, Instant)>,
    /// What was seen last of a lease that does not exist any more.
    gone: Option<(Lease, Instant)>,
    /// Whether this process wrote the object in `seen`.
    ours: bool,
    metrics: Metrics,
}

impl Elector {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let held = self.step().await;
            self.metrics.lease_held.set(i64::from(held));
            // A holder whose renewal has failed has little time left.
            let retry = if self.still_valid() { self.config.retry / 4 } else { self.config.retry };
            let wait = jittered(if held { self.config.renew } else { retry });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => break,
            }
        }
        self.release().await;
        self.metrics.lease_held.set(0);
    }

    /// One attempt; true when this process holds the lease after it.
    async fn step(&mut self) -> bool {
        let attempt = self.attempt().await;
        match attempt {
            Ok(held) => held,
            Err(error) => {
                // It is not known whether the failed request had an effect: read before the next
                // write.
                self.ours = false;
                tracing::warn!(
                    lease = self.config.name,
                    error = &error as &dyn std::error::Error,
                    "the lease could not be acquired or renewed"
                );
                false
            }
        }
    }

    async fn attempt(&mut self) -> Result<bool, Error> {
        if !self.ours {
            self.read().await?;
        }
        let Some((lease, since)) = self.seen.clone() else {
            let Some(transitions) = self.after_deletion() else { return Ok(false) };
            let fresh = self.object(None, transitions);
            let sent = Instant::now();
            let params = PostParams::default();
            let answer = self.timeout(self.api.create(&params, &fresh)).await?;
            return self.written(sent, answer);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let transitions = spec.lease_transitions.unwrap_or_default();
        let wanted = if self.ours {
            self.object(Some(&lease), transitions)
        } else if holder.is_empty()
            || holder == self.config.identity
            || since.elapsed() >= self.expiry(&spec)
        {
            // A lease with our name that this process did not write is from its predecessor, whose
            // effects had another fencing token.
            let predecessor = holder != self.config.identity || !self.still_valid();
            self.object(
                Some(&lease),
                if predecessor { transitions.saturating_add(1) } else { transitions },
            )
        } else {
            self.publish(&holder, address(&lease), transitions, Instant::now());
            return Ok(false);
        };
        let sent = Instant::now();
        let params = PostParams::default();
        let answer = self.timeout(self.api.replace(&self.config.name, &params, &wanted)).await?;
        self.written(sent, answer)
    }

    /// The fencing token of a lease that does not exist. `None` while it has to wait: somebody deleted
    /// the lease, and its holder may not know that yet.
    fn after_deletion(&self) -> Option<i32> {
        let Some((gone, since)) = &self.gone else { return Some(0) };
        let spec = gone.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let is_free = holder.is_empty() || holder == self.config.identity;
        let may_work = !is_free && since.elapsed() < self.expiry(&spec);
        if may_work {
            let transitions = spec.lease_transitions.unwrap_or_default();
            self.publish(&holder, address(gone), transitions, Instant::now());
        }
        (!may_work).then(|| spec.lease_transitions.unwrap_or_default().saturating_add(1))
    }

    /// A request without an answer within two fifths of the time between a renewal and the renew
    /// deadline has failed: there must be time for another one.
    async fn timeout<T>(&self, request: impl Future<Output = T>) -> Result<T, Error> {
        let timeout = self.config.renew_deadline.saturating_sub(self.config.renew) * 2 / 5;
        tokio::time::timeout(timeout, request).await.map_err(|_| Error::Timeout(timeout))
    }

    /// How long another's lease has to be unchanged to be free: as its holder wrote, but never less
    /// than our own duration.
    fn expiry(&self, spec: &LeaseSpec) -> Duration {
        let theirs = Duration::from_secs(
            u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default(),
        );
        theirs.clamp(self.config.duration, self.config.duration * 4)
    }

    fn still_valid(&self) -> bool {
        let state = self.sender.borrow();
        state.holder == self.config.identity && Instant::now() < state.valid_until
    }

    async fn read(&mut self) -> Result<(), Error> {
        let Some(lease) = self.timeout(self.api.get_opt(&self.config.name)).await?? else {
            self.gone = self.seen.take().or_else(|| self.gone.take());
            return Ok(());
        };
        self.gone = None;
        let same = self.seen.as_ref().is_some_and(|(seen, _)| {
            seen.resource_version() == lease.resource_version() && seen.uid() == lease.uid()
        });
        if !same {
            self.seen = Some((lease, Instant::now()));
        }
        Ok(())
    }

    /// Takes in the answer to a write that was sent at `sent`.
    fn written(&mut self, sent: Instant, answer: kube::Result<Lease>) -> Result<bool, Error> {
        match answer {
            Ok(lease) => {
                let transitions =
                    lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default();
                self.seen = Some((lease, Instant::now()));
                self.ours = true;
                let identity = self.config.identity.clone();
                let valid_until = sent + self.config.renew_deadline;
                self.publish(&identity, self.config.address, transitions, valid_until);
                Ok(true)
            }
            // Another process was faster: read it next time.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                self.ours = false;
                Ok(false)
            }
            // Somebody deleted the lease, so another process may create it.
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                self.ours = false;
                if self.still_valid() {
                    self.publish("", None, 0, Instant::now());
                }
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The lease to write: `present` or a new one, held by this process.
    fn object(&self, present: Option<&Lease>, transitions: i32) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = present.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let taken = spec.holder_identity.as_deref() != Some(&self.config.identity)
            || spec.lease_transitions != Some(transitions);
        let mut lease = present.cloned().unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.config.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        lease.metadata.managed_fields = None;
        let annotations = lease.metadata.annotations.get_or_insert_default();
        match self.config.address {
            Some(address) => {
                let value = format!("{} {address}", self.config.identity);
                annotations.insert(annotation::HOLDER_ADDRESS.to_owned(), value);
            }
            None => drop(annotations.remove(annotation::HOLDER_ADDRESS)),
        }
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(
                i32::try_from(self.config.duration.as_secs()).unwrap_or(30),
            ),
            lease_transitions: Some(transitions),
            acquire_time: if taken { Some(now.clone()) } else { spec.acquire_time },
            renew_time: Some(now),
            ..spec
        });
        lease
    }

    fn publish(
        &self,
        holder: &str,
        address: Option<IpAddr>,
        transitions: i32,
        valid_until: Instant,
    ) {
        let before = self.sender.send_replace(Arc::new(LeaseState {
            holder: holder.to_owned(),
            address,
            transitions,
            valid_until,
        }));
        if before.holder != holder || before.transitions != transitions {
            tracing::info!(
                lease = self.config.name,
                holder,
                transitions,
                "the lease has another holder"
            );
        }
    }

    /// Removes this process as the holder, so that the next candidate does not have to wait.
    async fn release(&mut self) {
        let held = self.ours;
        self.publish("", None, 0, Instant::now());
        let (true, Some((lease, _))) = (held, self.seen.take()) else { return };
        let mut released = lease;
        released.metadata.managed_fields = None;
        if let Some(spec) = released.spec.as_mut() {
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        let params = PostParams::default();
        let release = self.api.replace(&self.config.name, &params, &released);
        match tokio::time::timeout(Duration::from_secs(3), release).await {
            Ok(Ok(_)) => tracing::info!(lease = self.config.name, "the lease was released"),
            Ok(Err(error)) => {
                tracing::warn!(
                    lease = self.config.name,
                    error = &error as &dyn std::error::Error,
                    "the lease could not be released"
                );
            }
            Err(_) => {
                tracing::warn!(
                    lease = self.config.name,
                    "the lease could not be released: no answer"
                );
            }
        }
    }
}

/// Where the holder of a lease serves. The annotation names the holder too: a process of a version that
/// does not know it leaves that of its predecessor.
fn address(lease: &Lease) -> Option<IpAddr> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    let value = lease.annotations().get(annotation::HOLDER_ADDRESS)?;
    let (name, address) = value.split_once(' ')?;
    if name == holder { address.parse().ok() } else { None }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
