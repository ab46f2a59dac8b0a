//! The metrics of polecat-ctl.

use crate::Owner;
use crate::definition::metrics;

metrics! {
    Owner::One("polecat-ctl");
    POLECATS: Gauge(), "gastown_polecats", Count, ["rig", "phase"],
        "Polecats by their phase";
    WAITING: Gauge(), "gastown_polecat_waiting", Count, ["rig", "reason"],
        "Polecats that are not ready, by the reason of their condition Ready: AlreadyClaimed waits for a claim, AtCapacity for a slot";
    WAITING_OLDEST: Gauge(), "gastown_polecat_waiting_oldest_seconds", Seconds, ["rig", "reason"],
        "For how long the one of them has not been ready for which that is longest";
    SLOTS: Gauge(), "gastown_polecat_slots", Count, ["rig"],
        "How many polecats a rig lets work at a time (spec.settings.maxPolecats)";
    SLOTS_USED: Gauge(), "gastown_polecat_slots_used", Count, ["rig"],
        "How many of them are in use";
    UNSAVED: Gauge(), "gastown_polecat_unsaved", Count, ["rig"],
        "Polecats whose pod has work that cannot be brought to the remote";
    UNSAVED_OLDEST: Gauge(), "gastown_polecat_unsaved_oldest_seconds", Seconds, ["rig"],
        "For how long that has been so of the first one of them";
    CLAIM_WAIT: Histogram(WAITS), "gastown_polecat_claim_wait_seconds", Seconds, ["rig"],
        "From a polecat's creation until the claim on its bead was taken";
    SLOT_WAIT: Histogram(WAITS), "gastown_polecat_slot_wait_seconds", Seconds, ["rig"],
        "Until the pod of an attempt was created: from the claim, or from the end of the attempt before";
    ATTEMPTS: Counter(), "gastown_polecat_attempts", Count, ["rig", "end", "reason"],
        "Attempts whose end is in the ledger: Done, DoneWithoutChanges, Waits, Drained, Retries, Later or Stuck, with the reason";
    ATTEMPT_DURATION: Histogram(WAITS), "gastown_polecat_attempt_duration_seconds", Seconds, ["rig", "end"],
        "From the creation of an attempt's pod to its end";
    ATTEMPT_PENDING: Histogram(WAITS), "gastown_polecat_attempt_pending_seconds", Seconds, ["rig"],
        "From the creation of an attempt's pod until its agent started";
    RESPAWNS: Counter(), "gastown_polecat_respawns", Count, ["rig", "cause"],
        "Attempts that another one replaces, by the cause: infrastructure, oom or crashed";
    TOKENS: Counter(), "gastown_polecat_tokens", Count, ["rig", "model", "type"],
        "Tokens that agents state they used: input, output, cache_read or cache_write; at most 20 models by name, others are other";
    COST: Amount(), "gastown_polecat_cost_usd", Dollars, ["rig", "model"],
        "Dollars that agents state they cost";
    SAVES: Counter(), "gastown_polecat_saves", Count, ["rig"],
        "Refs with work that is saved beside the work branch; their size is known to the remote alone";
    LOST: Counter(), "gastown_polecat_lost", Count, ["rig"],
        "Attempts whose work, or a part of it, went with the pod";
}
