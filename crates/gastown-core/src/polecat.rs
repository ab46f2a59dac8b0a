//! A polecat's life: the facts, the ledger that remembers them, the rules, and what is shown.
//!
//! [`decide`] is pure: a snapshot and a time in, a [`Plan`] out. Read `polecat/decide.rs` from its
//! top to see why a Polecat waits, runs, retries or rests.

mod account;
mod alarm;
mod claim;
mod decide;
mod facts;
mod ledger;
mod outcome;
mod phase;
mod plan;
mod remark;
mod valid;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod rivals;
#[cfg(test)]
mod tests;

pub use alarm::{ALARM_TRIES, AlarmCall, AlarmFacts, AlarmInputs};
pub use claim::{ClaimFacts, ClaimRecord, claim_name};
pub use decide::{attempt_of, decide, pod_name, wants_slot};
pub use facts::{
    Desired, NODE_LOST_SECONDS, PodFacts, PodPhase, Refused, RequestFacts, RequestPhase, RigFacts,
    Snapshot, SubmitFacts,
};
pub use ledger::{End, Landed, Last, Ledger, LedgerError, MAX_BYTES, Respawns, VERSION, tame};
pub use outcome::{Expected, Fault, Outcome, UNHEALTHY, judge};
pub use plan::{Deed, Phase, Plan, PodInputs, Rework, Shown, SubmitInputs, Told, View};
pub use remark::{REMARK_TRIES, RemarkFacts, RemarkInputs};
pub use valid::{InvalidSpec, OWN_VOLUMES, PodSettings, ValidPolecat};
