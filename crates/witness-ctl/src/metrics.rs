//! What witness-ctl counts beside what every controller does.

use gastown_runtime::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Streams and what comes over them. Clones share.
#[derive(Clone, Debug, Default)]
pub(crate) struct WitnessMetrics {
    pub streams: Gauge,
    pub heartbeats: Counter,
}

impl WitnessMetrics {
    /// Registers them.
    pub fn new(metrics: &Metrics) -> Self {
        let ours = Self::default();
        metrics.register(|registry| {
            registry.register("witness_streams", "Pods whose stream is open", ours.streams.clone());
            registry.register(
                "witness_heartbeats",
                "Heartbeats that came in",
                ours.heartbeats.clone(),
            );
        });
        ours
    }
}
