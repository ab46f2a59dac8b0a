//! A strict reader of a page of metrics, as OpenMetrics 1.0 has it, for tests: it takes nothing that
//! Prometheus would not, and compares with the catalogue.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Definition, Kind, Owner};

/// Names and values of labels, in the order of the names.
pub type Labels = BTreeMap<String, String>;

/// A value of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The name of the series.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// The value.
    pub value: f64,
    /// The labels of its exemplar, if it has one.
    pub exemplar: Option<Labels>,
}

/// The samples of one metric.
#[derive(Clone, Debug, Default)]
pub struct Family {
    /// As in `# TYPE`.
    pub kind: String,
    /// As in `# HELP`.
    pub help: String,
    /// As in `# UNIT`.
    pub unit: Option<String>,
    /// In their order.
    pub samples: Vec<Sample>,
}

/// A page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// By the name in `# TYPE`.
    pub families: BTreeMap<String, Family>,
}

/// Reads a page. The error names the line and what is wrong with it.
pub fn read(text: &str) -> Result<Page, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("the page does not end with # EOF")?;
    let (mut page, mut current) = (Page::default(), None::<String>);
    let mut series = BTreeSet::new();
    for (number, line) in body.lines().enumerate() {
        let about = |why: String| format!("line {}: {why}: {line}", number + 1);
        if let Some(comment) = line.strip_prefix("# ") {
            comment_line(&mut page, &mut current, comment).map_err(about)?;
            continue;
        }
        let sample = sample(line).ok_or_else(|| about("not a sample".to_owned()))?;
        let name = current.as_ref().ok_or_else(|| about("a sample without a metric".to_owned()))?;
        let family = page.families.get_mut(name).ok_or_else(|| about("no metric".to_owned()))?;
        belongs(name, family, &sample).map_err(about)?;
        if !series.insert((sample.name.clone(), sample.labels.clone())) {
            return Err(about("the series is there twice".to_owned()));
        }
        family.samples.push(sample);
    }
    for (name, family) in &page.families {
        if family.kind == "histogram" {
            buckets(family).map_err(|why| format!("{name}: {why}"))?;
        }
    }
    Ok(page)
}

