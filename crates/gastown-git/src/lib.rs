//! Git for the operator: gix reads and builds objects, [`spawn`] alone starts git.
//!
//! What belongs here: remotes and their typed faults, bare mirrors, candidates, single files of a
//! branch, serving a mirror over HTTP. It knows no Kubernetes: credentials come in as values,
//! conditions are made by the callers.

pub mod candidate;
pub mod error;
pub mod files;
pub mod history;
pub mod known_hosts;
pub mod mirror;
pub mod remote;
pub mod secret_keys;
pub mod serve;
pub mod spawn;

pub use candidate::{Built, Candidate, Recipe, Shape, Strategy, TRAILER, build};
pub use error::{Class, GitError, Refusal};
pub use history::Objects;
pub use mirror::Mirror;
pub use remote::{Credentials, PushOutcome, RefUpdate, Remote, Secret};
pub use spawn::{Call, Git, Output};
