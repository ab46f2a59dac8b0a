//! Whether agents make progress: from the heartbeats of their pods to an assessment, and what is
//! tried before a pod is restarted.
//!
//! Activity is what happens: events of the agent and CPU time of its container. The age of a pod
//! does not count. A restart is asked for only after the work was saved since the agent fell
//! silent.

mod activity;
mod assess;
mod saved;
mod summary;

pub use activity::{Command, CommandResult, Heartbeat, PodActivity};
pub use assess::{Assessment, HeartbeatSpan, Problem, Snapshot, Thresholds, assess};
pub use saved::{Shown, saved};
pub use summary::{PolecatHealth, Summary, count};

#[cfg(test)]
mod tests;