fn comment_line(
    page: &mut Page,
    current: &mut Option<String>,
    comment: &str,
) -> Result<(), String> {
    let mut words = comment.splitn(3, ' ');
    let (Some(what), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else {
        return Err("not a comment of OpenMetrics".to_owned());
    };
    if current.as_deref() != Some(name) {
        if page.families.contains_key(name) {
            return Err("the lines of one metric are apart".to_owned());
        }
        page.families.insert(name.to_owned(), Family::default());
        *current = Some(name.to_owned());
    }
    let family = page.families.entry(name.to_owned()).or_default();
    if !family.samples.is_empty() {
        return Err("it comes after the samples".to_owned());
    }
    match what {
        "HELP" if family.help.is_empty() => rest.clone_into(&mut family.help),
        "TYPE" if family.kind.is_empty() => {
            if !["counter", "gauge", "histogram"].contains(&rest) {
                return Err("an unknown type".to_owned());
            }
            rest.clone_into(&mut family.kind);
        }
        "UNIT" if family.unit.is_none() && name.ends_with(&format!("_{rest}")) => {
            family.unit = Some(rest.to_owned());
        }
        _ => return Err("a comment that does not fit".to_owned()),
    }
    Ok(())
}

/// Whether a sample is one of this metric.
fn belongs(name: &str, family: &Family, sample: &Sample) -> Result<(), String> {
    let suffix = sample.name.strip_prefix(name).ok_or("it is of another metric")?;
    let (fits, may_have_exemplar) = match (family.kind.as_str(), suffix) {
        ("gauge", "") | ("histogram", "_sum" | "_count") => (true, false),
        ("counter", "_total") | ("histogram", "_bucket") => (true, true),
        _ => (false, false),
    };
    if !fits {
        return Err(format!("a {} has no such series", family.kind));
    }
    if (suffix == "_bucket") != sample.labels.contains_key("le") {
        return Err("le is the label of buckets".to_owned());
    }
    if family.kind != "gauge" && (sample.value.is_nan() || sample.value < 0.0) {
        return Err("it counts below zero".to_owned());
    }
    if let Some(exemplar) = &sample.exemplar {
        let length: usize =
            exemplar.iter().map(|(k, v)| k.chars().count() + v.chars().count()).sum();
        if !may_have_exemplar || length > 128 {
            return Err("its exemplar is not allowed".to_owned());
        }
    }
    Ok(())
}

/// The buckets of a histogram rise, and the last one has all.
fn buckets(family: &Family) -> Result<(), String> {
    let without_bound = |sample: &Sample| {
        let mut labels = sample.labels.clone();
        labels.remove("le");
        labels
    };
    let mut all: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts: BTreeMap<Labels, f64> = BTreeMap::new();
    for sample in &family.samples {
        if let Some(bound) = sample.labels.get("le") {
            let bound = number(bound).ok_or_else(|| format!("a bound is {bound}"))?;
            all.entry(without_bound(sample)).or_default().push((bound, sample.value));
        } else if sample.name.ends_with("_count") {
            counts.insert(without_bound(sample), sample.value);
        }
    }
    for (labels, buckets) in &all {
        let rise = buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
        let last = buckets.last().filter(|(bound, _)| bound.is_infinite()).map(|(_, value)| value);
        if !rise || last != counts.get(labels) {
            return Err(format!("the buckets of {labels:?} do not rise to its count"));
        }
    }
    if all.len() == counts.len() { Ok(()) } else { Err("a count without buckets".to_owned()) }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        // Rust reads words that OpenMetrics does not know.
        _ if text.bytes().any(|b| !(b.is_ascii_digit() || b"+-.eE".contains(&b))) => None,
        _ => text.parse().ok(),
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = labels(rest)?;
    let rest = rest.strip_prefix(' ')?;
    let (value, exemplar) = match rest.split_once(" # ") {
        Some((value, exemplar)) => (value, Some(exemplar)),
        None => (rest, None),
    };
    let exemplar = match exemplar {
        Some(text) => {
            let (labels, rest) = self::labels(text).filter(|(labels, _)| !labels.is_empty())?;
            let numbers: Option<Vec<f64>> =
                rest.strip_prefix(' ')?.split(' ').map(number).collect();
            numbers.filter(|numbers| (1..=2).contains(&numbers.len()))?;
            Some(labels)
        }
        None => None,
    };
    is_name(name).then_some(())?;
    Some(Sample { name: name.to_owned(), labels, value: number(value)?, exemplar })
}

/// The labels at the beginning of a text, and what follows them.
fn labels(text: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    let Some(mut rest) = text.strip_prefix('{') else { return Some((labels, text)) };
    loop {
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    escaped @ ('\\' | '"') => value.push(escaped),
                    _ => return None,
                },
                (_, '\n') => return None,
                (_, other) => value.push(other),
            }
        };
        if !is_name(key) || labels.insert(key.to_owned(), value).is_some() {
            return None;
        }
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Some((labels, rest.strip_prefix('}')?)),
        }
    }
}

impl Page {
    /// The value of a series; none when it is not there. All labels count.
    pub fn value(&self, series: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.sample(series, labels).map(|sample| sample.value)
    }

    /// The series of this name and these labels.
    pub fn sample(&self, series: &str, labels: &[(&str, &str)]) -> Option<&Sample> {
        let labels: Labels =
            labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut samples = self.families.values().flat_map(|family| &family.samples);
        samples.find(|sample| sample.name == series && sample.labels == labels)
    }

    /// How the page of a controller, `rig-ctl`, differs from the catalogue: metrics that are not in it or
    /// are another controller's, that lack, and that differ in kind, unit, labels or meaning. Empty when it
    /// does not.
    pub fn differences(&self, controller: &str) -> Vec<String> {
        let is_its = |definition: &&&Definition| match definition.owner {
            Owner::Every => true,
            Owner::One(owner) => owner == controller,
        };
        let all: Vec<&Definition> = crate::all().collect();
        let its: BTreeMap<&str, &Definition> =
            all.iter().filter(is_its).map(|definition| (definition.name, *definition)).collect();
        let strange = self.families.keys().filter(|name| !its.contains_key(name.as_str()));
        let mut wrong: Vec<String> =
            strange.map(|name| format!("{name} is not in the catalogue of {controller}")).collect();
        for (name, definition) in its {
            match self.families.get(name) {
                Some(family) => wrong.extend(family.differs(definition)),
                None => wrong.push(format!("{name} lacks")),
            }
        }
        wrong
    }
}

