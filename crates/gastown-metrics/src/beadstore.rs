//! The metrics of beadstore-ctl.

use crate::Owner;
use crate::definition::metrics;

metrics! {
    Owner::One("beadstore-ctl");
    SYNCED: Gauge(), "gastown_beadstore_synced", Flag, ["rig"],
        "Whether the last reading of a rig's bead store succeeded";
    SYNC_AGE: Gauge(), "gastown_beadstore_sync_age_seconds", Seconds, ["rig"],
        "How long ago a rig's bead store was read";
    PENDING: Gauge(), "gastown_beadstore_pending_writes", Count, ["rig"],
        "Claims and closes that the store does not show yet";
    BEADS: Gauge(), "gastown_beadstore_beads", Count, ["rig", "status"],
        "Beads by their status: open, in_progress, blocked, closed or other";
    READY: Gauge(), "gastown_beadstore_ready_beads", Count, ["rig"],
        "Beads that nothing blocks";
}
