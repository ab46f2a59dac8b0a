//! Whether agents get on: from what their pods report to a verdict, and what is tried before a pod
//! is given up.
//!
//! Activity is what happens: events of the agent, CPU time of its container. The age of a pod says
//! nothing. A pod is only asked to be restarted after its work was saved since it fell silent.

mod memory;
mod summary;
mod verdict;

pub use memory::{Answer, Beat, Memory, Order};
pub use summary::{Counted, PolecatState, Summary, count};
pub use verdict::{Alarm, Facts, Thresholds, Verdict, judge};

#[cfg(test)]
mod tests;