impl Family {
    fn differs(&self, definition: &Definition) -> Option<String> {
        let mut wanted: Vec<&str> = definition.labels.to_vec();
        wanted.sort_unstable();
        let labels_differ = |sample: &&Sample| {
            let keys = sample.labels.keys().map(String::as_str);
            !keys.filter(|key| *key != "le").eq(wanted.iter().copied())
        };
        let why = if self.kind != definition.kind.as_str() {
            format!("it is a {}", self.kind)
        } else if self.help.strip_suffix('.') != Some(definition.help) {
            format!("its help is {:?}", self.help)
        } else if self.unit.as_deref() != definition.unit.suffix() {
            format!("its unit is {:?}", self.unit)
        } else if let Some(sample) = self.samples.iter().find(labels_differ) {
            format!("its labels are {:?}", sample.labels)
        } else if let (Kind::Histogram(buckets), Some(sample)) =
            (definition.kind, self.samples.iter().find(|s| s.labels.contains_key("le")))
        {
            let of_it = |other: &&Sample| {
                let same = |key: &&String| {
                    *key == "le" || other.labels.get(*key) == sample.labels.get(*key)
                };
                other.labels.contains_key("le") && sample.labels.keys().all(|key| same(&key))
            };
            let bounds = self.samples.iter().filter(of_it).count();
            if bounds == buckets.len() + 1 {
                return None;
            }
            format!("it has {bounds} buckets")
        } else {
            return None;
        };
        Some(format!("{}: {why}", definition.name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "# HELP a_seconds How long.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
        a_seconds_sum{rig=\"w\\\"e\"} 3.5\na_seconds_count{rig=\"w\\\"e\"} 2\n\
        a_seconds_bucket{rig=\"w\\\"e\",le=\"1.0\"} 1 # {trace_id=\"0af7\"} 0.5\n\
        a_seconds_bucket{rig=\"w\\\"e\",le=\"+Inf\"} 2\n\
        # HELP b How many.\n# TYPE b counter\nb_total 1\n# EOF\n";

    #[test]
    fn a_page_is_read_with_its_exemplars() {
        let page = read(GOOD).unwrap();
        let bucket = page.sample("a_seconds_bucket", &[("rig", "w\"e"), ("le", "1.0")]).unwrap();
        assert_eq!(bucket.exemplar.as_ref().unwrap()["trace_id"], "0af7");
        assert_eq!(page.value("b_total", &[]), Some(1.0));
        assert_eq!(page.value("b_total", &[("rig", "web")]), None);
    }

    #[test]
    fn what_prometheus_would_not_take_is_refused() {
        for (from, to) in [
            ("# EOF\n", ""),
            ("b_total 1", "b 1"),
            ("b_total 1", "b_total -1"),
            ("b_total 1", "b_total 1\nb_total 2"),
            ("b_total 1", "b_total one"),
            ("b_total 1", "b_total{} 1"),
            ("b_total 1", "b_total{le=\"1\"} 1"),
            ("b_total 1", "c_total 1"),
            ("_bucket{rig=\"w\\\"e\",le=\"1.0\"} 1", "_bucket{rig=\"w\\\"e\",le=\"1.0\"} 3"),
            ("_count{rig=\"w\\\"e\"} 2", "_count{rig=\"w\\\"e\"} 3"),
            ("_sum{rig=\"w\\\"e\"} 3.5", "_sum{rig=\"w\\\"e\"} 3.5 # {trace_id=\"0af7\"} 0.5"),
            ("seconds\na", "minutes\na"),
            ("TYPE b counter", "TYPE b number"),
            ("# HELP b How many.\n", "# HELP a_seconds Again.\n"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            assert!(read(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_metric_that_is_not_in_the_catalogue_is_named() {
        let wrong = read(GOOD).unwrap().differences("rig-ctl");
        assert!(wrong.contains(&"b is not in the catalogue of rig-ctl".to_owned()), "{wrong:?}");
        assert!(wrong.contains(&"gastown_rig_ready lacks".to_owned()), "{wrong:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(# (TYPE|HELP|UNIT) a (counter|histogram)\n)?(a(_total|_bucket|_sum)?[{]?(b=\"[^\"]{0,3}\"?,?){0,2}[}]? ?[0-9.eE+-]{0,5}( # [{]a=\"\"[}] 1)?\n){0,4}.{0,20}(# EOF\n)?") {
            let _ = read(&text);
        }
    }
}
