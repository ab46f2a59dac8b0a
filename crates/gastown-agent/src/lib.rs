//! The parts of `gt`, the program inside a polecat's pod.
//!
//! `init` and `sync` have the git credentials, and read files of the agent only through [`hostile`];
//! `run` is in the agent's container and has no git credentials. The three share files
//! (`docs/contracts/pod.md`) and the [`socket`]. This crate does not know Kubernetes: its interface is
//! environment variables, mounted folders and a termination message.

mod attributes;
mod commits;
mod credentials;
pub mod done;
mod fence;
pub mod fetch;
pub mod hostile;
pub mod init;
pub mod lfs;
pub mod paths;
pub mod quarantine;
mod refs;
pub mod run;
pub mod settings;
pub mod snapshot;
pub mod socket;
pub mod state;
pub mod submodules;
pub mod sync;
mod termination;
mod walk;

/// The present time, in milliseconds since 1970.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
