//! What this crate promises, on a real API server.

mod apply;
mod events;
mod fixture;
mod grpc;
mod lease;
mod watch;
