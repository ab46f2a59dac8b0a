//! The catalogue of metrics, as plain data: name, kind, unit, labels, meaning, and which controller has
//! it. Controllers register what is written here, docs/metrics.md is generated from it, and queries of
//! dashboards and alerts name what is in it.
//!
//! It must not know how metrics are kept or served.

mod definition;
pub mod page;

pub mod beadstore;
pub mod convoy;
pub mod every;
pub mod polecat;
pub mod refinery;
pub mod rig;
pub mod witness;

pub use definition::{Amount, Counter, Definition, Gauge, Histogram, Kind, Owner, Unit};

/// All metrics, those of every controller first.
pub fn all() -> impl Iterator<Item = &'static Definition> {
    let groups = [
        every::ALL,
        rig::ALL,
        polecat::ALL,
        convoy::ALL,
        witness::ALL,
        refinery::ALL,
        beadstore::ALL,
    ];
    groups.into_iter().flatten().copied()
}

/// The metric that has the series of this name, as a query names it: of a histogram
/// `…_bucket`, `…_sum` and `…_count`, of a counter `…_total`.
pub fn of_series(series: &str) -> Option<&'static Definition> {
    all().find(|definition| definition.series().any(|name| name == series))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_of_their_unit() {
        let mut seen = BTreeSet::new();
        for definition in all() {
            let name = definition.name;
            assert!(definition.series().all(|series| seen.insert(series)), "{name} is twice");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
            assert!(!name.ends_with("_total"), "{name}: Prometheus adds it");
            if let Some(unit) = definition.unit.suffix() {
                assert!(name.ends_with(&format!("_{unit}")), "{name} is in {unit}");
            }
            assert!(!definition.help.ends_with('.') && definition.help.len() > 10, "{name}");
        }
    }

    #[test]
    fn no_series_is_of_one_polecat() {
        let few = [
            "rig",
            "namespace",
            "phase",
            "reason",
            "end",
            "cause",
            "model",
            "type",
            "result",
            "state",
            "severity",
            "controller",
            "verb",
            "resource",
            "code",
            "kind",
            "service",
            "method",
            "signal",
            "version",
            "command",
            "status",
            "cicd_pipeline_run_state",
            "cicd_pipeline_result",
            "escalation",
        ];
        for definition in all() {
            for label in definition.labels {
                assert!(few.contains(label), "{} by {label}", definition.name);
            }
        }
    }

    #[test]
    fn buckets_rise_and_waits_reach_a_day() {
        for definition in all() {
            let Kind::Histogram(buckets) = definition.kind else { continue };
            assert!(buckets.is_sorted_by(|a, b| a < b), "{}", definition.name);
            assert!(!buckets.is_empty() && buckets.len() <= 24, "{}", definition.name);
        }
        assert!(definition::WAITS.last().is_some_and(|last| *last >= 86_400.0));
    }

    #[test]
    fn a_series_leads_to_its_metric() {
        let name = |series| of_series(series).map(|definition| definition.name);
        assert_eq!(name("gastown_refinery_merge_total"), Some("gastown_refinery_merge"));
        assert_eq!(
            name("gastown_refinery_gate_seconds_bucket"),
            Some("gastown_refinery_gate_seconds")
        );
        assert_eq!(name("gastown_refinery_queue_length"), Some("gastown_refinery_queue_length"));
        assert_eq!(name("gastown_refinery_merge"), None);
    }
}
