//! Jitter for waits.

use std::time::Duration;

/// `base` give or take a tenth, so that many waiters do not wake in the same instant.
pub fn jittered(base: Duration) -> Duration {
    base.mul_f64(0.9 + 0.2 * fastrand::f64())
}
