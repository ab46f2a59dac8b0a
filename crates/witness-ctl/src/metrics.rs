//! The controller's own metrics, beside those that every controller has.

use gastown_runtime::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Streams of pods and their heartbeats. Clones share.
#[derive(Clone, Debug, Default)]
pub(crate) struct WitnessMetrics {
    pub streams: Gauge,
    pub heartbeats: Counter,
}

impl WitnessMetrics {
    /// Creates and registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let own = Self::default();
        metrics.register(|registry| {
            registry.register("witness_streams", "Pods whose stream is open", own.streams.clone());
            registry.register("witness_heartbeats", "Heartbeats received", own.heartbeats.clone());
        });
        own
    }
}
