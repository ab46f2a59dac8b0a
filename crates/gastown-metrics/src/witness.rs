//! The metrics of witness-ctl.

use crate::Owner;
use crate::definition::metrics;

metrics! {
    Owner::One("witness-ctl");
    STREAMS: Gauge(), "gastown_witness_streams", Count, [],
        "Pods whose stream is open";
    HEARTBEATS: Counter(), "gastown_witness_heartbeats", Count, [],
        "Heartbeats received";
    AGENTS: Gauge(), "gastown_witness_agents", Count, ["rig", "state"],
        "Agents at work, by what the last pass found: Working, Quiet, WaitingForHuman, Wedged, NotHeard, …";
    COMMANDS: Counter(), "gastown_witness_commands", Count, ["rig", "command"],
        "What was sent to agents that made no progress: nudge, or checkpoint before a restart";
    RESTARTS: Counter(), "gastown_witness_restarts", Count, ["rig"],
        "Restarts of agents that were asked for";
    RAISED: Counter(), "gastown_escalations_raised", Count, ["rig", "severity"],
        "Escalations that were created";
    ESCALATIONS: Gauge(), "gastown_escalations_open", Count, ["rig", "severity", "phase"],
        "Escalations that are Open or Acknowledged";
    ESCALATIONS_OLDEST: Gauge(), "gastown_escalations_oldest_seconds", Seconds, ["rig", "severity", "phase"],
        "The age of the oldest of them";
    DELIVERIES: Counter(), "gastown_escalation_deliveries", Count, ["rig", "result"],
        "Attempts to send an escalation along a route: delivered or failed";
}
