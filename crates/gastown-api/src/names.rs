//! Names of labels, annotations, conditions and reasons, which one part writes and another reads.

/// The API group.
pub const GROUP: &str = "gastown.gastown.io";
/// The API version.
pub const VERSION: &str = "v1alpha1";

pub mod reason;

/// Field managers: one per controller.
pub mod manager {
    /// Field manager of rig-ctl.
    pub const RIG: &str = "gastown-rig-ctl";
    /// Field manager of polecat-ctl.
    pub const POLECAT: &str = "gastown-polecat-ctl";
    /// Field manager of refinery-ctl.
    pub const REFINERY: &str = "gastown-refinery-ctl";
    /// Field manager of beadstore-ctl.
    pub const BEAD_STORE: &str = "gastown-beadstore-ctl";
    /// Field manager of convoy-ctl.
    pub const CONVOY: &str = "gastown-convoy-ctl";
    /// Field manager of witness-ctl.
    pub const WITNESS: &str = "gastown-witness-ctl";
}

/// Finalizers.
pub mod finalizer {
    /// On a Polecat: its pod is drained before it goes.
    pub const POLECAT: &str = "gastown.io/polecat-cleanup";
    /// On a Rig: its polecats are drained and its children deleted before it goes.
    pub const RIG: &str = "gastown.io/rig-cleanup";
    /// On a BeadStore: set by the Go operator, taken off by beadstore-ctl.
    pub const BEAD_STORE: &str = "gastown.io/beadstore-cleanup";
    /// On an agent's pod: its outcome is recorded before it goes.
    pub const OUTCOME: &str = "gastown.io/outcome";
}

/// Labels. They are for people, except [`label::CLAIM`] and those that network policies select pods
/// by; nothing trusts them.
pub mod label {
    use std::collections::BTreeMap;

    use gastown_types::is_label_value;

    /// The Polecat's name. The network policies of agents select its pods by this label.
    pub const POLECAT: &str = "gastown.io/polecat";
    /// The Rig's name.
    pub const RIG: &str = "gastown.io/rig";
    /// The bead's id, when it is a valid label value.
    pub const BEAD: &str = "gastown.io/bead";
    /// The Convoy that created a Polecat.
    pub const CONVOY: &str = "gastown.io/convoy";
    /// The attempt's number.
    pub const ATTEMPT: &str = "gastown.io/attempt";
    /// `"true"` on a Lease that is a claim on a bead: claims are watched by this label.
    pub const CLAIM: &str = "gastown.io/claim";
    /// The controller whose replicas a Lease is of: they watch theirs by this label.
    pub const REPLICAS_OF: &str = "gastown.io/replicas-of";
    /// `"true"` on a Rig that `helm test` created: those of checks that were killed are deleted by it.
    pub const INSTALL_CHECK: &str = "gastown.io/install-check";
    /// The Rig that created a Witness or a Refinery.
    pub const RIG_OWNER: &str = "gastown.io/rig-owner";
    /// The uid of the Refinery that a gate is of: its network policy selects pods by this label.
    pub const REFINERY_UID: &str = "gastown.io/refinery-uid";
    /// Who manages an object.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// The value of [`MANAGED_BY`] on the children of a Rig.
    pub const MANAGED_BY_RIG: &str = "rig-controller";

    /// The labels that a Polecat and its pods have; a text that is not a label value is left out.
    pub fn of_polecat(polecat: &str, rig: &str, bead: Option<&str>) -> BTreeMap<String, String> {
        [(POLECAT, Some(polecat)), (RIG, Some(rig)), (BEAD, bead)]
            .into_iter()
            .filter_map(|(key, value)| {
                let value = value.filter(|v| !v.is_empty() && is_label_value(v))?;
                Some((key.to_owned(), value.to_owned()))
            })
            .collect()
    }
}

