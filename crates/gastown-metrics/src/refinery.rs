//! The metrics of refinery-ctl: the Go operator's names, OpenTelemetry's, and some of our own.

use crate::Owner;
use crate::definition::metrics;

metrics! {
    Owner::One("refinery-ctl");
    MERGES: Counter(), "gastown_refinery_merge", Count, ["rig", "result"],
        "Requests that ended: success has landed, error was sent back or rejected";
    MERGE_DURATION: Histogram(MERGES), "gastown_refinery_merge_duration_seconds", Seconds, ["rig"],
        "From queued to landed";
    CONFLICTS: Counter(), "gastown_refinery_conflicts", Count, ["rig"],
        "Requests that conflicted with their target";
    ENDED: Counter(), "gastown_refinery_ended", Count, ["rig", "phase", "reason"],
        "Requests that ended, by their phase: Landed, Rework, Rejected or Superseded, with the reason";
    QUEUE: Gauge(), "gastown_refinery_queue_length", Count, ["rig"],
        "Requests that wait or are being tested";
    QUEUE_OLDEST: Gauge(), "gastown_refinery_queue_oldest_seconds", Seconds, ["rig"],
        "For how long the oldest of them has been there";
    BLOCKED: Gauge(), "gastown_refinery_blocked", Flag, ["rig", "reason"],
        "1 while nothing can land: TargetBroken, GateBroken, or why the remote cannot be used";
    GATE_SECONDS: Histogram(MERGES), "gastown_refinery_gate_seconds", Seconds, ["rig"],
        "From the creation of a gate's Job to its verdict";
    GATE_FAULTS: Counter(), "gastown_refinery_gate_faults", Count, ["rig"],
        "Gate runs that infrastructure broke";
    MISMATCHES: Counter(), "gastown_refinery_landed_mismatches", Count, ["rig"],
        "Pushes after which the target did not have the commit";
    UNTESTED: Counter(), "gastown_refinery_untested_landings", Count, ["rig"],
        "Landings of another commit than the one that was tested; must stay 0";
    TIME_TO_MERGE: Histogram(WAITS), "vcs_change_time_to_merge_seconds", Seconds, ["rig"],
        "From the creation of a request until it was on the target branch (OpenTelemetry: vcs.change.time_to_merge)";
    PIPELINE_DURATION: Histogram(WAITS), "cicd_pipeline_run_duration_seconds", Seconds, ["rig", "cicd_pipeline_run_state", "cicd_pipeline_result"],
        "How long a gate run was pending and executing, by its result: success, failure or error (OpenTelemetry: cicd.pipeline.run.duration)";
}
