//! gRPC: rig-ctl serves none. Whatever others need to know of a Rig is in its status.

use gastown_runtime::Runtime;

/// Logs that nothing listens on `--grpc-addr`: every controller accepts the flag, and here it has
/// no effect.
pub(crate) fn log_absence(runtime: &Runtime) {
    tracing::debug!(grpc_addr = %runtime.args.grpc_addr, "this controller serves no gRPC");
}
