//! Tests of the crate's public functions.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod edits;
mod fuzz;
mod interleavings;
mod joins;
mod large;
mod ready;
mod stores;
