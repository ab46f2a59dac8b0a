//! What a bead store needs: which claims and landings are to be written into it, what prevents
//! that, and how each write is done once.
//!
//! Facts in, edits out: the cluster's claims and landings ([`Wanted`]), the beads as the store has
//! them, and what was written before ([`History`]). Each edit is made for one claim or one landing
//! and is made once. What a person changes after it wins: a copied claim that is not in the store
//! any more is not copied again, and a bead that a person reopened is not closed again.

mod close;
mod edit;
mod history;
mod plan;

pub use close::{CloseIntent, CloseStep, close_step};
pub use edit::{Edit, Prefixes};
pub use history::{CopiedClaim, History, Record};
pub use plan::{Claim, Conflict, Landed, Plan, Wanted, assignee, plan};
