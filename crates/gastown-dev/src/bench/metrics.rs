//! The counters of a controller, read from the text of its `/metrics`. Pure.

use std::collections::BTreeMap;

/// Resource and verb of requests to the API server.
pub type Request = (String, String);

/// How many requests of each kind were made so far, whatever their result.
pub fn requests(text: &str) -> BTreeMap<Request, u64> {
    let mut all = BTreeMap::new();
    for (resource, verb, count) in text.lines().filter_map(request_count) {
        *all.entry((resource, verb)).or_default() += count;
    }
    all
}

/// Resource, verb and count of a line such as
/// `gastown_kube_requests_total{verb="get",resource="pods",code="200"} 3`.
fn request_count(line: &str) -> Option<(String, String, u64)> {
    let rest = line.strip_prefix("gastown_kube_requests_total{")?;
    let (labels, count) = rest.rsplit_once("} ")?;
    let label = |name: &str| {
        labels
            .split(',')
            .find_map(|l| l.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
            .map(str::to_owned)
    };
    Some((label("resource")?, label("verb")?, count.trim().parse().ok()?))
}

/// The increase of each counter, without those that did not change; a counter that was reset counts
/// whole.
pub fn since<K: Ord + Clone>(
    before: &BTreeMap<K, u64>,
    after: &BTreeMap<K, u64>,
) -> BTreeMap<K, u64> {
    let news = after.iter().map(|(key, count)| {
        (
            key.clone(),
            count.checked_sub(before.get(key).copied().unwrap_or_default()).unwrap_or(*count),
        )
    });
    news.filter(|(_, count)| *count > 0).collect()
}

/// The value of one series, written as `name{labels}`; 0 when it does not exist.
pub fn value(text: &str, series: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(all: &[(&str, &str, u64)]) -> BTreeMap<Request, u64> {
        all.iter()
            .map(|(resource, verb, count)| (((*resource).to_owned(), (*verb).to_owned()), *count))
            .collect()
    }

    #[test]
    fn requests_are_added_up_over_their_status_codes() {
        let text = "# TYPE gastown_kube_requests counter\n\
                    gastown_kube_requests_total{verb=\"apply\",resource=\"polecats/status\",code=\"200\"} 12\n\
                    gastown_kube_requests_total{verb=\"apply\",resource=\"polecats/status\",code=\"409\"} 3\n\
                    gastown_kube_requests_total{verb=\"get\",resource=\"pods\",code=\"200\"} 1\n";
        assert_eq!(
            requests(text),
            counted(&[("pods", "get", 1), ("polecats/status", "apply", 15)])
        );
    }

    #[test]
    fn only_the_increase_is_counted() {
        let before = counted(&[("pods", "create", 2), ("pods", "get", 1), ("leases", "update", 9)]);
        let after = counted(&[
            ("pods", "create", 5),
            ("pods", "get", 1),
            ("pods", "delete", 2),
            ("leases", "update", 4),
        ]);
        assert_eq!(
            since(&before, &after),
            counted(&[("leases", "update", 4), ("pods", "create", 3), ("pods", "delete", 2)])
        );
    }

    #[test]
    fn a_series_is_read_by_its_whole_name() {
        let text = "gastown_witness_streams_x 3\ngastown_witness_streams 2000\ngastown_reconcile_duration_seconds_sum{controller=\"a\"} 0.25\n";
        assert_eq!(value(text, "gastown_witness_streams").to_string(), "2000");
        assert_eq!(
            value(text, "gastown_reconcile_duration_seconds_sum{controller=\"a\"}").to_string(),
            "0.25"
        );
        assert_eq!(value(text, "gastown_witness").to_string(), "0");
    }
}
