//! The client against a server that follows the published rules of `bd serve`, on real sockets, with
//! and without faults.

#![allow(clippy::unwrap_used)]

mod contract;
mod faults;
mod fixture;
