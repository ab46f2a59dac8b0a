//! The parts of `gt`, the program inside a polecat's pod.
//!
//! `init` and `sync` hold the git credentials and touch nothing of the agent's but through
//! [`hostile`]; `run` stands beside the agent and holds nothing worth stealing. The three meet in
//! files (`docs/contracts.md`) and the [`socket`]. This crate knows no Kubernetes: its environment
//! is variables, mounted folders and a termination message.

mod credentials;
pub mod fetch;
pub mod hostile;
pub mod init;
pub mod paths;
pub mod quarantine;
mod record;
mod refs;
pub mod run;
pub mod settings;
pub mod snapshot;
pub mod socket;
pub mod state;
pub mod sync;
pub mod verdict;
mod which;

/// Now, in milliseconds since 1970.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
