//! Names that objects, labels, annotations and conditions have: what one part writes and another
//! reads.

/// The API group.
pub const GROUP: &str = "gastown.gastown.io";
/// The API version.
pub const VERSION: &str = "v1alpha1";

/// Field managers: one a controller.
pub mod manager {
    /// rig-ctl.
    pub const RIG: &str = "gastown-rig-ctl";
    /// polecat-ctl.
    pub const POLECAT: &str = "gastown-polecat-ctl";
    /// refinery-ctl.
    pub const REFINERY: &str = "gastown-refinery-ctl";
    /// beadstore-ctl.
    pub const BEAD_STORE: &str = "gastown-beadstore-ctl";
    /// convoy-ctl.
    pub const CONVOY: &str = "gastown-convoy-ctl";
    /// witness-ctl.
    pub const WITNESS: &str = "gastown-witness-ctl";
}

/// Finalizers.
pub mod finalizer {
    /// On a Polecat: its pod is drained first.
    pub const POLECAT: &str = "gastown.io/polecat-cleanup";
    /// On a Rig: its polecats are drained and its children deleted first.
    pub const RIG: &str = "gastown.io/rig-cleanup";
    /// On a BeadStore, as the Go operator set it.
    pub const BEAD_STORE: &str = "gastown.io/beadstore-cleanup";
    /// On an agent's pod: its outcome is recorded first.
    pub const OUTCOME: &str = "gastown.io/outcome";
}

/// Labels. They are for people, except [`label::CLAIM`]: nothing else selects by them, and nothing
/// trusts them.
pub mod label {
    /// The Polecat's name.
    pub const POLECAT: &str = "gastown.io/polecat";
    /// The Rig's name.
    pub const RIG: &str = "gastown.io/rig";
    /// The bead's id, where it is a label value.
    pub const BEAD: &str = "gastown.io/bead";
    /// The Convoy that started a Polecat.
    pub const CONVOY: &str = "gastown.io/convoy";
    /// The attempt's number.
    pub const ATTEMPT: &str = "gastown.io/attempt";
    /// `"true"` on a Lease that is a claim on a bead: such Leases are watched by it.
    pub const CLAIM: &str = "gastown.io/claim";
    /// The Rig that made a Witness or a Refinery.
    pub const RIG_OWNER: &str = "gastown.io/rig-owner";
    /// Who manages an object.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// The value of [`MANAGED_BY`] on the children of a Rig.
    pub const MANAGED_BY_RIG: &str = "rig-controller";
}

/// Annotations.
pub mod annotation {
    /// On a Polecat: attempts, outcome, branch and commit as compact JSON.
    pub const LEDGER: &str = "gastown.io/ledger";
    /// On a pod: why its agent must stop now.
    pub const DRAIN: &str = "gastown.io/drain";
    /// On a Polecat: `"true"` deletes it without waiting for the drain.
    pub const FORCE_DELETE: &str = "gastown.io/force-delete";
    /// On a Polecat: any new value re-arms a Stuck one.
    pub const RETRY: &str = "gastown.io/retry";
    /// On a MergeRequest: verdicts per candidate and gate as compact JSON.
    pub const VERDICTS: &str = "gastown.io/verdicts";
    /// On a Job: how its candidate is built again, as compact JSON.
    pub const RECIPE: &str = "gastown.io/recipe";
    /// On a claim's Lease: the rig.
    pub const CLAIM_RIG: &str = "gastown.io/claim-rig";
    /// On a claim's Lease: the bead's id.
    pub const CLAIM_BEAD: &str = "gastown.io/claim-bead";
    /// On a claim's Lease: the holder, as `namespace/name`.
    pub const CLAIM_POLECAT: &str = "gastown.io/claim-polecat";
    /// BeadStore of a server, by beadstore-ctl: its project and the claims that were copied into
    /// it, as compact JSON.
    pub const BEADS_SERVED: &str = "gastown.io/beads-served";
    /// MergeRequest, by beadstore-ctl: how far the close of its bead in a server is, as compact
    /// JSON.
    pub const BEAD_CLOSED: &str = "gastown.io/bead-closed";
    /// On a Convoy: the beads that counted once, as compact JSON; they count as long as the Convoy
    /// is there.
    pub const CONVOY_COUNTED: &str = "gastown.io/convoy-counted";
    /// On a Convoy: which end of which beads was told.
    pub const CONVOY_TOLD: &str = "gastown.io/convoy-told";
    /// On an Escalation: its raises, deliveries and end, as compact JSON.
    pub const ESCALATION_STATE: &str = "gastown.io/alarm";
    /// On a Secret of Claude's credentials: when it was written, as the Go operator's command line
    /// does.
    pub const LAST_SYNC: &str = "gastown.io/last-sync";
}

