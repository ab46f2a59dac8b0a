//! Escalations: convoy-ctl raises none. A bead that failed is in `status.failedBeads` and in the
//! `Degraded` condition; the Escalation that a person gets is about its Polecat and is raised by
//! polecat-ctl. A bead store that cannot be read is escalated by beadstore-ctl.
