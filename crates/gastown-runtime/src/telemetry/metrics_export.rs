//! The metrics of `/metrics` as OTLP has them, where that is asked for. They are read from the same
//! text that Prometheus reads, so that both show the same.
//!
//! `opentelemetry-otlp`'s exporter of metrics takes `ResourceMetrics` of the SDK, which only the SDK's own
//! instruments can fill: its fields are private, and there is no producer of metrics from elsewhere and no
//! observable histogram. So the message is made here, and [`super::metrics_client`] hands it to the clients
//! that the exporters use.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;

/// Sums and histograms count from the start of the process.
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// One message of metrics, and how many they are. `began` and `now` are in nanoseconds since 1970.
pub(super) fn message(
    resource: &opentelemetry_sdk::Resource,
    openmetrics: &str,
    began: u64,
    now: u64,
) -> (ExportMetricsServiceRequest, u64) {
    let metrics = read(openmetrics, began, now);
    let count = metrics.len() as u64;
    let scope = InstrumentationScope {
        name: "gastown.metrics".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_metrics =
        vec![ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() }];
    let of_sdk = ResourceAttributesWithSchema::from(resource);
    let resource_metrics = ResourceMetrics {
        resource: Some(Resource { attributes: of_sdk.attributes.0, ..Resource::default() }),
        scope_metrics,
        schema_url: of_sdk.schema_url.unwrap_or_default(),
    };
    (ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }, count)
}

/// The time, in nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or_default()
}

/// One metric while its lines are read.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    unit: String,
    /// Points of counters and gauges.
    numbers: Vec<(Labels, f64)>,
    /// Points of histograms.
    histograms: BTreeMap<Labels, Buckets>,
}

type Labels = Vec<(String, String)>;

/// A text attribute.
fn text(key: String, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value)) });
    KeyValue { key, value, ..KeyValue::default() }
}

#[derive(Default)]
struct Buckets {
    /// Upper bounds, and how many are at most that.
    cumulative: Vec<(f64, f64)>,
    sum: f64,
    count: f64,
}

/// The metrics of an OpenMetrics text. A line that is not understood is left out.
fn read(openmetrics: &str, began: u64, now: u64) -> Vec<Metric> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in openmetrics.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (Some(what), Some(name)) = (words.next(), words.next()) else { continue };
            let value = words.next().unwrap_or_default().to_owned();
            let family = families.entry(name.to_owned()).or_default();
            match what {
                "TYPE" => family.kind = value,
                "HELP" => family.help = value,
                "UNIT" => family.unit = value,
                _ => {}
            }
        } else if let Some((name, labels, value)) = sample(line) {
            add(&mut families, name, labels, value);
        }
    }
    families.into_iter().filter_map(|(name, family)| metric(name, family, began, now)).collect()
}

/// A line's name, labels and value.
fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    // What follows the value is a time or an exemplar.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

/// The labels of a line from after its brace, and what follows them.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((key.to_owned(), value));
        rest = after[end + 1..].trim_start_matches(',');
    }
}

fn add(families: &mut BTreeMap<String, Family>, sample: &str, mut labels: Labels, value: f64) {
    if let Some(family) = families.get_mut(sample).filter(|family| family.kind != "histogram") {
        family.numbers.push((labels, value));
        return;
    }
    let Some((name, suffix)) = sample.rsplit_once('_') else { return };
    let Some(family) = families.get_mut(name) else { return };
    match (family.kind.as_str(), suffix) {
        ("counter", "total") | ("info", "info") => family.numbers.push((labels, value)),
        ("histogram", _) => {
            let bound = labels.iter().position(|(key, _)| key == "le");
            let bound = bound.map(|at| labels.remove(at).1);
            let buckets = family.histograms.entry(labels).or_default();
            match (suffix, bound.and_then(|text| text.parse().ok())) {
                ("bucket", Some(bound)) => buckets.cumulative.push((bound, value)),
                ("sum", _) => buckets.sum = value,
                ("count", _) => buckets.count = value,
                _ => {}
            }
        }
        _ => {}
    }
}

