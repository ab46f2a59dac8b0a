//! Stores in git: reading, editing and pushing files of beads.

pub mod branches;
pub mod folder;
pub(crate) mod mirror;
