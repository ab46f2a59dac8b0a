//! This controller has no metrics of its own: reconciles, client requests, gRPC calls and events are
//! counted by [`gastown_runtime::metrics`] for every controller.