fn metric(name: String, family: Family, began: u64, now: u64) -> Option<Metric> {
    let Family { kind, help, unit, numbers, histograms } = family;
    let attributes = |labels: Labels| -> Vec<KeyValue> {
        labels.into_iter().map(|(key, value)| text(key, value)).collect()
    };
    let points = |start| -> Vec<NumberDataPoint> {
        let point = |(labels, value): (Labels, f64)| NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: start,
            time_unix_nano: now,
            value: Some(Value::AsDouble(value)),
            ..NumberDataPoint::default()
        };
        numbers.into_iter().map(point).collect()
    };
    let data = match kind.as_str() {
        "counter" => Data::Sum(Sum {
            data_points: points(began),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        "gauge" | "info" | "unknown" => Data::Gauge(Gauge { data_points: points(0) }),
        "histogram" => Data::Histogram(Histogram {
            data_points: histograms
                .into_iter()
                .map(|(labels, buckets)| histogram(attributes(labels), buckets, began, now))
                .collect(),
            aggregation_temporality: CUMULATIVE,
        }),
        _ => return None,
    };
    Some(Metric { name, description: help, unit, data: Some(data), ..Metric::default() })
}

fn histogram(
    attributes: Vec<KeyValue>,
    buckets: Buckets,
    began: u64,
    now: u64,
) -> HistogramDataPoint {
    let Buckets { mut cumulative, sum, count } = buckets;
    cumulative.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut before = 0.0;
    let bucket_counts = cumulative.iter().map(|(_, below)| {
        let own = (below - before).max(0.0);
        before = *below;
        own as u64
    });
    HistogramDataPoint {
        attributes,
        start_time_unix_nano: began,
        time_unix_nano: now,
        count: count as u64,
        sum: Some(sum),
        bucket_counts: bucket_counts.collect(),
        explicit_bounds: cumulative
            .iter()
            .map(|(bound, _)| *bound)
            .filter(|b| b.is_finite())
            .collect(),
        ..HistogramDataPoint::default()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::EncodeLabelSet;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family as Labelled;
    use prometheus_client::metrics::gauge::Gauge as PrometheusGauge;
    use prometheus_client::metrics::histogram::Histogram as PrometheusHistogram;

    use super::*;

    #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
    struct Rig {
        rig: String,
    }

    fn found<'a>(metrics: &'a [Metric], name: &str) -> &'a Data {
        metrics.iter().find(|m| m.name == name).unwrap().data.as_ref().unwrap()
    }

    #[test]
    fn both_ways_out_show_the_same() {
        let metrics = crate::metrics::Metrics::default();
        let landed = Labelled::<Rig, Counter>::default();
        let (depth, seconds) =
            (PrometheusGauge::<i64>::default(), PrometheusHistogram::new([1.0, 5.0]));
        metrics.register(|registry| {
            registry.register("landed", "What landed", landed.clone());
            registry.register("depth", "How many wait", depth.clone());
            registry.register("gate_seconds", "How long", seconds.clone());
        });
        landed.get_or_create(&Rig { rig: "a\"b\\c\n, d=\"}".into() }).inc_by(3);
        depth.set(-7);
        for second in [0.5, 0.5, 3.0, 9.0] {
            seconds.observe(second);
        }
        let read = read(&metrics.encode().unwrap(), 1, 2);
        let Data::Sum(sum) = found(&read, "gastown_landed") else { panic!() };
        let point = &sum.data_points[0];
        assert!(sum.is_monotonic && point.value == Some(Value::AsDouble(3.0)));
        assert_eq!(point.attributes, [text("rig".into(), "a\"b\\c\n, d=\"}".into())]);
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 2));
        let Data::Gauge(gauge) = found(&read, "gastown_depth") else { panic!() };
        assert_eq!(gauge.data_points[0].value, Some(Value::AsDouble(-7.0)));
        let Data::Histogram(histogram) = found(&read, "gastown_gate_seconds") else { panic!() };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (4, Some(13.0)));
        assert_eq!(
            (&point.bucket_counts[..], &point.explicit_bounds[..]),
            (&[2, 1, 1][..], &[1.0, 5.0][..])
        );
        assert_eq!(
            read.iter().find(|m| m.name == "gastown_depth").unwrap().description,
            "How many wait."
        );
    }

    #[test]
    fn any_text_is_read() {
        use proptest::prelude::*;
        proptest!(|(text in "(# TYPE a (counter|histogram)\n)?(a(_total|_bucket|_sum)?[{]?(b=\"[^\"]{0,3}\"?,?){0,2}[}]? ?[0-9.eE+-]{0,5}\n){0,4}.{0,20}")| {
            let _ = read(&text, 0, 0);
        });
    }
}
