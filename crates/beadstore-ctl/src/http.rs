//! Stores behind `bd serve`: reading and editing beads, and the records of those edits.

pub(crate) mod edit;
pub mod intent_store;
pub mod intents;
pub mod read;
