//! The registry of `/metrics`, and the metrics that every controller has. What each means is in the
//! catalogue, crate `gastown-metrics`.

mod instruments;
mod names;
mod process;
mod series;
mod tally;
#[cfg(test)]
mod tests;
mod view;

use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock};

use gastown_metrics as catalogue;
use gastown_metrics::{Definition, every};
use parking_lot::Mutex;
use prometheus_client::registry::{Metric, Registry};

pub use self::instruments::{Amount, Counter, Gauge, Histogram};
use self::names::{PREFIX, base_name, is_own, unit};
pub use self::series::Value;
pub use self::tally::{Group, Tally};
pub use self::view::Shown;
use self::view::View;
use crate::telemetry::counters;
use crate::tls::Tls;

/// The label whose series go when their rig does.
const RIG: &str = "rig";

/// A rule which series stay, by the value of a label of this name.
type Keep = Box<dyn Fn(&str) -> bool + Send + Sync>;
/// Removes from one metric the series that a rule does not keep.
type Retain = Box<dyn Fn(&dyn Fn(&str) -> bool) + Send + Sync>;

/// What a page is made of.
struct Registries {
    own: Registry,
    conventional: Registry,
    /// Of the metrics with the label `rig`.
    by_rig: Vec<Retain>,
    /// Which rigs there are.
    rigs: Option<Keep>,
}

impl fmt::Debug for Registries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registries").finish_non_exhaustive()
    }
}

/// The registry and the shared metrics. Clones share.
#[derive(Clone, Debug)]
pub struct Metrics {
    registries: Arc<Mutex<Registries>>,
    pub(crate) requests: Counter<3>,
    pub(crate) request_retries: Counter<1>,
    pub(crate) request_seconds: Histogram<1>,
    pub(crate) reconciles: Counter<2>,
    pub(crate) reconcile_seconds: Histogram<1>,
    pub(crate) undecodable: Gauge<1>,
    pub(crate) watch_errors: Counter<1>,
    pub(crate) events_dropped: Counter<0>,
    pub(crate) lease_held: Gauge<0>,
    pub(crate) shards_held: Gauge<0>,
    pub(crate) handovers: Histogram<0>,
    pub(crate) grpc_calls: Counter<3>,
    pub(crate) grpc_seconds: Histogram<2>,
    certificate: Arc<OnceLock<Tls>>,
    pub(crate) build_info: Gauge<2>,
}

/// The calls that this process makes: whoever makes them has no registry.
static CLIENT_CALLS: LazyLock<(Counter<3>, Histogram<2>)> = LazyLock::new(|| {
    gastown_grpc::observe(|call| {
        let (calls, seconds) = &*CLIENT_CALLS;
        let (service, method) = (call.service.to_owned(), call.method.to_owned());
        let code = format!("{:?}", call.code);
        calls.inc([service.clone().into(), method.clone().into(), code.into()]);
        seconds.observe([service.into(), method.into()], call.seconds, None);
    });
    (Counter::new(&every::GRPC_CLIENT_CALLS), Histogram::new(&every::GRPC_CLIENT_DURATION))
});

impl Default for Metrics {
    fn default() -> Self {
        let registries = Registries {
            own: Registry::with_prefix(PREFIX),
            conventional: Registry::default(),
            by_rig: Vec::new(),
            rigs: None,
        };
        let metrics = Self {
            registries: Arc::new(Mutex::new(registries)),
            requests: Counter::new(&every::KUBE_REQUESTS),
            request_retries: Counter::new(&every::KUBE_REQUEST_RETRIES),
            request_seconds: Histogram::new(&every::KUBE_REQUEST_DURATION),
            reconciles: Counter::new(&every::RECONCILE),
            reconcile_seconds: Histogram::new(&every::RECONCILE_DURATION),
            undecodable: Gauge::new(&every::UNDECODABLE),
            watch_errors: Counter::new(&every::WATCH_ERRORS),
            events_dropped: Counter::new(&every::EVENTS_DROPPED),
            lease_held: Gauge::new(&every::LEASE_HELD),
            shards_held: Gauge::new(&every::SHARDS_HELD),
            handovers: Histogram::new(&every::SHARD_HANDOVER),
            grpc_calls: Counter::new(&every::GRPC_SERVER_CALLS),
            grpc_seconds: Histogram::new(&every::GRPC_SERVER_DURATION),
            certificate: Arc::default(),
            build_info: Gauge::new(&every::BUILD_INFO),
        };
        metrics.add(&every::KUBE_REQUESTS.0, &metrics.requests.0);
        metrics.add(&every::KUBE_REQUEST_RETRIES.0, &metrics.request_retries.0);
        metrics.add(&every::KUBE_REQUEST_DURATION.0, &metrics.request_seconds.0);
        metrics.add(&every::RECONCILE.0, &metrics.reconciles.0);
        metrics.add(&every::RECONCILE_DURATION.0, &metrics.reconcile_seconds.0);
        metrics.add(&every::UNDECODABLE.0, &metrics.undecodable.0);
        metrics.add(&every::WATCH_ERRORS.0, &metrics.watch_errors.0);
        metrics.add(&every::EVENTS_DROPPED.0, &metrics.events_dropped.0);
        metrics.add(&every::LEASE_HELD.0, &metrics.lease_held.0);
        metrics.add(&every::SHARDS_HELD.0, &metrics.shards_held.0);
        metrics.add(&every::SHARD_HANDOVER.0, &metrics.handovers.0);
        metrics.add(&every::GRPC_SERVER_CALLS.0, &metrics.grpc_calls.0);
        metrics.add(&every::GRPC_SERVER_DURATION.0, &metrics.grpc_seconds.0);
        metrics.add(&every::GRPC_CLIENT_CALLS.0, &CLIENT_CALLS.0.0);
        metrics.add(&every::GRPC_CLIENT_DURATION.0, &CLIENT_CALLS.1.0);
        let certificate = metrics.certificate.clone();
        metrics.view(&[&every::CERTIFICATE_EXPIRY.0], move |shown| {
            if let Some(end) = certificate.get().and_then(Tls::expiry) {
                shown.set(&every::CERTIFICATE_EXPIRY, [], end as f64);
            }
        });
        metrics.add(&every::BUILD_INFO.0, &metrics.build_info.0);
        metrics.register(counters::register);
        metrics.view(&process::GAUGES, process::fill);
        metrics.registries.lock().conventional.register_collector(Box::new(process::Cpu));
        metrics
    }
}

