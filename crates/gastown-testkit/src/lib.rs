//! Cluster launcher, git servers, scripted Messages API and fixtures, for tests and the demo.

pub mod ground;
pub mod oci;
