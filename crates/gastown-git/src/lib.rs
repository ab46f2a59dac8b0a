//! Git for the operator: gix reads and writes objects, [`spawn`] alone starts git.
//!
//! What belongs here: remotes and their classified errors, bare mirrors, candidates, single files
//! of a branch, serving a mirror over HTTP. It does not know Kubernetes: callers pass credentials as
//! values and make conditions of errors.

mod attributes;
mod authorities;
pub mod candidate;
mod commit;
mod contents;
mod credentials;
pub mod error;
pub mod files;
#[cfg(test)]
mod fuzz;
pub mod history;
pub mod known_hosts;
pub mod lfs;
pub mod memory;
mod merge;
pub mod mirror;
mod progress;
pub mod push;
pub mod remote;
pub mod secret_keys;
pub mod serve;
pub mod spawn;
pub mod submodules;
pub mod tags;
mod trailer;

pub use authorities::Trust;
pub use candidate::{Built, Candidate, Committing, Recipe, Shape, Strategy, build};
pub use credentials::{Credentials, Secret};
pub use error::{Class, GitError, Refusal};
pub use history::Objects;
pub use mirror::Mirror;
pub use push::{PushOutcome, RefUpdate};
pub use remote::Remote;
pub use spawn::{Call, Git, Output};
