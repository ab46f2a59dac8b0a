//! Kubernetes on one machine, without a container engine.
//!
//! [`control_plane`] starts an API server alone (for tests), [`cluster`] a complete cluster with a
//! node or with the fake nodes of [`kwok`], [`oci`] writes the images that run on it. [`install`] and [`process`] start one controller
//! on a control plane as the chart would. [`baselines`] finds what is kept of earlier releases. The programs come from `gastown-toolchain`. This crate
//! knows the API types and the chart's roles; it must not know any controller's code.

pub mod agents;
pub mod baselines;
pub mod cluster;
pub mod control_plane;
pub mod definitions;
pub mod http_client;
pub mod install;
pub mod kwok;
pub mod oci;
pub mod proc;
pub mod process;
pub mod shares;
pub mod toolchain;
