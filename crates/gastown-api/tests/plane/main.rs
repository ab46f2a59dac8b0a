//! The CRDs on a real API server: every rule accepts and refuses what it should, every immutable field stays, every
//! default is filled in, and nothing that is written gets lost.

mod defaults;
mod ground;
mod immutable;
mod polecat_rules;
mod roundtrip;
mod rules;