/// Annotations.
pub mod annotation {
    /// On a Polecat: attempts, outcome, branch and commit as compact JSON.
    pub const LEDGER: &str = "gastown.io/ledger";
    /// On a Polecat, a Convoy or a MergeRequest: the W3C `traceparent` of whoever created it, set when it
    /// is created. Its spans join that trace.
    pub const TRACEPARENT: &str = "gastown.io/traceparent";
    /// On an agent's pod: how the wait for it began, as compact JSON.
    pub const TRACE_BEGIN: &str = "gastown.io/trace-begin";
    /// On a GateRun: when its candidate began to be built, in RFC 3339.
    pub const BUILD_BEGAN: &str = "gastown.io/build-began";
    /// On a pod: why its agent must stop now.
    pub const DRAIN: &str = "gastown.io/drain";
    /// On a pod: the prompt of its agent, unless it is too long for that.
    pub const PROMPT: &str = "gastown.io/prompt";
    /// On a Polecat: `"true"` deletes it without waiting for the drain.
    pub const FORCE_DELETE: &str = "gastown.io/force-delete";
    /// On a Polecat: any new value starts a Stuck one again, with all its attempts.
    pub const RETRY: &str = "gastown.io/retry";
    /// On a MergeRequest: how it ended, and what was done for it after that, as compact JSON.
    pub const REQUEST_RECORD: &str = "gastown.io/request-record";
    /// On the Lease of a controller's replica: the holder's name and its address, as `name address`.
    pub const HOLDER_ADDRESS: &str = "gastown.io/holder-address";
    /// On the Lease of a controller's replica: the holder's name and the number of shards that it
    /// knows, as `name number`. On the Lease that divides them: the shards of each replica, as JSON.
    pub const SHARDS: &str = "gastown.io/shards";
    /// On the Lease of a controller's replica that hands its shards over: `name true`.
    pub const LEAVES: &str = "gastown.io/leaves";
    /// On a claim's Lease: the rig.
    pub const CLAIM_RIG: &str = "gastown.io/claim-rig";
    /// On a claim's Lease: the bead's id.
    pub const CLAIM_BEAD: &str = "gastown.io/claim-bead";
    /// On a claim's Lease: the holder, as `namespace/name`.
    pub const CLAIM_POLECAT: &str = "gastown.io/claim-polecat";
    /// On a BeadStore with the backend HttpV0: the server's project and the claims that were
    /// copied into it, as compact JSON.
    pub const BEADS_SERVED: &str = "gastown.io/beads-served";
    /// On a MergeRequest: how far the close of its bead in a server has come, as compact JSON.
    pub const BEAD_CLOSED: &str = "gastown.io/bead-closed";
    /// On a Convoy: the beads that once counted as done, as compact JSON; they count for as long as
    /// the Convoy exists.
    pub const CONVOY_COUNTED: &str = "gastown.io/convoy-counted";
    /// On a Convoy: the end that an Event was published for.
    pub const CONVOY_ENDED: &str = "gastown.io/convoy-told";
    /// On an Escalation: its raises, deliveries and end, as compact JSON.
    pub const ESCALATION_STATE: &str = "gastown.io/alarm";
    /// On a CustomResourceDefinition: the number of its schema.
    pub const SCHEMA: &str = "gastown.io/schema";
    /// On a Secret with Claude's credentials: when the Go operator's command line wrote it.
    pub const LAST_SYNC: &str = "gastown.io/last-sync";
}

/// Types of conditions.
pub mod condition {
    /// Every kind: whether the object works as specified (the Go operator's condition).
    pub const READY: &str = "Ready";
    /// Polecat: whether its pod works (the Go operator's condition).
    pub const WORKING: &str = "Working";
    /// Every kind but Polecats: what its controller does for it fails, and that does not pass by
    /// itself. It is absent while all goes well.
    pub const STALLED: &str = "Stalled";
    /// Several kinds: whether work is under way.
    pub const PROGRESSING: &str = "Progressing";
    /// Polecat: whether the work is done. Other kinds: whether the object can be used.
    pub const AVAILABLE: &str = "Available";
    /// Several kinds: whether something has failed.
    pub const DEGRADED: &str = "Degraded";
    /// Polecat: whether it holds the claim on its bead.
    pub const CLAIMED: &str = "Claimed";
    /// Polecat: whether its agent is making progress; set by witness-ctl.
    pub const HEALTHY: &str = "Healthy";
    /// Polecat: whether the work of its pod is on the remote; set by witness-ctl when it is not.
    pub const SAVED: &str = "Saved";
    /// Escalation: whether every route has accepted the message.
    pub const DELIVERED: &str = "Delivered";
    /// Polecat: whether it has a slot of its rig.
    pub const ADMITTED: &str = "Admitted";
    /// Polecat: whether its work is in the merge queue.
    pub const SUBMITTED: &str = "Submitted";
    /// Polecat: whether its work has landed; set by refinery-ctl.
    pub const MERGED: &str = "Merged";
    /// Convoy: whether all its beads are done (the Go operator's condition).
    pub const COMPLETE: &str = "Complete";
    /// Convoy with `dispatch`: whether its beads can be worked on in some order.
    pub const VALID: &str = "Valid";
    /// Refinery: whether it has gates.
    pub const GATED: &str = "Gated";
    /// Refinery: whether the gate passes on the target branch itself.
    pub const TARGET_HEALTHY: &str = "TargetHealthy";
    /// Refinery: whether it is testing or landing.
    pub const PROCESSING: &str = "Processing";
    /// BeadStore: whether it was read, and recently.
    pub const SYNCED: &str = "Synced";
    /// BeadStore: whether it is the source of truth, and not an export of a database.
    pub const AUTHORITATIVE: &str = "Authoritative";
    /// BeadStore: whether claims and closes can be written.
    pub const WRITABLE: &str = "Writable";
}