/// Types of conditions.
pub mod condition {
    /// Everything: the Go operator's old condition.
    pub const READY: &str = "Ready";
    /// Polecat: its pod works (the Go operator's old condition).
    pub const WORKING: &str = "Working";
    /// Work is under way.
    pub const PROGRESSING: &str = "Progressing";
    /// The work is done (Polecat), or the thing works (others).
    pub const AVAILABLE: &str = "Available";
    /// Something of it failed.
    pub const DEGRADED: &str = "Degraded";
    /// Polecat: its bead is its own.
    pub const CLAIMED: &str = "Claimed";
    /// Polecat: its agent gets on; set by witness-ctl.
    pub const HEALTHY: &str = "Healthy";
    /// Escalation: everybody who should know was told.
    pub const DELIVERED: &str = "Delivered";
    /// Polecat: it has a slot of its rig.
    pub const ADMITTED: &str = "Admitted";
    /// Polecat: its work is in the merge queue.
    pub const SUBMITTED: &str = "Submitted";
    /// Polecat: its work has landed; set by refinery-ctl.
    pub const MERGED: &str = "Merged";
    /// Convoy: all its beads are done (the Go operator's condition).
    pub const COMPLETE: &str = "Complete";
    /// Convoy with `dispatch`: its beads can be worked on in some order.
    pub const VALID: &str = "Valid";
    /// Refinery: it has gates.
    pub const GATED: &str = "Gated";
    /// Refinery: the gate passes on the target itself.
    pub const TARGET_HEALTHY: &str = "TargetHealthy";
    /// Refinery: it tests or lands.
    pub const PROCESSING: &str = "Processing";
    /// BeadStore: it was read, and lately.
    pub const SYNCED: &str = "Synced";
    /// BeadStore: the file is the truth, not an export of a database.
    pub const AUTHORITATIVE: &str = "Authoritative";
    /// BeadStore: claims and closes reach the repository.
    pub const WRITABLE: &str = "Writable";
}

