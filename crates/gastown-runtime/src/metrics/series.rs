//! The series of one metric, by the values of its labels.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::encoding::{
    EncodeLabelSet, EncodeLabelValue as _, EncodeMetric, LabelSetEncoder, MetricEncoder,
};
use prometheus_client::metrics::MetricType;

/// The value of a label.
pub type Value = Cow<'static, str>;

/// The type of a metric that has no series yet.
pub(super) trait HasType {
    const TYPE: MetricType;
}

/// The values of a series's labels with their names.
pub(super) struct Labels<'a> {
    pub names: &'static [&'static str],
    pub values: &'a [Value],
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, value) in self.names.iter().zip(self.values) {
            let mut label = encoder.encode_label();
            let mut key = label.encode_label_key()?;
            fmt::Write::write_str(&mut key, name)?;
            let mut text = key.encode_label_value()?;
            value.as_ref().encode(&mut text)?;
            text.finish()?;
        }
        Ok(())
    }
}

/// All series of one metric. Clones share.
pub(super) struct Series<const N: usize, M> {
    names: &'static [&'static str],
    make: Arc<dyn Fn() -> M + Send + Sync>,
    all: Arc<RwLock<HashMap<[Value; N], M>>>,
}

impl<const N: usize, M> Clone for Series<N, M> {
    fn clone(&self) -> Self {
        Self { names: self.names, make: self.make.clone(), all: self.all.clone() }
    }
}

impl<const N: usize, M> fmt::Debug for Series<N, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Series").field("names", &self.names).finish_non_exhaustive()
    }
}

impl<const N: usize, M: Clone> Series<N, M> {
    /// No series, or the only one of a metric without labels.
    pub fn new(
        names: &'static [&'static str],
        make: impl Fn() -> M + Send + Sync + 'static,
    ) -> Self {
        let series = Self { names, make: Arc::new(make), all: Arc::default() };
        if let Ok(none) = <[Value; N]>::try_from(Vec::new()) {
            series.get(none);
        }
        series
    }

    /// The series of these values, which is created if it is not there.
    pub fn get(&self, values: [Value; N]) -> M {
        if let Some(metric) = self.all.read().get(&values) {
            return metric.clone();
        }
        self.all.write().entry(values).or_insert_with(|| (self.make)()).clone()
    }

    /// Removes the series whose label `name` has a value that is not kept.
    pub fn retain(&self, name: &str, keep: &dyn Fn(&str) -> bool) {
        let Some(at) = self.names.iter().position(|label| *label == name) else { return };
        if self.all.read().keys().all(|values| keep(&values[at])) {
            return;
        }
        self.all.write().retain(|values, _| keep(&values[at]));
    }
}

impl<const N: usize, M: EncodeMetric + HasType> EncodeMetric for Series<N, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (values, metric) in self.all.read().iter() {
            if values.is_empty() {
                return metric.encode(encoder);
            }
            let labels = Labels { names: self.names, values };
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
