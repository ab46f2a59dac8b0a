//! The refinery's metrics: the Go operator's names, and some of our own.

use gastown_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// The labels of a metric for each rig.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RigLabels {
    /// The rig's name.
    pub rig: String,
}

/// The labels of the counter of ended requests.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct MergeLabels {
    /// The rig's name.
    pub rig: String,
    /// `success` or `error`, as in the Go operator.
    pub result: &'static str,
}

type Times = Family<RigLabels, Histogram, fn() -> Histogram>;

/// The metrics of this controller alone.
#[derive(Clone, Debug)]
pub(crate) struct RefineryMetrics {
    pub merges: Family<MergeLabels, Counter>,
    pub merge_seconds: Times,
    pub conflicts: Family<RigLabels, Counter>,
    pub queue: Family<RigLabels, Gauge>,
    pub gate_seconds: Times,
    pub broken_runs: Family<RigLabels, Counter>,
    pub mismatches: Family<RigLabels, Counter>,
}

fn seconds() -> Histogram {
    Histogram::new([0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0])
}

impl RefineryMetrics {
    /// Registers the metrics.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let ours = Self {
            merges: Family::default(),
            merge_seconds: Family::new_with_constructor(seconds),
            conflicts: Family::default(),
            queue: Family::default(),
            gate_seconds: Family::new_with_constructor(seconds),
            broken_runs: Family::default(),
            mismatches: Family::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "refinery_merge",
                "Requests that ended, by result",
                ours.merges.clone(),
            );
            registry.register(
                "refinery_merge_duration_seconds",
                "From queued to landed",
                ours.merge_seconds.clone(),
            );
            registry.register(
                "refinery_conflicts",
                "Requests that conflicted with their target",
                ours.conflicts.clone(),
            );
            registry.register(
                "refinery_queue_length",
                "Requests that wait or are being tested",
                ours.queue.clone(),
            );
            registry.register(
                "refinery_gate_seconds",
                "From the creation of a gate's Job to its verdict",
                ours.gate_seconds.clone(),
            );
            registry.register(
                "refinery_gate_faults",
                "Gate runs that infrastructure broke",
                ours.broken_runs.clone(),
            );
            registry.register(
                "refinery_landed_mismatches",
                "Pushes after which the target did not have the commit",
                ours.mismatches.clone(),
            );
        });
        ours
    }
}
