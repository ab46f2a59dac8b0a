//! Scenarios on a real cluster: `tests/e2e`. The library holds what they share.

pub mod environment;
pub mod polecats;
pub mod refs;
