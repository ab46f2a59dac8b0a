//! Gauges that are computed when somebody looks at them, from what the controller knows then.

use std::collections::BTreeMap;
use std::fmt;

use gastown_metrics::{Definition, Gauge};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::names::{base_name, unit};
use super::series::{Labels, Value};

/// What a view shows.
#[derive(Debug, Default)]
pub struct Shown(BTreeMap<&'static str, BTreeMap<Vec<Value>, f64>>);

impl Shown {
    /// The value of a series. Each is given once; the last one counts.
    pub fn set<const N: usize>(&mut self, gauge: &Gauge<N>, labels: [Value; N], value: f64) {
        self.0.entry(gauge.0.name).or_default().insert(labels.into(), value);
    }

    /// Adds to the value of a series.
    pub fn add<const N: usize>(&mut self, gauge: &Gauge<N>, labels: [Value; N], value: f64) {
        *self.0.entry(gauge.0.name).or_default().entry(labels.into()).or_default() += value;
    }

    /// Raises the value of a series to at least this.
    pub fn raise<const N: usize>(&mut self, gauge: &Gauge<N>, labels: [Value; N], value: f64) {
        let shown = self.0.entry(gauge.0.name).or_default().entry(labels.into()).or_default();
        *shown = shown.max(value);
    }
}

/// Some gauges, and what computes them.
pub(super) struct View<F> {
    pub gauges: Vec<&'static Definition>,
    pub fill: F,
}

impl<F> fmt::Debug for View<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.gauges.iter().map(|gauge| gauge.name)).finish()
    }
}

impl<F: Fn(&mut Shown) + Send + Sync + 'static> Collector for View<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut shown = Shown::default();
        (self.fill)(&mut shown);
        for gauge in &self.gauges {
            let (unit, help) = (unit(gauge.unit), format!("{}.", gauge.help));
            let mut metric = encoder.encode_descriptor(
                base_name(gauge),
                &help,
                unit.as_ref(),
                MetricType::Gauge,
            )?;
            for (values, value) in shown.0.remove(gauge.name).unwrap_or_default() {
                if values.is_empty() {
                    metric.encode_gauge(&value)?;
                    continue;
                }
                let labels = Labels { names: gauge.labels, values: &values };
                ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
