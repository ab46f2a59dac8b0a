//! Real git against real remotes: what is fetched, what may be pushed, what candidates become.

#![allow(clippy::unwrap_used, clippy::panic)]

mod candidates;
mod files;
mod fixture;
mod histories;
mod mirrors;
mod push;
mod rebase;
mod serving;
