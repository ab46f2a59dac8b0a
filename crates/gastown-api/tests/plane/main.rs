//! The CRDs on a real API server: every rule accepts and refuses what it should, every immutable
//! field stays, every default is filled in, and nothing that is written gets lost.

// Clippy's leave for tests ends at functions that are marked as such; helpers here are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]
// `json!` where it is written, not a borrow of it.
#![allow(clippy::needless_pass_by_value)]

mod admission;
mod defaults;
mod fixture;
mod identities;
mod immutable;
mod polecat_rules;
mod rbac;
mod roundtrip;
mod rules;
mod upgrade;
