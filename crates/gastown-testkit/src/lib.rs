//! Cluster launcher, git servers, scripted Messages API and fixtures, for tests and the demo.

pub mod agents;
pub mod control_plane;
pub mod git_http;
pub mod ground;
pub mod http_client;
pub mod kubelet;
pub mod messages;
pub mod oci;
