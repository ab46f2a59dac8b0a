//! The metrics that every controller has.

use crate::Owner;
use crate::definition::metrics;

metrics! {
    Owner::Every;
    KUBE_REQUESTS: Counter(), "gastown_kube_requests", Count, ["verb", "resource", "code"],
        "Requests to the API server, retries counted once; code is the HTTP status, timeout or error";
    KUBE_REQUEST_RETRIES: Counter(), "gastown_kube_request_retries", Count, ["verb"],
        "Requests to the API server that were sent again";
    KUBE_REQUEST_DURATION: Histogram(REQUESTS), "gastown_kube_request_duration_seconds", Seconds, ["verb"],
        "Duration of a request to the API server, retries included";
    RECONCILE: Counter(), "gastown_reconcile", Count, ["controller", "result"],
        "Finished reconciles; result is success, requeue, or the class of the error";
    RECONCILE_DURATION: Histogram(REQUESTS), "gastown_reconcile_duration_seconds", Seconds, ["controller"],
        "Duration of a reconcile";
    UNDECODABLE: Gauge(), "gastown_undecodable_objects", Count, ["kind"],
        "Objects that cannot be decoded and are skipped";
    WATCH_ERRORS: Counter(), "gastown_watch_errors", Count, ["kind"],
        "Errors of watch streams";
    EVENTS_DROPPED: Counter(), "gastown_events_dropped", Count, [],
        "Kubernetes Events dropped because the queue was full";
    LEASE_HELD: Gauge(), "gastown_lease_held", Flag, [],
        "1 while this process takes part with the other replicas";
    SHARDS_HELD: Gauge(), "gastown_shards_held", Count, [],
        "How many of the 16 shards into which rigs are divided this process works on";
    SHARD_HANDOVER: Histogram(REQUESTS), "gastown_shard_handover_seconds", Seconds, [],
        "From when nothing new began on a shard of this process until the shard was another's to take";
    GRPC_SERVER_CALLS: Counter(), "gastown_grpc_server_calls", Count, ["service", "method", "code"],
        "Calls that this process was asked to serve; code is the name of the gRPC status, of a stream that of its beginning";
    GRPC_SERVER_DURATION: Histogram(REQUESTS), "gastown_grpc_server_call_duration_seconds", Seconds, ["service", "method"],
        "Until a call was answered, of a stream until it began";
    GRPC_CLIENT_CALLS: Counter(), "gastown_grpc_client_calls", Count, ["service", "method", "code"],
        "Calls that this process made, each attempt counted; code is the name of the gRPC status";
    GRPC_CLIENT_DURATION: Histogram(REQUESTS), "gastown_grpc_client_call_duration_seconds", Seconds, ["service", "method"],
        "Until a call that this process made was answered";
    TELEMETRY_RECORDS: Counter(), "gastown_telemetry_records", Count, ["signal", "result"],
        "Records of telemetry that were sent, dropped because too many waited, or not taken by the collector";
    CERTIFICATE_EXPIRY: Gauge(), "gastown_tls_certificate_expiry_timestamp_seconds", Seconds, [],
        "When the certificate of this process's servers ends, in seconds since 1970";
    BUILD_INFO: Gauge(), "gastown_build_info", Flag, ["controller", "version"],
        "1, with the name and the version of the program";
    PROCESS_CPU: Amount(), "process_cpu_seconds", Seconds, [],
        "CPU time of this process, user and system";
    PROCESS_RESIDENT: Gauge(), "process_resident_memory_bytes", Bytes, [],
        "Memory of this process that is in RAM";
    PROCESS_VIRTUAL: Gauge(), "process_virtual_memory_bytes", Bytes, [],
        "Address space of this process";
    PROCESS_FDS: Gauge(), "process_open_fds", Count, [],
        "Open file descriptors";
    PROCESS_MAX_FDS: Gauge(), "process_max_fds", Count, [],
        "How many file descriptors may be open";
    PROCESS_START: Gauge(), "process_start_time_seconds", Seconds, [],
        "When this process started, in seconds since 1970";
}
