//! What queries name: every metric is one of the catalogue, and its labels are those that it has.

#[cfg(test)]
use std::collections::BTreeSet;

/// The names of the series in a query. Words of the query language, labels and numbers are not among them:
/// our series have an underscore and are followed by a brace, a bracket or a space, and not by a
/// parenthesis or an equals sign.
#[cfg(test)]
pub fn series(query: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (mut found, mut rest) = (BTreeSet::new(), query);
    // Labels and values in braces, and lists of labels, are not series.
    let (mut quoted, mut braces) = (false, 0);
    while let Some(first) = rest.chars().next() {
        let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        if !quoted && braces == 0 && length > 0 {
            let (word, after) = rest.split_at(length);
            let begins_list =
                ["by", "without", "on", "ignoring", "group_left", "group_right"].contains(&word);
            if begins_list && let Some(list) = after.trim_start().strip_prefix('(') {
                rest = list.split_once(')').map_or("", |(_, rest)| rest);
                continue;
            }
            let is_function = after.starts_with('(');
            let is_series =
                word.contains('_') && word.starts_with(|c: char| c.is_ascii_lowercase());
            if is_series && !is_function {
                found.insert(word);
            }
            rest = after;
            continue;
        }
        match first {
            '"' => quoted = !quoted,
            '{' if !quoted => braces += 1,
            '}' if !quoted => braces -= 1,
            _ => {}
        }
        rest = &rest[first.len_utf8()..];
    }
    found
}

/// Fails with each series of a query that no metric has.
#[cfg(test)]
pub fn check(query: &str, about: &str) {
    // Grafana and Prometheus have these.
    let others = ["gastown:daily_cost_limit:usd", "up"];
    for name in series(query).into_iter().filter(|name| !others.contains(name)) {
        assert!(
            gastown_metrics::of_series(name).is_some(),
            "{about}: {name} is not in the catalogue: {query}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_a_query_are_found() {
        let query = "histogram_quantile(0.9, sum by (le, rig_a) (rate(a_seconds_bucket{rig=~\"b_c\"}[$__rate_interval]))) / on(x_y) group_left(z_z) c_total > 0";
        assert_eq!(series(query), BTreeSet::from(["a_seconds_bucket", "c_total"]));
    }
}
