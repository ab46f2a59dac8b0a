//! What a Rig needs: its Refinery, Witness and BeadStore, its counts, its orderly deletion.
//!
//! A Refinery that a user created for the rig's target branch is used as it is, in whatever
//! namespace; the rig's own Refinery is deleted then. Witnesses and BeadStores are treated in the
//! same way. Deletion of a Rig waits while one of its Polecats has a pod, and changes no Polecat:
//! each finishes by itself, or a user terminates or deletes it.

mod assess;
mod decide;
mod facts;

pub use assess::{Assessment, assess, count};
pub use decide::{ChildPlan, Plan, decide};
pub use facts::{Child, ChildRef, PolecatFact, Readiness, Snapshot};

#[cfg(test)]
mod tests;
