//! Reasons of conditions and Events: what each means, and what to do about it.
//!
//! Reasons are part of the API: people write alerts on them. docs/reasons.md is generated from
//! this list.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

macro_rules! reasons {
    ($($group:literal { $($(#[doc = $doc:literal])+ $name:ident = $text:literal;)+ })+) => {
        $($($(#[doc = $doc])+ pub const $name: &str = $text;)+)+

        /// All reasons by group, each with its meaning.
        pub const ALL: &[(&str, &[(&str, &str)])] =
            &[$(($group, &[$(($text, concat!($($doc),+))),+])),+];
    };
}

/// Reason and message as objects and Events show them: always a reason of [`ALL`]. A word that
/// another program chose, such as a container runtime, becomes [`OTHER`], and the message begins with
/// it.
pub fn documented(
    word: impl Into<Cow<'static, str>>,
    message: impl Into<String>,
) -> (Cow<'static, str>, String) {
    static KNOWN: LazyLock<HashSet<&str>> = LazyLock::new(|| {
        ALL.iter().flat_map(|(_, all)| all.iter().map(|(word, _)| *word)).collect()
    });
    let (word, message) = (word.into(), message.into());
    if KNOWN.contains(word.as_ref()) {
        return (word, message);
    }
    let message = if message.is_empty() { word.into_owned() } else { format!("{word}: {message}") };
    (Cow::Borrowed(OTHER), message)
}

reasons! {
    "Every kind" {
        /// The object works as specified. Nothing to do.
        READY = "Ready";
        /// The object is not ready yet. The other conditions name what it waits for.
        NOT_READY = "NotReady";
        /// No problem is known. Nothing to do.
        HEALTHY = "Healthy";
        /// The object is being deleted. Nothing to do; its finalizers go when what they protect is
        /// saved.
        DELETING = "Deleting";
        /// The object cannot be read as its kind. Correct the field that the message names.
        INVALID_OBJECT = "InvalidObject";
        /// The object is suspended by its own `spec.suspend`. Set that to false to go on.
        SUSPENDED = "Suspended";
        /// An older object does the same for the same rig (and branch), and is the active one.
        /// Delete one of the two.
        DUPLICATE = "Duplicate";
        /// The Rig that the spec names does not exist. Create it, or correct the name.
        RIG_NOT_FOUND = "RigNotFound";
        /// The Rig's `spec.allowedNamespaces` does not list the object's namespace. Add it, or move
        /// the object.
        NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed";
        /// The Rig is suspended and starts nothing new. Set the Rig's `spec.suspend` to false.
        RIG_SUSPENDED = "RigSuspended";
        /// The Rig is being deleted. Nothing new starts for it.
        RIG_DELETING = "RigDeleting";
        /// A Secret or its key does not exist. Create what the message names; the object goes on by
        /// itself.
        SECRET_NOT_FOUND = "SecretNotFound";
        /// The controller may not read Secrets of that namespace. Add the namespace to the chart
        /// value that the message names.
        SECRET_FORBIDDEN = "SecretForbidden";
        /// A ConfigMap or its key does not exist. Create what the message names; the object goes on
        /// by itself.
        CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound";
        /// An action of the controller failed. The message has what was attempted, on which object,
        /// and the API server's answer; it is tried again. Correct the permission, quota or policy
        /// that it names.
        ACTION_FAILED = "ActionFailed";
        /// The NetworkPolicy of agents' pods or gates cannot be written, and none of them starts
        /// without it; it is tried again within a minute. Correct the permission, quota or policy
        /// that the message names, or `gateTemplate.egress`.
        NETWORK_POLICY_FAILED = "NetworkPolicyFailed";
        /// Another program named the reason, such as a container runtime: the message begins with
        /// its word. See that program's documentation.
        OTHER = "Other";
        /// Objects could not be listed (the Go operator's reason). The controller tries again; see
        /// its log.
        LIST_FAILED = "ListFailed";
    }
    "Git remotes" {
        /// The remote, or the model's API, refuses the credentials. Correct the Secret; it is tried
        /// again within a minute.
        BAD_CREDENTIALS = "BadCredentials";
        /// The remote accepts the credentials and denies the operation. Grant the account write
        /// access to the repository.
        PERMISSION_DENIED = "PermissionDenied";
        /// The credentials may read the repository and not push to it. Grant the account write
        /// access.
        PUSH_DENIED = "PushDenied";
        /// The ssh host is unknown. Add its key to `sshKnownHostsConfigMapRef`, or to key
        /// `known_hosts` of the Secret.
        UNKNOWN_HOST_KEY = "UnknownHostKey";
        /// The ssh host shows another key than the known one. Check that nobody intercepts the
        /// connection, then correct `known_hosts`.
        HOST_KEY_MISMATCH = "HostKeyMismatch";
        /// The remote has no such repository, or hides it from this account. Correct the URL or the
        /// account's access.
        REPOSITORY_NOT_FOUND = "RepositoryNotFound";
        /// The remote has no such branch. Create it, or correct the name.
        BRANCH_NOT_FOUND = "BranchNotFound";
        /// The work branch exists on the remote and was not pushed by this Polecat. Delete it, set
        /// `spec.kubernetes.workBranch`, or continue it with `resumeBranch: true`.
        BRANCH_EXISTS = "BranchExists";
        /// The remote does not answer. Nothing to do when it comes back; else check network
        /// policies, proxies and DNS.
        REMOTE_UNREACHABLE = "RemoteUnreachable";
        /// The server, or a proxy before it, refuses the HTTP request (the message has the status,
        /// such as 413). Change the server's or the proxy's limit, or the URL.
        REMOTE_REFUSED = "RemoteRefused";
        /// A submodule cannot be fetched with the repository's credentials. Grant the account access
        /// to the repository that the message names, or correct its URL in .gitmodules.
        SUBMODULE_UNAVAILABLE = "SubmoduleUnavailable";
        /// The content of large files (git LFS) cannot be fetched. Check that the account may read
        /// them and that the server has them; the message has its text.
        LFS_UNAVAILABLE = "LfsUnavailable";
        /// The remote refuses the push, for example by branch protection or a hook. Allow the push;
        /// the message has the remote's own text. Where it wants a certain committer or a sign-off,
        /// set `committer` and `signOff` of the Refinery.
        PUSH_REJECTED = "PushRejected";
        /// git failed in the controller itself. See the message and the controller's log.
        INTERNAL = "Internal";
        /// The controller's local copy of the repository is damaged. It is fetched again by itself.
        MIRROR_BROKEN = "MirrorBroken";
    }
    "Polecat: waiting" {
        /// Idle, because that is wanted. Set `spec.desiredState` to `Working` to start.
        IDLE = "Idle";
        /// The Polecat was Idle for longer than `spec.maxIdleSeconds`. Set `spec.desiredState` to
        /// Working to have it work again.
        IDLE_TOO_LONG = "IdleTooLong";
        /// The Rig has as many Polecats at work as `settings.maxPolecats` allows. Wait, or raise
        /// it.
        AT_CAPACITY = "AtCapacity";
        /// The bead is being claimed. Nothing to do.
        CLAIMING = "Claiming";
        /// The bead is claimed by this Polecat. Nothing to do.
        CLAIMED = "Claimed";
        /// Another Polecat has the bead. Wait until that one gives it back, or delete one of the
        /// two.
        ALREADY_CLAIMED = "AlreadyClaimed";
        /// Work on the bead is in the merge queue. Wait for that MergeRequest, or reject it.
        WORK_TO_LAND = "WorkToLand";
        /// Nobody has claimed the bead. The Polecat claims it when it may start.
        NOT_CLAIMED = "NotClaimed";
        /// The Lease of the claim is not a valid claim on this bead. Delete the Lease that the
        /// message names, when no Polecat works on the bead.
        CLAIM_UNREADABLE = "ClaimUnreadable";
        /// The bead's text cannot be read, and the Polecat has no other task. Check the rig's
        /// BeadStore; it is tried again within a minute.
        BEAD_UNAVAILABLE = "BeadUnavailable";
        /// The store does not contain the bead. Correct `spec.beadID`, or add the bead.
        BEAD_NOT_FOUND = "BeadNotFound";
        /// The bead is closed, and no work starts on it. Reopen it in the store to have it done
        /// again.
        BEAD_CLOSED = "BeadClosed";
        /// The Polecat has a slot of its rig. Nothing to do.
        ADMITTED = "Admitted";
        /// The last attempt failed and the next one starts after a pause of 30 s to 10 min. Nothing
        /// to do.
        BACK_OFF = "BackOff";
        /// The model's API asks to wait. The same attempt starts again at the time that it named, at
        /// no cost; after 24 hours of that the Polecat is Stuck.
        RATE_LIMITED = "RateLimited";
    }
    "Polecat: pod" {
        /// `spec.kubernetes` is missing. Add it: it names the repository.
        MISSING_KUBERNETES_SPEC = "MissingKubernetesSpec";
        /// No pod can be built from the spec. Correct the field that the message names.
        INVALID_SPEC = "InvalidSpec";
        /// The agent does not work with `agentConfig.provider`. Choose another provider or agent.
        PROVIDER_UNSUPPORTED = "ProviderUnsupported";
        /// The pod was created (the Go operator's reason). Nothing to do.
        POD_CREATED = "PodCreated";
        /// The pod waits for a node or an image. When that lasts, see the pod's events.
        POD_PENDING = "PodPending";
        /// The pod is running. Nothing to do.
        POD_RUNNING = "PodRunning";
        /// The pod ended and the work is on the remote. Nothing to do.
        POD_SUCCEEDED = "PodSucceeded";
        /// The pod or the agent ended with an error. It is started again up to `spec.maxRetries`
        /// times; see the message and the container's log.
        POD_FAILED = "PodFailed";
        /// The API server refused the pod, for example by a quota or an admission policy. See the
        /// message.
        POD_CREATE_FAILED = "PodCreateFailed";
        /// No pod could be built from the spec (the Go operator's reason). Correct the spec.
        POD_BUILD_FAILED = "PodBuildFailed";
        /// The pod could not be deleted (the Go operator's reason). It is tried again; see the
        /// controller's log.
        POD_DELETE_FAILED = "PodDeleteFailed";
        /// The pod of the attempt before is still going. Nothing to do.
        POD_TERMINATING = "PodTerminating";
        /// The agent is being stopped and its work saved. Nothing to do.
        DRAINING = "Draining";
        /// The pod had not started when the spec was changed, and is replaced. Nothing to do.
        SPEC_CHANGED = "SpecChanged";
        /// No container of the pod was started within `spec.kubernetes.startTimeout`. It is tried
        /// again with back-off; see the events of the pod.
        START_TIMEOUT = "StartTimeout";
        /// An image cannot be pulled. Correct `spec.kubernetes.image` or `imagePullSecrets`.
        IMAGE_PULL_BACK_OFF = "ImagePullBackOff";
        /// The image's name is not valid. Correct `spec.kubernetes.image`.
        INVALID_IMAGE_NAME = "InvalidImageName";
        /// A container refers to something that does not exist. See the message.
        CREATE_CONTAINER_CONFIG_ERROR = "CreateContainerConfigError";
        /// A container ends soon after each start. See its log.
        CRASH_LOOP_BACK_OFF = "CrashLoopBackOff";
        /// The container runtime cannot create a container. The message has its own words.
        CREATE_CONTAINER_ERROR = "CreateContainerError";
        /// The container runtime cannot start a container. The message has its own words.
        RUN_CONTAINER_ERROR = "RunContainerError";
        /// No node fits the pod. Add nodes, or change requests, `nodeSelector`, `tolerations` or
        /// `affinity`.
        UNSCHEDULABLE = "Unschedulable";
        /// The agent was stopped in order, and its work is saved. Nothing to do.
        DRAINED = "Drained";
        /// Somebody else deleted or stopped the pod. It is started again.
        POD_DELETED = "PodDeleted";
        /// The pod's node has not answered for five minutes after the pod's deletion. The next
        /// attempt starts elsewhere.
        NODE_LOST = "NodeLost";
        /// The agent's container ran out of memory. Raise
        /// `spec.kubernetes.resources.limits.memory`; it is retried once without.
        OOM_KILLED = "OOMKilled";
        /// The init container `git-init` failed for an internal reason. It is tried again; see its
        /// log.
        INIT_FAILED = "InitFailed";
        /// The sidecar `git-sync` failed for an internal reason. It is tried again; see its log.
        SYNC_FAILED = "SyncFailed";
        /// The pod ended without the records of its end. The next attempt looks at the branch
        /// again.
        OUTCOME_UNKNOWN = "OutcomeUnknown";
    }
    "Polecat: end" {
        /// The agent is at work. Nothing to do.
        WORKING = "Working";
        /// The agent has finished. Nothing to do.
        COMPLETED = "Completed";
        /// The work is on the remote, or no change was expected and none was made. Nothing to do.
        WORK_COMPLETE = "WorkComplete";
        /// The work failed. The condition `Ready` has the reason.
        FAILED = "Failed";
        /// The task was ended by `spec.desiredState: Terminated`, and its work is saved. Nothing to
        /// do.
        TERMINATED = "Terminated";
        /// Work is gone with its pod: the pod was killed before it could be saved. The message names
        /// what; nothing brings it back. See why the pod was killed or the remote refused it.
        WORK_LOST = "WorkLost";
        /// The ledger of the Polecat names an end of the last attempt that only a later version of
        /// polecat-ctl knows. Nothing is started and nothing counts. Update polecat-ctl, or change
        /// `gastown.io/retry` to continue.
        NEWER_LEDGER = "NewerLedger";
        /// A program of the pod is of a later version than polecat-ctl and recorded a result that
        /// polecat-ctl does not know. The same attempt is tried again, which costs nothing. Update
        /// polecat-ctl.
        NEWER_RECORD = "NewerRecord";
        /// The agent ended without a new commit. Give it a better task, or set `spec.expectChanges`
        /// to false when nothing has to change.
        NO_CHANGES = "NoChanges";
        /// A rework ended with commits that change on the same base what was sent back: its result
        /// would be the same. Give it a better task, or change `gastown.io/retry`. To have the work
        /// tested as it is, create a MergeRequest of `status.branch` and `status.commit`.
        NO_PROGRESS = "NoProgress";
        /// The agent reports that it cannot do the task. See the message and change the task.
        GAVE_UP = "GaveUp";
        /// The time of the attempt is used up, and the work is saved. Raise
        /// `spec.kubernetes.activeDeadlineSeconds`, or cut the task.
        DEADLINE = "Deadline";
        /// A limit of `spec.budget` is reached, and the work is saved. Raise the limit, or cut the
        /// task.
        BUDGET_EXCEEDED = "BudgetExceeded";
        /// The agent's image does not contain a program that is needed. See docs/agent-image.md.
        IMAGE_LACKS = "ImageLacks";
        /// Somebody else moved the work branch, and the work is saved on the ref that the message
        /// names. Decide which commits to keep, then change `gastown.io/retry`.
        PUSH_RACE = "PushRace";
        /// Nothing is on the work branch, and several other branches hold different work. It is saved
        /// on the refs of `status.saved`: decide which is right, then change `gastown.io/retry`.
        AMBIGUOUS_WORK = "AmbiguousWork";
        /// The remote refused the credentials until the pod ended. Correct the Secret; it is tried
        /// again.
        ACCESS_DENIED = "AccessDenied";
        /// The agent's repository contains damaged objects, and nothing was pushed. Start the task
        /// again.
        BAD_OBJECTS = "BadObjects";
        /// All `spec.maxAttempts` are used up. See how the last one ended, change the task, or set
        /// a new value of the annotation `gastown.io/retry`.
        ATTEMPTS_SPENT = "AttemptsSpent";
        /// The annotation `gastown.io/ledger` was changed and cannot be read. Remove it; the
        /// Polecat then begins again.
        LEDGER_UNREADABLE = "LedgerUnreadable";
        /// The agent is wedged and its work is saved. polecat-ctl replaces the pod that the message
        /// names.
        RESTART_WANTED = "RestartWanted";
        /// The pod was replaced because its agent was wedged. Nothing to do.
        UNHEALTHY = "Unhealthy";
    }
    "Polecat: health" {
        /// The agent sends no events, but computes or is inside one tool call. Nothing to do.
        QUIET = "Quiet";
        /// A message was sent to the wedged agent (Event). Nothing to do.
        NUDGED = "Nudged";
        /// Work of the pod is not on the remote yet. The message states why and what is tried; the
        /// pod stays until it is saved. As an Event: the wedged agent's work is being saved before a
        /// restart. Correct what the message names, such as credentials.
        SAVING = "Saving";
        /// The work of the pod is on the remote again. Nothing to do.
        SAVED = "Saved";
        /// The agent makes no progress, and its work cannot be saved, so it is not restarted. The
        /// message has what the remote answers.
        CANNOT_SAVE = "CannotSave";
        /// The agent asks a question or waits for a permission. Nobody can answer in a pod: make
        /// the task clearer.
        WAITING_FOR_HUMAN = "WaitingForHuman";
        /// The agent has done nothing for longer than `stuckThreshold`. The Witness nudges it and
        /// then restarts it.
        WEDGED = "Wedged";
        /// No heartbeats arrive from the pod. When others are heard, check the pod's node and
        /// network.
        NOT_HEARD = "NotHeard";
    }
    "Merging" {
        /// The work is being handed to refinery-ctl. Nothing to do.
        SUBMITTING = "Submitting";
        /// The work is in the merge queue. See the MergeRequest that the message names.
        SUBMITTED = "Submitted";
        /// refinery-ctl refused the request. See the message; it is tried again.
        SUBMIT_REFUSED = "SubmitRefused";
        /// refinery-ctl does not accept polecat-ctl's token. Check that both run in one release,
        /// and the chart's `tls`.
        SUBMIT_FORBIDDEN = "SubmitForbidden";
        /// No Refinery of the Rig lands on the branch. Create one, or correct `gitBranch`.
        NO_REFINERY = "NoRefinery";
        /// refinery-ctl does not see the Polecat that submits. It is submitted again.
        POLECAT_NOT_FOUND = "PolecatNotFound";
        /// The name of the MergeRequest belongs to another author or commit. Delete that
        /// MergeRequest.
        NAME_TAKEN = "NameTaken";
        /// refinery-ctl may not write the MergeRequest. Correct its permissions, or the policy that
        /// the message names.
        FORBIDDEN = "Forbidden";
        /// refinery-ctl does not answer. Check its Deployment and Service; it is tried again.
        REFINERY_UNREACHABLE = "RefineryUnreachable";
        /// `spec.kubernetes.gitRepository` is not the rig's repository, so nothing starts. Correct
        /// one of the two.
        WRONG_REPOSITORY = "WrongRepository";
        /// The rig has Refineries, and none lands on `spec.kubernetes.gitBranch`, so nothing starts.
        /// Create one with that `targetBranch`, or correct the branch.
        WRONG_BRANCH = "WrongBranch";
        /// The MergeRequest waits for its turn. Nothing to do.
        WAITING = "Waiting";
        /// A person holds the MergeRequest back. Set `spec.hold` to false to go on.
        HELD = "Held";
        /// The gate's pod has not started yet. When that lasts, see the events of the Job that the
        /// message names.
        GATE_PENDING = "GatePending";
        /// The gate runs on the request's commit. Nothing to do.
        GATE_RUNNING = "GateRunning";
        /// The request's gate failed, and the gate now runs on the target branch alone to find out
        /// which of the two is at fault. Nothing to do.
        TARGET_RUNNING = "TargetRunning";
        /// The gate passed. The commit lands next. Nothing to do.
        GATE_PASSED = "GatePassed";
        /// The gate failed on the request and passes on the target branch. The author gets the
        /// evidence as a rework.
        GATE_FAILED = "GateFailed";
        /// The commit does not apply to the target branch. The author gets the paths as a rework.
        CONFLICT = "Conflict";
        /// The cluster broke the gate's run (eviction, image, memory), and nobody is blamed. It is
        /// tried again; when it repeats, correct `gateTemplate`.
        GATE_BROKEN = "GateBroken";
        /// The gate fails on the target branch itself, and nobody is blamed. Land a fix: a request
        /// that passes is landed.
        TARGET_BROKEN = "TargetBroken";
        /// The remote has no such target branch. Create it, or correct `spec.targetBranch`.
        TARGET_NOT_FOUND = "TargetNotFound";
        /// An older Refinery lands on the same branch of the same repository. Delete one of the
        /// two.
        TARGET_SHARED = "TargetShared";
        /// The source branch does not contain the request's commit. Push it again; otherwise the
        /// request goes back to its author.
        SOURCE_COMMIT_MISSING = "SourceCommitMissing";
        /// The commit to be tested could not be built. See the message; it is tried again after ten
        /// minutes.
        BUILD_FAILED = "BuildFailed";
        /// The commit is on the target branch. Nothing to do.
        LANDED = "Landed";
        /// The gate passed the request's commit and it was pushed to the target branch. Nothing to do.
        MERGED = "Merged";
        /// The commit was found on the target branch: it landed earlier. Nothing to do.
        FOUND_IN_TARGET = "FoundInTarget";
        /// The target branch has all changes of the commit already. Nothing to do.
        ALREADY_IN_TARGET = "AlreadyInTarget";
        /// The target branch does not contain the commit after the push. Something else moved the
        /// branch: check who may force-push it.
        READ_BACK_FAILED = "ReadBackFailed";
        /// The request went back to its author. Nothing to do; the next attempt starts by itself.
        REWORK = "Rework";
        /// A person rejected the request. Add 1 to its `spec.retry` after removing `spec.rejected`
        /// to try it again.
        REJECTED = "Rejected";
        /// The request failed and its Polecat does not exist any more. Add 1 to `spec.retry` to
        /// test it again, or create a Polecat for the work.
        AUTHOR_GONE = "AuthorGone";
        /// A newer commit of the same branch replaces the request. Nothing to do.
        SUPERSEDED = "Superseded";
        /// The work is on the target branch. Nothing to do.
        MERGE_COMPLETE = "MergeComplete";
        /// A MergeRequest landed (Event). Nothing to do.
        MERGE_SUCCEEDED = "MergeSucceeded";
        /// A MergeRequest did not land (Event). See the message.
        MERGE_FAILED = "MergeFailed";
        /// The Refinery is testing or landing. Nothing to do.
        PROCESSING = "Processing";
        /// The Refinery has no gate, and everything lands untested. Set `spec.testCommand`.
        NO_GATES = "NoGates";
        /// The Refinery has a gate. Nothing to do.
        GATES_DEFINED = "GatesDefined";
        /// The gate has not run on the target branch as it is now. Nothing to do.
        NOT_TESTED = "NotTested";
    }
    "Rig and its children" {
        /// A child was created (Event). Nothing to do.
        CHILD_CREATED = "ChildCreated";
        /// A child of the rig was deleted because a person created one (Event). Nothing to do.
        CHILD_WITHDRAWN = "ChildWithdrawn";
        /// A child cannot be created. See the message, for example another object has its name.
        CHILD_CREATION_FAILED = "ChildCreationFailed";
        /// The rig's Refinery is not ready. Its own condition `Ready` has the reason.
        REFINERY_NOT_READY = "RefineryNotReady";
        /// The rig's BeadStore is not ready. Its own condition `Ready` has the reason.
        BEAD_STORE_NOT_READY = "BeadStoreNotReady";
        /// The Rig's Witness is being created, or has not reported yet. See the Witness; a running
        /// witness-ctl reports within seconds.
        WITNESS_NOT_READY = "WitnessNotReady";
        /// The Rig is being deleted and Polecats still have pods. Wait, or set them to
        /// `Terminated`.
        WAITING_FOR_POLECATS = "WaitingForPolecats";
    }
    "Convoy" {
        /// The status agrees with the sources. Nothing to do.
        SYNCED = "Synced";
        /// All beads are done. Nothing to do.
        COMPLETE = "Complete";
        /// Some beads are not done. Nothing to do.
        IN_PROGRESS = "InProgress";
        /// The beads can be done in the order of their dependencies. Nothing to do.
        VALID = "Valid";
        /// Some beads were closed before the convoy began and count as done. Nothing to do.
        CLOSED_BEADS = "ClosedBeads";
        /// `spec.rigRef` is empty. Name a rig: nothing is started without.
        NO_RIG = "NoRig";
        /// No BeadStore names the rig. Set the Rig's `spec.beads`, or create a BeadStore.
        NO_BEAD_STORE = "NoBeadStore";
        /// beadstore-ctl does not answer, or has not read the store. See the BeadStore's
        /// conditions; it is tried again.
        BEAD_STORE_UNAVAILABLE = "BeadStoreUnavailable";
        /// The Rig is being deleted, and nothing more is started. Nothing to do.
        RIG_TERMINATING = "RigTerminating";
        /// A Polecat was created for a bead (Event). Nothing to do.
        POLECAT_CREATED = "PolecatCreated";
        /// `failurePolicy` is `Stop` and a bead failed. Correct or close that bead, or set the
        /// policy to `Continue`.
        STOPPED = "Stopped";
        /// The convoy is being deleted, and starts nothing more. Nothing to do.
        TERMINATING = "Terminating";
        /// A bead's prefix is not one of the rig. Correct `spec.trackedBeads`; nothing is started
        /// until then.
        FOREIGN_BEAD = "ForeignBead";
        /// The store does not contain a bead. Correct `spec.trackedBeads` or add the bead; nothing
        /// is started until then.
        UNKNOWN_BEAD = "UnknownBead";
        /// Beads depend on each other in a circle. Remove one of the dependencies that the message
        /// names; nothing is started until then.
        DEPENDENCY_CYCLE = "DependencyCycle";
        /// `spec.parallelism` beads are being worked on. Wait, or raise it.
        PARALLELISM_REACHED = "ParallelismReached";
        /// All started work is finished and waits to land. Nothing to do.
        WAITING_FOR_LANDING = "WaitingForLanding";
        /// No bead can be started yet. The message names what each waits for.
        WAITING_FOR_BEADS = "WaitingForBeads";
        /// Beads are set aside because their Polecat gave up or their work was rejected. See those,
        /// and retry or close the beads.
        BEADS_FAILED = "BeadsFailed";
    }
    "BeadStore" {
        /// The store was read and is up to date. Nothing to do.
        UP_TO_DATE = "UpToDate";
        /// The repository has no JSONL file of beads. Export one, correct `spec.git`, or use the
        /// backend `HttpV0`.
        NO_JSONL = "NoJsonl";
        /// The file of beads cannot be used. See the message.
        BAD_FILE = "BadFile";
        /// The file `redirect` does not lead to a directory of the repository. Correct it.
        BAD_REDIRECT = "BadRedirect";
        /// The file `metadata.json` cannot be read. Correct it.
        BAD_METADATA = "BadMetadata";
        /// Several files may contain the beads. Keep one, or name it in `metadata.json`.
        AMBIGUOUS_FILE = "AmbiguousFile";
        /// The file of beads is larger than the operator reads. Remove old beads.
        FILE_TOO_LARGE = "FileTooLarge";
        /// The file is what people's tools read. Nothing to do.
        FILE_IS_TRUTH = "FileIsTruth";
        /// The server's database is what people's tools read. Nothing to do.
        SERVER_IS_TRUTH = "ServerIsTruth";
        /// The file is an export of a database, and writes to it would be lost. Use the backend
        /// `HttpV0`, or set `writePolicy: AllowExportOnly` and import the file.
        EXPORT_ONLY = "ExportOnly";
        /// Claims and closes are written. Nothing to do.
        WRITABLE = "Writable";
        /// `spec.writePolicy` is `ReadOnly`. Nothing to do.
        READ_ONLY = "ReadOnly";
        /// The file contains conflict markers of git, and is not written. Resolve the conflict.
        CONFLICT_MARKERS = "ConflictMarkers";
        /// The file contains an id twice, and is not written. Remove one of the lines.
        DUPLICATE_IDS = "DuplicateIds";
        /// The file contains lines that are not beads, and is not written. Correct the lines.
        MALFORMED_LINES = "MalformedLines";
        /// The file is not UTF-8, and is not written. Convert it.
        NOT_UTF8 = "NotUtf8";
        /// A line of the file is longer than the operator writes. Shorten that bead.
        LINE_TOO_LONG = "LineTooLong";
        /// The store has more beads than the operator writes. Remove old ones.
        TOO_MANY_ISSUES = "TooManyIssues";
        /// A bead's id is not valid, and the file is not written. Correct it.
        BAD_ID = "BadId";
        /// The file begins with a byte order mark, and is not written. Remove it.
        BYTE_ORDER_MARK = "ByteOrderMark";
        /// The file has Windows line ends, and is not written. Convert it.
        CARRIAGE_RETURNS = "CarriageReturns";
        /// `spec.git.branch` is the branch that work lands on, which bead writes never move. Name
        /// another branch.
        BRANCH_IS_TARGET = "BranchIsTarget";
        /// The branch in the repository's config.yaml is not a valid name. Correct it, or set
        /// `spec.git.branch`.
        BAD_BRANCH_NAME = "BadBranchName";
        /// Others write to the same branch or bead again and again. The message names it; decide
        /// who owns it.
        CONTENDED = "Contended";
        /// What is written into a server could not be recorded in an annotation, so it was not
        /// written. See the message; it is tried again.
        RECORDS_NOT_KEPT = "RecordsNotKept";
        /// The server asks to wait. It is asked again at the time that it named.
        REMOTE_BUSY = "RemoteBusy";
        /// The server refuses the token. Correct key `token` of the Secret.
        AUTH_FAILED = "AuthFailed";
        /// The server has another project than `spec.http.projectId`. Correct the URL or the id.
        PROJECT_MISMATCH = "ProjectMismatch";
        /// The server speaks another version of the API. Use bd 1.3 or later.
        SCHEMA_UNSUPPORTED = "SchemaUnsupported";
        /// The URL is not that of a beads server. Correct `spec.http.url`.
        NOT_BEADS = "NotBeads";
        /// The server's answer is larger than the operator reads. Remove old beads.
        TOO_LARGE = "TooLarge";
        /// The TLS connection to the server failed. Correct its certificate.
        TLS_FAILED = "TlsFailed";
        /// The server refuses the request. The message has its own text.
        REFUSED = "Refused";
        /// Edits of beads were refused (Event), for example because a person reopened a bead. See
        /// the message.
        BEADS_REFUSED = "BeadsRefused";
    }
    "Witness" {
        /// No Polecat of the rig has failed or is stuck. Nothing to do.
        ALL_HEALTHY = "AllHealthy";
        /// Polecats of the rig have failed or are stuck. The message names them.
        ISSUES_DETECTED = "IssuesDetected";
        /// `spec.escalationTarget` is `slack` and no route has its settings (Event). Add a route
        /// with the channel `slack`.
        SLACK_NOT_CONFIGURED = "SlackNotConfigured";
        /// `spec.escalationTarget` is `email` and no route has its settings (Event). Add a route
        /// with the channel `email`.
        EMAIL_NOT_CONFIGURED = "EmailNotConfigured";
        /// `spec.escalationTarget` is not a known channel (Event). Set `spec.routes`.
        UNKNOWN_ESCALATION_TARGET = "UnknownEscalationTarget";
    }
    "Escalation" {
        /// All routes have accepted the message. Nothing to do.
        NOTIFIED = "Told";
        /// A problem needs a person (Event of the channel `mayor`). See the Escalation.
        ESCALATED = "Escalated";
        /// No route of the rig's Witness accepts this severity. Add one to `spec.routes`.
        NO_ROUTE = "NoRoute";
        /// A route has not accepted the message yet. It is tried again.
        DELIVERY_PENDING = "DeliveryPending";
        /// A route did not accept the message in ten tries. Correct its settings;
        /// `status.deliveries` has the errors.
        DELIVERY_FAILED = "DeliveryFailed";
        /// The Escalation was acknowledged or closed before all routes had accepted it. Nothing to
        /// do.
        NOT_NEEDED = "NotNeeded";
    }
}
