//! What became of telemetry, for `/metrics`.

use std::sync::LazyLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Labels of telemetry records; each value is from a small set.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct RecordLabels {
    /// `spans`, `logs` or `metrics`.
    pub signal: &'static str,
    /// `sent`; `dropped`, because too many waited; `failed`, because the collector did not take them.
    pub result: &'static str,
}

/// A process has one way out for its telemetry, which exists before its registry.
static RECORDS: LazyLock<Family<RecordLabels, Counter>> = LazyLock::new(Family::default);

/// The counter of a signal's records with this result.
pub(super) fn records(signal: &'static str, result: &'static str) -> Counter {
    RECORDS.get_or_create_owned(&RecordLabels { signal, result })
}

/// Adds the metrics to a registry.
pub(crate) fn register(registry: &mut Registry) {
    // A query does not see the step from no series to the first one.
    for result in ["sent", "dropped", "failed"] {
        drop(records("spans", result));
    }
    registry.register(
        "telemetry_records",
        "Records of telemetry that were sent, dropped because too many waited, or not taken by the collector",
        RECORDS.clone(),
    );
}
