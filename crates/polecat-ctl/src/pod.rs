//! The pod of an attempt: facts in, object out. `docs/contracts/pod.md` has the table of volumes and
//! variables.

mod build;
mod claude;
mod defaults;
mod init;
mod metadata;
mod network;
mod observed;
mod parts;
mod prompt;
mod prompt_place;
mod room;
mod security;
mod sync;
mod volumes;

#[cfg(test)]
mod tests;

pub(crate) use build::build;
pub(crate) use defaults::{PodDefaults, Witness};
pub(crate) use metadata::{ASKED, CLAUDE, GIT_INIT, GIT_SYNC};
pub use network::AgentNetworkArgs;
pub(crate) use network::{SELECTOR as POLICIES, policy, policy_name};
pub(crate) use observed::{AgentPod, Container, drain, owner_uid};
pub(crate) use prompt::prompt;
pub(crate) use prompt_place::Prompt;
pub use room::RoomArgs;
