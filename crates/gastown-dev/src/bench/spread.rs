//! Percentiles of durations. Pure.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Percentiles of durations by the nearest rank: each is a duration that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// How many durations there were.
    pub count: usize,
    /// Half of them took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took no longer, in milliseconds. Of fewer than 100 it is the longest.
    pub p99_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
}

impl Spread {
    /// The percentiles of these durations; `None` when there are none.
    pub fn of(mut all: Vec<Duration>) -> Option<Self> {
        all.sort_unstable();
        let longest = *all.last()?;
        let rank = |percent: usize| all[(all.len() * percent).div_ceil(100).saturating_sub(1)];
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        Some(Self {
            count: all.len(),
            p50_ms: ms(rank(50)),
            p99_ms: ms(rank(99)),
            max_ms: ms(longest),
        })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50_ms, p99_ms, max_ms } = self;
        write!(f, "P50 {p50_ms:.1} ms, P99 {p99_ms:.1} ms, longest {max_ms:.1} ms, of {count}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ms: impl IntoIterator<Item = u64>) -> Option<(usize, f64, f64, f64)> {
        let spread = Spread::of(ms.into_iter().map(Duration::from_millis).collect())?;
        Some((spread.count, spread.p50_ms, spread.p99_ms, spread.max_ms))
    }

    #[test]
    fn a_percentile_is_the_nearest_rank_whatever_the_order() {
        assert_eq!(of((1..=200).rev()), Some((200, 100.0, 198.0, 200.0)));
        assert_eq!(of([30, 10, 20]), Some((3, 20.0, 30.0, 30.0)));
        assert_eq!(of([10, 20]), Some((2, 10.0, 20.0, 20.0)));
        assert_eq!(of([7]), Some((1, 7.0, 7.0, 7.0)));
        assert_eq!(of([]), None);
    }
}