/// Reasons of conditions and events that more than one part writes or reads, or that the Go
/// operator had.
pub mod reason {
    macro_rules! reasons {
        ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => { $($(#[$doc])* pub const $name: &str = $text;)* };
    }
    reasons! {
        /// The pod was made.
        POD_CREATED = "PodCreated";
        /// The pod waits for a node or an image.
        POD_PENDING = "PodPending";
        /// The pod runs.
        POD_RUNNING = "PodRunning";
        /// The pod ended well.
        POD_SUCCEEDED = "PodSucceeded";
        /// The pod ended badly.
        POD_FAILED = "PodFailed";
        /// The API server refused the pod.
        POD_CREATE_FAILED = "PodCreateFailed";
        /// No pod could be made of the spec.
        POD_BUILD_FAILED = "PodBuildFailed";
        /// The pod could not be deleted.
        POD_DELETE_FAILED = "PodDeleteFailed";
        /// `spec.kubernetes` is absent.
        MISSING_KUBERNETES_SPEC = "MissingKubernetesSpec";
        /// The agent is at work.
        WORKING = "Working";
        /// The agent is through.
        COMPLETED = "Completed";
        /// The agent failed.
        FAILED = "Failed";
        /// Idle, because that is wanted.
        IDLE = "Idle";
        /// Terminated, because that is wanted.
        TERMINATED = "Terminated";
        /// Not yet.
        NOT_READY = "NotReady";
        /// Nothing is wrong.
        HEALTHY = "Healthy";
        /// The work is on the remote.
        WORK_COMPLETE = "WorkComplete";
        /// The work is on the target branch.
        MERGE_COMPLETE = "MergeComplete";
        /// All is well.
        READY = "Ready";
        /// A child could not be made.
        CHILD_CREATION_FAILED = "ChildCreationFailed";
        /// A list could not be read.
        LIST_FAILED = "ListFailed";
        /// Something is tested or landed.
        PROCESSING = "Processing";
        /// A merge request landed (event).
        MERGE_SUCCEEDED = "MergeSucceeded";
        /// A merge request did not land (event).
        MERGE_FAILED = "MergeFailed";
        /// The Rig is not there.
        RIG_NOT_FOUND = "RigNotFound";
        /// The Rig does not allow this namespace.
        NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed";
        /// The Rig is parked.
        RIG_SUSPENDED = "RigSuspended";
        /// The Rig has as many polecats at work as it may.
        AT_CAPACITY = "AtCapacity";
        /// It has a slot.
        ADMITTED = "Admitted";
        /// The bead is this Polecat's.
        CLAIMED = "Claimed";
        /// The bead is another Polecat's.
        ALREADY_CLAIMED = "AlreadyClaimed";
        /// Work on the bead is in the merge queue already.
        WORK_TO_LAND = "WorkToLand";
        /// The bead is nobody's.
        NOT_CLAIMED = "NotClaimed";
        /// What stands for the claim on a bead is none.
        CLAIM_UNREADABLE = "ClaimUnreadable";
        /// The bead's text cannot be read, and there is no other task.
        BEAD_UNAVAILABLE = "BeadUnavailable";
        /// The store has no such bead.
        BEAD_NOT_FOUND = "BeadNotFound";
        /// The bead is closed: it is not begun again.
        BEAD_CLOSED = "BeadClosed";
        /// The witness wants the pod that its message names restarted.
        RESTART_WANTED = "RestartWanted";
        /// Another object serves the same rig and branch.
        DUPLICATE = "Duplicate";
        /// A Secret or its key is not there.
        SECRET_NOT_FOUND = "SecretNotFound";
        /// A Secret is outside the namespaces that may be read.
        SECRET_FORBIDDEN = "SecretForbidden";
        /// A ConfigMap or its key is not there.
        CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound";
        /// There is no gate.
        NO_GATES = "NoGates";
        /// There is a gate.
        GATES_DEFINED = "GatesDefined";
        /// The agent left no commit.
        NO_CHANGES = "NoChanges";
        /// All attempts are used up.
        ATTEMPTS_SPENT = "AttemptsSpent";
        /// The model's provider does not work with this agent.
        PROVIDER_UNSUPPORTED = "ProviderUnsupported";
        /// `gitRepository` is not the rig's.
        WRONG_REPOSITORY = "WrongRepository";
        /// `gitBranch` is not one that a Refinery serves.
        WRONG_BRANCH = "WrongBranch";
        /// Facts are as the sources have them.
        SYNCED = "Synced";
        /// Everything is done.
        COMPLETE = "Complete";
        /// Not everything is done.
        IN_PROGRESS = "InProgress";
        /// There is no BeadStore for the rig.
        NO_BEAD_STORE = "NoBeadStore";
        /// The server of the rig's beads cannot be asked, or cannot answer.
        BEAD_STORE_UNAVAILABLE = "BeadStoreUnavailable";
        /// Parked by its own spec.
        SUSPENDED = "Suspended";
        /// The object does not read as its kind; the message says where.
        INVALID_OBJECT = "InvalidObject";
    }
}