impl Metrics {
    /// Registers a counter.
    pub fn counter<const N: usize>(&self, of: &'static catalogue::Counter<N>) -> Counter<N> {
        let counter = Counter::new(of);
        self.add(&of.0, &counter.0);
        counter
    }

    /// Registers a counter of fractions.
    pub fn amount<const N: usize>(&self, of: &'static catalogue::Amount<N>) -> Amount<N> {
        let amount = Amount::new(of);
        self.add(&of.0, &amount.0);
        amount
    }

    /// Registers a gauge that is set when what it shows changes.
    pub fn gauge<const N: usize>(&self, of: &'static catalogue::Gauge<N>) -> Gauge<N> {
        let gauge = Gauge::new(of);
        self.add(&of.0, &gauge.0);
        gauge
    }

    /// Registers a histogram.
    pub fn histogram<const N: usize>(&self, of: &'static catalogue::Histogram<N>) -> Histogram<N> {
        let histogram = Histogram::new(of);
        self.add(&of.0, &histogram.0);
        histogram
    }

    /// Registers gauges that `fill` computes for each page. A series that it does not give is not there: so
    /// those of rigs that another replica works for go.
    pub fn view(
        &self,
        gauges: &[&'static Definition],
        fill: impl Fn(&mut Shown) + Send + Sync + 'static,
    ) {
        let registries = &mut *self.registries.lock();
        // Each registry has its own prefix, and a view is of one of them.
        let registry = match gauges.first() {
            Some(gauge) if is_own(gauge) => &mut registries.own,
            _ => &mut registries.conventional,
        };
        registry.register_collector(Box::new(View { gauges: gauges.to_vec(), fill }));
    }

    /// From now on, series by rig are removed when there is no such rig any more. What others counted for
    /// a rig stays while it exists, whoever works for it: Prometheus adds up the counters of all replicas.
    pub fn keep_rigs(&self, exists: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.registries.lock().rigs = Some(Box::new(exists));
    }

    /// Adds metrics that are kept elsewhere; names get the prefix `gastown_`, counters the suffix
    /// `_total`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registries.lock().own);
    }

    /// Shows when this certificate ends.
    pub(crate) fn watch_certificate(&self, tls: &Tls) {
        let _ = self.certificate.set(tls.clone());
    }

    fn add<const N: usize, M>(&self, definition: &'static Definition, series: &series::Series<N, M>)
    where
        M: Clone + Send + Sync + 'static,
        series::Series<N, M>: Metric,
    {
        let registries = &mut *self.registries.lock();
        let registry =
            if is_own(definition) { &mut registries.own } else { &mut registries.conventional };
        let name = base_name(definition);
        match unit(definition.unit) {
            Some(unit) => {
                registry.register_with_unit(name, definition.help, unit, series.clone());
            }
            None => registry.register(name, definition.help, series.clone()),
        }
        if definition.labels.contains(&RIG) {
            let series = series.clone();
            registries.by_rig.push(Box::new(move |keep| series.retain(RIG, keep)));
        }
    }

    /// All metrics as OpenMetrics text.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        use prometheus_client::encoding::text::{encode_eof, encode_registry};
        let mut text = String::new();
        let registries = self.registries.lock();
        if let Some(rigs) = &registries.rigs {
            // Of what is about no rig the label is empty.
            let keep = |rig: &str| rig.is_empty() || rigs(rig);
            registries.by_rig.iter().for_each(|retain| retain(&keep));
        }
        encode_registry(&mut text, &registries.own)?;
        encode_registry(&mut text, &registries.conventional)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}
