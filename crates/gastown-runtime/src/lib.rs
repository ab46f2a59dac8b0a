//! What every controller shares: arguments, telemetry, client, admin server, leases, watches,
//! apply, events and the gRPC server.
//!
//! It must not know any controller: it names no kind of ours, and makes no decision about one.

pub mod admin;
pub mod answers;
pub mod apply;
pub mod args;
pub mod auth;
pub mod client;
pub mod controller;
mod decode;
pub mod definitions;
pub mod events;
pub mod forward;
pub mod grpc;
pub mod https;
pub mod image;
pub mod index;
mod jitter;
pub mod lease;
mod member;
pub mod metrics;
pub mod network;
pub mod ours;
pub mod own_writes;
pub mod pace;
pub mod places;
pub mod proxy;
mod queue;
mod runtime;
pub mod sentence;
pub mod shards;
pub mod stalled;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod watch;

pub use args::RuntimeArgs;
pub use jitter::jittered;
pub use runtime::{Runtime, run, run_once};

/// The audience of every bearer token that our servers accept.
pub const AUDIENCE: &str = "gastown";
