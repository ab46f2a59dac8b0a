//! What a Convoy needs: which of its beads count, what may be started next, and when it is over.
//!
//! A bead counts when it is closed in the store, or its MergeRequest landed, or (when the convoy
//! only follows) its Polecat is done. What counted once counts as long as the Convoy is there:
//! Polecats and requests are deleted after their time. Unknown is never closed: without the store's
//! word nothing is started and nothing is complete.

mod decide;
mod facts;
mod graph;
mod verdict;

pub use decide::{Feed, Plan, Tell, decide, polecat_name};
pub use facts::{
    BeadFact, Counted, Dependency, End, PolecatFact, PolecatState, Policy, RequestFact,
    RequestState, Rig, RigState, Snapshot, Store,
};
pub use verdict::{BeadPhase, Line, Phase, Said, Verdict};

#[cfg(test)]
mod machine;
#[cfg(test)]
mod tests;
