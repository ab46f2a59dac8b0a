//! Scenarios on a real cluster: `tests/e2e`, `tests/versions`. The library holds what they share.

pub mod environment;
pub mod polecats;
pub mod refs;
pub mod replicas;
pub mod scenarios;
