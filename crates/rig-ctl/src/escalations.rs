//! Escalations: rig-ctl raises none. What can go wrong with a Rig is shown by its `Degraded`
//! condition, and is the problem of a child whose own controller raises the Escalation: refinery-ctl
//! for a Refinery, beadstore-ctl for a BeadStore.
