//! What a controller counts and observes with.

use std::sync::atomic::{AtomicI64, AtomicU64};

use gastown_metrics as catalogue;
use gastown_trace::TraceId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::{MetricType, counter, gauge};

use super::series::{HasType, Series, Value};

type Whole = counter::Counter<u64, AtomicU64>;
type Fraction = counter::Counter<f64, AtomicU64>;
type Level = gauge::Gauge<i64, AtomicI64>;
type Observed = HistogramWithExemplars<Exemplar>;

impl HasType for Whole {
    const TYPE: MetricType = MetricType::Counter;
}
impl HasType for Fraction {
    const TYPE: MetricType = MetricType::Counter;
}
impl HasType for Level {
    const TYPE: MetricType = MetricType::Gauge;
}
impl HasType for Observed {
    const TYPE: MetricType = MetricType::Histogram;
}

/// The trace of what was observed last in a bucket.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Exemplar {
    trace_id: String,
}

/// A counter with `N` labels. Clones share.
#[derive(Clone, Debug)]
pub struct Counter<const N: usize>(pub(super) Series<N, Whole>);

/// A counter of fractions with `N` labels. Clones share.
#[derive(Clone, Debug)]
pub struct Amount<const N: usize>(pub(super) Series<N, Fraction>);

/// A gauge that whoever changes it sets. Clones share.
#[derive(Clone, Debug)]
pub struct Gauge<const N: usize>(pub(super) Series<N, Level>);

/// A histogram with `N` labels. Clones share.
#[derive(Clone, Debug)]
pub struct Histogram<const N: usize>(pub(super) Series<N, Observed>);

impl<const N: usize> Counter<N> {
    /// One that no page shows until it is registered.
    pub fn new(of: &catalogue::Counter<N>) -> Self {
        Self(Series::new(of.0.labels, Whole::default))
    }

    /// Counts one.
    pub fn inc(&self, labels: [Value; N]) {
        self.add(labels, 1);
    }

    /// Counts some; 0 shows the series, so that a query sees its first step.
    pub fn add(&self, labels: [Value; N], count: u64) {
        self.0.get(labels).inc_by(count);
    }

    /// How many were counted.
    pub fn get(&self, labels: [Value; N]) -> u64 {
        self.0.get(labels).get()
    }
}

impl<const N: usize> Amount<N> {
    /// One that no page shows until it is registered.
    pub fn new(of: &catalogue::Amount<N>) -> Self {
        Self(Series::new(of.0.labels, Fraction::default))
    }

    /// Adds an amount; one that is not a number, or is below zero, does not count.
    pub fn add(&self, labels: [Value; N], amount: f64) {
        if amount.is_finite() && amount >= 0.0 {
            self.0.get(labels).inc_by(amount);
        }
    }
}

impl<const N: usize> Gauge<N> {
    /// One that no page shows until it is registered.
    pub fn new(of: &catalogue::Gauge<N>) -> Self {
        Self(Series::new(of.0.labels, Level::default))
    }

    /// Sets the level.
    pub fn set(&self, labels: [Value; N], level: i64) {
        self.0.get(labels).set(level);
    }

    /// Raises or lowers the level.
    pub fn change(&self, labels: [Value; N], by: i64) {
        self.0.get(labels).inc_by(by);
    }

    /// The level.
    pub fn get(&self, labels: [Value; N]) -> i64 {
        self.0.get(labels).get()
    }
}

impl<const N: usize> Histogram<N> {
    /// One that no page shows until it is registered.
    pub fn new(of: &catalogue::Histogram<N>) -> Self {
        let catalogue::Kind::Histogram(bounds) = of.0.kind else {
            return Self(Series::new(of.0.labels, || Observed::new(std::iter::empty())));
        };
        Self(Series::new(of.0.labels, || Observed::new(bounds.iter().copied())))
    }

    /// Observes a value; one below zero, as clocks that differ may make it, counts as zero. The trace is
    /// the exemplar of its bucket.
    pub fn observe(&self, labels: [Value; N], value: f64, trace: Option<TraceId>) {
        let exemplar = trace.map(|trace| Exemplar { trace_id: trace.to_string() });
        self.0.get(labels).observe(value.max(0.0), exemplar, None);
    }
}
