//! What reconciles and gRPC requests share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gastown_api::{Escalation, Polecat, Witness};
use gastown_core::escalation::RATE_WINDOW;
use gastown_core::seniority;
use gastown_runtime::Runtime;
use gastown_runtime::index::Index;
use gastown_runtime::own_writes::OwnWrites;
use gastown_runtime::pace::Pace;
use gastown_runtime::places::Places;
use gastown_runtime::watch::Trigger;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;

use crate::channels::Channels;
use crate::metrics::WitnessMetrics;
use crate::streams::Streams;

/// A rig is assessed at most once in this time for each [`CROWD`] polecats that it has: those of a busy
/// one change many times a second.
const MIN_INTERVAL: SignedDuration = SignedDuration::from_secs(1);
/// So many polecats are assessed as often as one.
const CROWD: usize = 500;

/// What an agent does is written this long after it changed.
const ACTIVITY_SETTLE: Duration = Duration::from_secs(5);
/// What one agent does is written at most this often.
const ACTIVITY_EVERY: Duration = Duration::from_secs(10);

/// How many messages are sent along one route at a time.
const DELIVERIES: usize = 4;

/// The watched objects. Clones share.
#[derive(Clone)]
pub(crate) struct Stores {
    pub witnesses: Store<Witness>,
    pub polecats: Store<Polecat>,
    /// Polecats by their rig.
    pub polecats_by_rig: Index<Polecat>,
    pub escalations: Store<Escalation>,
    /// Escalations by [`escalations_key`].
    pub by_cause: Index<Escalation>,
    /// Witnesses by their rig.
    pub witnesses_by_rig: Index<Witness>,
}

/// The key of the Escalations of a cause.
pub(crate) fn escalations_key(namespace: &str, cause: &str) -> String {
    format!("{namespace}/{cause}")
}

pub(crate) struct Context {
    pub runtime: Runtime,
    pub stores: Stores,
    pub streams: Streams,
    pub metrics: WitnessMetrics,
    pub channels: Channels,
    /// Where messages wait, by route.
    pub routes: Places,
    pub sent: SentMessages,
    pub passes: Passes,
    /// How often the counts of a Witness are written.
    pub pace: Pace,
    /// How often the activity of a Polecat is written.
    pub activity_pace: Pace,
    /// This process's writes of Witnesses.
    pub own_witnesses: Arc<OwnWrites<Witness>>,
    /// This process's writes of Escalations.
    pub own_escalations: Arc<OwnWrites<Escalation>>,
    trigger: Trigger<Witness>,
}

impl Context {
    pub fn new(
        runtime: &Runtime,
        stores: Stores,
        trigger: Trigger<Witness>,
    ) -> anyhow::Result<Self> {
        let metrics = WitnessMetrics::new(&runtime.metrics);
        metrics.register_views(
            (&runtime.metrics, &runtime.shards),
            &stores.witnesses_by_rig,
            &stores.polecats_by_rig,
            &stores.escalations,
        );
        Ok(Self {
            runtime: runtime.clone(),
            stores,
            streams: Streams::new(metrics.clone()),
            metrics,
            channels: Channels::new(runtime.client.clone())?,
            sent: SentMessages::default(),
            routes: Places::new(DELIVERIES),
            passes: Passes::default(),
            pace: Pace::default(),
            activity_pace: Pace::new(ACTIVITY_SETTLE, ACTIVITY_EVERY),
            own_witnesses: Arc::default(),
            own_escalations: Arc::default(),
            trigger,
        })
    }

    /// The active Witness of a rig.
    pub fn active_witness(&self, rig: &str) -> Option<Arc<Witness>> {
        let all = self.stores.witnesses_by_rig.of(rig);
        let active = seniority::active(all.iter().map(AsRef::as_ref))?;
        self.stores.witnesses.get(&ObjectRef::from_obj(active))
    }

    /// Has the polecats of a rig assessed now. When the queue is full, the next pass does it.
    pub fn assess_soon(&self, rig: &str) {
        if let Some(witness) = self.active_witness(rig) {
            self.trigger.try_send(ObjectRef::from_obj(witness.as_ref()));
        }
    }
}

/// One pass over the polecats of a rig.
#[derive(Clone, Copy)]
pub(crate) struct Pass {
    /// When this process made its first pass in this term of its work for the rig.
    pub first: Timestamp,
    /// When this pass began.
    pub began: Timestamp,
    /// The term.
    pub term: Option<u64>,
}

impl Pass {
    /// Whether it is the first one of its term.
    pub fn is_first(&self) -> bool {
        self.first == self.began
    }
}

/// The latest pass of each Witness, by its uid.
#[derive(Default)]
pub(crate) struct Passes(Mutex<HashMap<String, Pass>>);

impl Passes {
    /// Begins a pass over so many polecats. The error is how long to wait because the last one was just now.
    pub fn begin(
        &self,
        witness: &Witness,
        polecats: usize,
        term: Option<u64>,
        now: Timestamp,
    ) -> Result<Pass, Duration> {
        let crowds = i32::try_from(polecats / CROWD).unwrap_or(i32::MAX).max(1);
        let interval = MIN_INTERVAL.saturating_mul(crowds);
        let uid = witness.uid().unwrap_or_default();
        let mut passes = self.0.lock();
        // Between two terms another replica heard the pods.
        let last = passes.get(&uid).copied().filter(|last| last.term == term);
        if let Some(last) = last {
            let wait = interval.saturating_sub(now.duration_since(last.began));
            if wait.is_positive() {
                return Err(wait.unsigned_abs());
            }
        }
        let pass = Pass { first: last.map_or(now, |p| p.first), began: now, term };
        passes.insert(uid, pass);
        Ok(pass)
    }

    /// The Witness is being deleted.
    pub fn forget(&self, witness: &Witness) {
        self.0.lock().remove(&witness.uid().unwrap_or_default());
    }
}

/// When routes carried messages within [`RATE_WINDOW`], by the Witness's uid and the route's name.
#[derive(Default)]
pub(crate) struct SentMessages(Mutex<HashMap<(String, String), Vec<Timestamp>>>);

impl SentMessages {
    /// Records that a route is carrying a message.
    pub fn record(&self, witness: Option<&Witness>, route: &str, now: Timestamp) {
        self.0.lock().entry(route_key(witness, route)).or_default().push(now);
    }

    /// When a route carried messages, oldest first.
    pub fn recent(&self, witness: Option<&Witness>, route: &str, now: Timestamp) -> Vec<Timestamp> {
        let mut sent = self.0.lock();
        sent.retain(|_, times| {
            times.retain(|t| now.duration_since(*t) < RATE_WINDOW);
            !times.is_empty()
        });
        sent.get(&route_key(witness, route)).cloned().unwrap_or_default()
    }
}

/// A route of a Witness: the Witness's uid and the route's name, which others may use too.
pub(crate) fn route_key(witness: Option<&Witness>, route: &str) -> (String, String) {
    (witness.and_then(ResourceExt::uid).unwrap_or_default(), route.to_owned())
}
