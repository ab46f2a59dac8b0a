//! The demo: from a repository and a plan to landed branches, on any cluster with the operator.
//!
//! A [`Plan`] is a git repository and the changes that the scripted model makes in it. [`run`]
//! puts the git server and the Messages API into a namespace and the changes as beads into the
//! repository, makes a Rig with its BeadStore and one Convoy, and watches until every bead is
//! closed. The controllers, the agent, git and the gates are the real ones; only the model is
//! scripted.

mod beads;
mod deadline;
mod diagnosis;
mod git;
mod kubectl;
mod news;
mod objects;
mod plan;
mod plan_file;
mod pods;
mod project;
mod report;
mod run;
mod scenario;
mod settings;
mod snapshot;

pub use beads::BeadState;
pub use git::git;
pub use kubectl::{Forward, Kubectl};
pub use plan::{Change, Plan, RESTARTED, Try};
pub use plan_file::{Hopeless, PlanFile, PlannedChange, RedFirst};
pub use report::{ChangeReport, ConvoyReport, EscalationReport, Report, Target};
pub use run::{run, until};
pub use scenario::{Scenario, clear};
pub use settings::{Login, Settings};
pub use snapshot::Snapshot;
