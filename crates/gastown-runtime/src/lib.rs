//! What every controller shares: arguments, telemetry, client, admin server, leases, apply, gRPC plumbing.
