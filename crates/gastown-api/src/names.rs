//! Names that objects, labels, annotations and conditions have: what one part writes and another reads.

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

/// Labels. They are for people: nothing selects or trusts by them.
pub mod label {
    /// The Polecat's name.
    pub const POLECAT: &str = "gastown.io/polecat";
    /// The Rig's name.
    pub const RIG: &str = "gastown.io/rig";
    /// The bead's id, where it is a label value.
    pub const BEAD: &str = "gastown.io/bead";
    /// The attempt's number.
    pub const ATTEMPT: &str = "gastown.io/attempt";
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
    /// On an Escalation: raises, settling and deliveries as compact JSON.
    pub const ALARM: &str = "gastown.io/alarm";
    /// On a Secret of Claude's credentials: when it was written, as the Go operator's command line does.
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
    /// Refinery: it has gates.
    pub const GATED: &str = "Gated";
    /// Refinery: it tests or lands.
    pub const PROCESSING: &str = "Processing";
}

/// Reasons of conditions and events that more than one part writes or reads, or that the Go operator had.
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
        /// The object does not read as its kind; the message says where.
        INVALID_OBJECT = "InvalidObject";
    }
}
