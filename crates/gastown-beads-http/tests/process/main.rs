//! The client against a server that follows the published rules of `bd serve`, on real sockets, on
//! good days and bad ones.

#![allow(clippy::unwrap_used)]

mod contract;
mod faults;
mod ground;
