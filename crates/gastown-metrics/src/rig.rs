//! The metrics of rig-ctl.

use crate::Owner;
use crate::definition::metrics;

metrics! {
    Owner::One("rig-ctl");
    READY: Gauge(), "gastown_rig_ready", Flag, ["rig", "reason"],
        "Whether a rig is ready, with the reason of its condition Ready";
    CONVOYS: Gauge(), "gastown_rig_convoys", Count, ["rig"],
        "Convoys of a rig that are not over";
}
