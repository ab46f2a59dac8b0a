//! refinery-ctl as the chart runs it: its own service account and roles, a real API server and Job
//! controller, real git. Only the kubelet is fake: the tests decide how gates end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod building;
mod committer;
mod crowd;
mod definitions;
mod endpoint;
mod fixture;
mod forgeries;
mod kills;
mod landing;
mod life;
mod neighbours;
mod network;
mod remote;
mod waiting;
