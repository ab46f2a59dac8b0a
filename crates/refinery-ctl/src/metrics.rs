use gastown_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// One rig.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RigLabels {
    /// Its name.
    pub rig: String,
}

/// One rig, and how a merge ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct MergeLabels {
    /// The rig's name.
    pub rig: String,
    /// `success` or `error`, as the Go operator had it.
    pub result: &'static str,
}

type Times = Family<RigLabels, Histogram, fn() -> Histogram>;

/// The refinery's metrics: the Go operator's names, and some of our own.
#[derive(Clone, Debug)]
pub struct RefineryMetrics {
    pub(crate) merges: Family<MergeLabels, Counter>,
    pub(crate) merge_seconds: Times,
    pub(crate) conflicts: Family<RigLabels, Counter>,
    pub(crate) queue: Family<RigLabels, Gauge>,
    pub(crate) gate_seconds: Times,
    pub(crate) faults: Family<RigLabels, Counter>,
    pub(crate) mismatches: Family<RigLabels, Counter>,
}

fn seconds() -> Histogram {
    Histogram::new([0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0])
}

impl RefineryMetrics {
    /// Registers them.
    pub fn new(metrics: &Metrics) -> Self {
        let ours = Self {
            merges: Family::default(),
            merge_seconds: Family::new_with_constructor(seconds),
            conflicts: Family::default(),
            queue: Family::default(),
            gate_seconds: Family::new_with_constructor(seconds),
            faults: Family::default(),
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
                "Requests that did not fit on their target",
                ours.conflicts.clone(),
            );
            registry.register(
                "refinery_queue_length",
                "Requests that wait or are tested",
                ours.queue.clone(),
            );
            registry.register(
                "refinery_gate_seconds",
                "From a gate's Job to its verdict",
                ours.gate_seconds.clone(),
            );
            registry.register(
                "refinery_gate_faults",
                "Gate runs that infrastructure broke",
                ours.faults.clone(),
            );
            registry.register(
                "refinery_landed_mismatches",
                "Pushes that the target was not seen to hold",
                ours.mismatches.clone(),
            );
        });
        ours
    }
}
