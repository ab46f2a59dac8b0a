//! The registry of `/metrics`, and the metrics that every controller has.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::telemetry::counters;

/// Labels of requests to the API server; each value is from a small set.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `apply`, `delete`.
    pub verb: &'static str,
    /// The resource with its subresource, as in RBAC: `polecats/status`.
    pub resource: String,
    /// The HTTP status, `timeout` or `error`.
    pub code: String,
}

/// Labels of request durations and retries.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct VerbLabels {
    /// The verb, as in [`RequestLabels`].
    pub verb: &'static str,
}

/// Labels of finished reconciles, named as in the Go operator.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReconcileLabels {
    /// The reconciled kind: `rig`, `polecat`, …
    pub controller: &'static str,
    /// `success`, `requeue`, or the class of the error.
    pub result: &'static str,
}

/// Labels of reconcile durations.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ControllerLabels {
    /// The reconciled kind: `rig`, `polecat`, …
    pub controller: &'static str,
}

/// Labels of metrics that are counted by kind.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct KindLabels {
    /// The kind, as in manifests.
    pub kind: String,
}

fn request_seconds() -> Histogram {
    Histogram::new([0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

/// The registry and the shared metrics. Clones share.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) request_retries: Family<VerbLabels, Counter>,
    pub(crate) request_seconds: Family<VerbLabels, Histogram, fn() -> Histogram>,
    pub(crate) reconciles: Family<ReconcileLabels, Counter>,
    pub(crate) reconcile_seconds: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    pub(crate) undecodable: Family<KindLabels, Gauge>,
    pub(crate) watch_errors: Family<KindLabels, Counter>,
    pub(crate) events_dropped: Counter,
    pub(crate) lease_held: Gauge,
    pub(crate) shards_held: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Arc::new(Mutex::new(Registry::with_prefix("gastown"))),
            requests: Family::default(),
            request_retries: Family::default(),
            request_seconds: Family::new_with_constructor(request_seconds),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(request_seconds),
            undecodable: Family::default(),
            watch_errors: Family::default(),
            events_dropped: Counter::default(),
            lease_held: Gauge::default(),
            shards_held: Gauge::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "kube_requests",
                "Requests to the API server, retries counted once",
                metrics.requests.clone(),
            );
            registry.register(
                "kube_request_retries",
                "Requests to the API server that were sent again",
                metrics.request_retries.clone(),
            );
            registry.register(
                "kube_request_duration_seconds",
                "Duration of a request, retries included",
                metrics.request_seconds.clone(),
            );
            registry.register("reconcile", "Finished reconciles", metrics.reconciles.clone());
            registry.register(
                "reconcile_duration_seconds",
                "Duration of a reconcile",
                metrics.reconcile_seconds.clone(),
            );
            registry.register(
                "undecodable_objects",
                "Objects that cannot be decoded and are skipped",
                metrics.undecodable.clone(),
            );
            registry.register(
                "watch_errors",
                "Errors of watch streams",
                metrics.watch_errors.clone(),
            );
            registry.register(
                "events_dropped",
                "Kubernetes Events dropped because the queue was full",
                metrics.events_dropped.clone(),
            );
            registry.register(
                "lease_held",
                "1 while this process takes part with the other replicas",
                metrics.lease_held.clone(),
            );
            registry.register(
                "shards_held",
                "How many of the shards into which rigs are divided this process works on",
                metrics.shards_held.clone(),
            );
            counters::register(registry);
        });
        metrics
    }
}

impl Metrics {
    /// Adds a controller's own metrics; names get the prefix `gastown_`, counters the suffix
    /// `_total`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock());
    }

    /// All metrics as OpenMetrics text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }
}
