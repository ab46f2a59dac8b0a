//! What a Convoy needs: which of its beads are done, for which ones a Polecat is created next, and
//! when it is over.
//!
//! A bead is done when it is closed in the bead store, or its MergeRequest landed, or (in a convoy
//! that does not dispatch) its Polecat is Done. A bead that was done once stays done as long as the
//! Convoy exists, because Polecats and MergeRequests are deleted after a while; only a person who
//! reopens it in the store has it done again. Unknown is never
//! closed: while the bead store cannot be read no Polecat is created, and no bead is done on the
//! store's account.

mod assess;
mod decide;
mod evaluation;
mod facts;
mod graph;
mod names;
mod obstacle;
mod reopening;

pub use assess::Assessment;
pub use decide::{Announcement, NewPolecat, Plan, decide};
pub use facts::{
    BeadFact, Counted, Dependency, End, PolecatFact, PolecatState, RequestFact, Rig, RigState,
    Snapshot, StoreState,
};
pub use names::polecat_name;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod tests;
