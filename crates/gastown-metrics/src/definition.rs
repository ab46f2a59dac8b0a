//! What a metric is.

/// What a metric measures, and how its series are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only rises, until the process ends.
    Counter,
    /// It rises and falls.
    Gauge,
    /// How many observations were at most so large: the upper bounds, in the metric's unit.
    Histogram(&'static [f64]),
}

impl Kind {
    /// As in `# TYPE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// What the values of a metric are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// How many there are.
    Count,
    /// Seconds, of a duration or since 1970.
    Seconds,
    /// Bytes.
    Bytes,
    /// US dollars.
    Dollars,
    /// 1 when it is so.
    Flag,
}

impl Unit {
    /// The end of the names of its metrics, which is written as `# UNIT` too.
    pub fn suffix(self) -> Option<&'static str> {
        match self {
            Self::Seconds => Some("seconds"),
            Self::Bytes => Some("bytes"),
            Self::Dollars => Some("usd"),
            Self::Count | Self::Flag => None,
        }
    }

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "number",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Dollars => "US dollars",
            Self::Flag => "1 or 0",
        }
    }
}

/// Which controller has a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// All of them.
    Every,
    /// One, by its name: `rig-ctl`, ….
    One(&'static str),
}

/// A metric.
#[derive(Debug)]
pub struct Definition {
    /// The name in `# TYPE`; the series of a counter end in `_total`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// What the values are in.
    pub unit: Unit,
    /// The names of the labels, in order.
    pub labels: &'static [&'static str],
    /// What it means, without a full stop.
    pub help: &'static str,
    /// Who has it.
    pub owner: Owner,
}

impl Definition {
    /// The names of its series in queries.
    pub fn series(&self) -> impl Iterator<Item = String> {
        let suffixes: &[&str] = match self.kind {
            Kind::Counter => &["_total"],
            Kind::Gauge => &[""],
            Kind::Histogram(_) => &["_bucket", "_sum", "_count"],
        };
        suffixes.iter().map(|suffix| format!("{}{suffix}", self.name))
    }
}

/// A counter of whole numbers with `N` labels.
#[derive(Debug)]
pub struct Counter<const N: usize>(pub Definition);

/// A counter of fractions with `N` labels.
#[derive(Debug)]
pub struct Amount<const N: usize>(pub Definition);

/// A gauge with `N` labels.
#[derive(Debug)]
pub struct Gauge<const N: usize>(pub Definition);

/// A histogram with `N` labels.
#[derive(Debug)]
pub struct Histogram<const N: usize>(pub Definition);

/// Upper bounds for requests, in seconds.
pub(crate) const REQUESTS: &[f64] =
    &[0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds for work and queues that may take from a second to days, in seconds.
pub(crate) const WAITS: &[f64] = &[
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14_400.0,
    28_800.0, 57_600.0, 86_400.0, 259_200.0,
];

/// Upper bounds of the refinery's own durations, which were there before [`WAITS`]: every bound of theirs
/// stays.
pub(crate) const MERGES: &[f64] = &[
    0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0,
    14_400.0, 28_800.0, 86_400.0,
];

/// Defines metrics and the list of them.
macro_rules! metrics {
    ($owner:expr; $($constant:ident: $type:ident($($kind:tt)*), $name:literal, $unit:ident,
        [$($label:literal),*], $help:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help, ".")]
            pub static $constant: $crate::$type<{ const LABELS: &[&str] = &[$($label),*]; LABELS.len() }> =
                $crate::$type($crate::Definition {
                    name: $name,
                    kind: metrics!(@ $type $($kind)*),
                    unit: $crate::Unit::$unit,
                    labels: &[$($label),*],
                    help: $help,
                    owner: $owner,
                });
        )+
        /// All of them.
        pub static ALL: &[&$crate::Definition] = &[$(&$constant.0),+];
    };
    (@ Counter) => { $crate::Kind::Counter };
    (@ Amount) => { $crate::Kind::Counter };
    (@ Gauge) => { $crate::Kind::Gauge };
    (@ Histogram $buckets:ident) => { $crate::Kind::Histogram($crate::definition::$buckets) };
}

pub(crate) use metrics;
