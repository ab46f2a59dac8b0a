//! How often something may happen: some at once, and then one in an interval.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket of permissions that fills again with time.
#[derive(Debug)]
pub(super) struct Spacing {
    burst: u32,
    every: Duration,
    left: u32,
    /// When the last permission was added.
    filled: Instant,
}

impl Spacing {
    /// `burst` permissions at once, and one more in each interval `every`.
    pub fn new(burst: u32, every: Duration, now: Instant) -> Self {
        Self { burst, every, left: burst, filled: now }
    }

    /// Takes a permission; `false` when none is left.
    pub fn take(&mut self, now: Instant) -> bool {
        while self.left < self.burst && now >= self.filled + self.every {
            self.left += 1;
            self.filled += self.every;
        }
        if self.left == self.burst {
            self.filled = now;
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_one_in_an_interval() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut spacing = Spacing::new(2, Duration::from_secs(10), start);
        let taken = [0, 0, 0, 9, 10, 10, 100, 100, 100].map(|s| spacing.take(at(s)));
        assert_eq!(taken, [true, true, false, false, true, false, true, true, false]);
    }
}
