//! The main job, from a repository and a plan to landed branches, on whatever cluster has the
//! operator.
//!
//! A [`Plan`] is a git repository and the changes that the scripted model makes in it. [`run`]
//! puts the git server and the Messages API into a namespace and the changes as beads into the
//! repository, makes a Rig with its BeadStore and one Convoy, and watches until every bead is
//! closed. The controllers, the agent, git and the gates are the real ones; only the model is
//! scripted.

mod beads;
mod git;
mod kubectl;
mod objects;
mod plan;
mod project;
mod report;
mod scenario;

mod watch;

pub use beads::BeadState;
pub use git::git;
pub use kubectl::{Forward, Kubectl};
pub use plan::{Change, Hopeless, Plan, PlanFile, PlannedChange, RedFirst, Try};
pub use report::{ChangeReport, ConvoyReport, EscalationReport, Report, Target};
pub use scenario::{Scenario, Settings, clear, run};
pub use watch::{Failure, Snapshot};
