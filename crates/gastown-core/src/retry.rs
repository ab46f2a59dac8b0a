//! Back-off: when the next attempt may start. Seconds, pure.

/// Respawns: 30 s, then twice as long each time, at most ten minutes. `respawn` counts from 1.
pub fn respawn_delay(respawn: u32) -> i64 {
    30_i64.saturating_mul(1 << respawn.saturating_sub(1).min(10)).min(600)
}

/// Something outside lacks: 5 s doubling to a minute. `wait` counts from 1.
pub fn wait_delay(wait: u32) -> i64 {
    5_i64.saturating_mul(1 << wait.saturating_sub(1).min(10)).min(60)
}

/// A rate limit's reset as an agent claims it: at least 30 s, at most six hours from `now`.
pub fn rate_limit_until(now: i64, claimed: Option<i64>) -> i64 {
    claimed
        .unwrap_or(now.saturating_add(60))
        .clamp(now.saturating_add(30), now.saturating_add(6 * 3600))
}

/// Repeated calls to another service: 1 s doubling to 30 s. `failure` counts from 1.
pub fn request_delay(failure: u32) -> i64 {
    (1_i64 << failure.saturating_sub(1).min(5)).min(30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_their_bounds() {
        assert_eq!(
            (1..=7).map(respawn_delay).collect::<Vec<_>>(),
            [30, 60, 120, 240, 480, 600, 600]
        );
        assert_eq!((1..=6).map(wait_delay).collect::<Vec<_>>(), [5, 10, 20, 40, 60, 60]);
        assert_eq!((1..=7).map(request_delay).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(
            [respawn_delay(0), respawn_delay(u32::MAX), wait_delay(u32::MAX)],
            [30, 600, 60]
        );
    }

    #[test]
    fn a_claimed_reset_is_believed_within_bounds() {
        assert_eq!(rate_limit_until(1000, None), 1060);
        assert_eq!(rate_limit_until(1000, Some(i64::MIN)), 1030);
        assert_eq!(rate_limit_until(1000, Some(i64::MAX)), 1000 + 6 * 3600);
        assert_eq!(rate_limit_until(1000, Some(5000)), 5000);
    }
}
