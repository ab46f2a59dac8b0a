//! Durations as Go writes them: `30s`, `15m`, `1h30m`.
//!
//! Not `kube::core::Duration`: its `FromStr` panics on a number that does not fit, such as
//! `9999999999999999999999h`, which the schema's rule admits, and reads the empty text and negative
//! durations, which it does not.

use std::time::Duration;

/// Reads a duration in Go's form. `None` when it is not one, is negative or does not fit.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[unit..];
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_go_read_as_in_go() {
        for (text, ms) in [
            ("30s", 30_000),
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_reads_as_none() {
        for text in
            ["", "30", "s", "-5s", "5 s", "5d", "1h30", "1..5s", "9999999999999999999999h", "∞"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
