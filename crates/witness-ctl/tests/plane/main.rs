//! witness-ctl as the chart runs it: its own service account and roles, a real API server, real
//! gRPC with real tokens.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod definitions;
mod escalations;
mod fixture;
mod golden;
mod health;
mod kills;
