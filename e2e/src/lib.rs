//! Scenarios on a real cluster: `tests/e2e`. The library holds what they share, the ground that
//! they stand on.

pub mod ground;
pub mod refs;
