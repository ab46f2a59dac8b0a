//! refinery-ctl as the chart runs it: its own service account and roles, a real API server and Job
//! controller, real git. Only the kubelet is played: gates end as a test says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod endpoint;
mod ground;
mod landing;
mod waiting;
