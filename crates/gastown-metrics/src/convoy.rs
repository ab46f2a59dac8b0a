//! The metrics of convoy-ctl.

use crate::Owner;
use crate::definition::metrics;

metrics! {
    Owner::One("convoy-ctl");
    CONVOYS: Gauge(), "gastown_convoys", Count, ["rig", "phase"],
        "Convoys by their phase; rig is empty where a convoy names none";
    BEADS: Gauge(), "gastown_convoy_beads", Count, ["rig", "phase"],
        "Beads that convoys track: pending, completed or failed";
    DISPATCHED: Counter(), "gastown_convoy_dispatched", Count, ["rig"],
        "Polecats that convoys created";
}
