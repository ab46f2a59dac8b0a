//! A polecat's life: the facts, the ledger that remembers them, the rules, and the status.
//!
//! [`assess`] and [`decide`] are pure: a snapshot and a time in, a [`Plan`] out. Read
//! `polecat/decide.rs` from its top to see why a Polecat waits, runs, retries or stops.

mod bead_comment;
mod claim;
mod claim_intent;
mod decide;
mod deliveries;
mod drain;
mod escalation;
mod facts;
mod kept;
mod ledger;
mod ledger_update;
mod next;
mod outcome;
mod plan;
mod pods;
mod saved_work;
mod status;
mod submission;
mod task;
mod trace;
mod trace_facts;
mod valid;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use claim::{BeadRequest, ClaimFacts, ClaimRecord, claim_name};
pub use claim_intent::awaits_close;
pub use decide::{Assessment, assess, decide};
pub use deliveries::{
    BeadView, COMMENT_TRIES, Deliveries, ESCALATION_TRIES, EscalationRequest, Failure, LOSS,
    Submitted,
};
pub use drain::UNHEALTHY;
pub use facts::{
    Margins, NODE_LOST_SECONDS, NetworkProblem, PodFacts, PodPhase, RequestFacts, RigFacts, Seen,
    Snapshot,
};
pub use ledger::{End, Landed, Last, Ledger, LedgerError, MAX_BYTES, Respawns, VERSION, sanitize};
pub use outcome::{Expected, Outcome, RespawnCause, outcome};
pub use plan::{
    Action, CommentInputs, EscalationInputs, EventDraft, Plan, PodInputs, Rework, StatusDraft,
    SubmitInputs,
};
pub use pods::{attempt_of, pod_name};
pub use saved_work::{Lost, SavedWork};
pub use task::task_hash;
pub use trace::{lacks_close, life, spans};
pub use trace_facts::{Begin, Marks, PodTrace, RequestTrace, TraceFacts};
pub use valid::{InvalidSpec, OWN_VOLUMES, PodSettings, ValidPolecat};
