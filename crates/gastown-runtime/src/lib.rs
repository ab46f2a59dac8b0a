//! What every controller shares: arguments, telemetry, client, admin server, leases, apply, gRPC
//! plumbing.
//!
//! It must not know any controller: no kind of ours is named here, no decision about the town is
//! made here.

pub mod admin;
pub mod apply;
pub mod args;
pub mod auth;
pub mod client;
pub mod controller;
pub mod events;
pub mod grpc;
pub mod https;
pub mod lease;
pub mod metrics;
pub mod own_writes;
pub mod pace;
mod shell;
pub mod telemetry;
pub mod tls;
pub mod watch;

pub use args::RuntimeArgs;
pub use shell::{NoArgs, Runtime, run};

/// The audience of every bearer token that our servers accept.
pub const AUDIENCE: &str = "gastown";

/// `base` give or take a tenth, so that many waiters do not wake in the same instant.
pub fn jittered(base: std::time::Duration) -> std::time::Duration {
    base.mul_f64(0.9 + 0.2 * fastrand::f64())
}
