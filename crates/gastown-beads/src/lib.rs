//! Bead stores as JSONL files in git: what `bd` (up to 0.49 and from 1.0 on) and `br` write, read
//! without loss and edited a line at a time.
//!
//! - [`Store::parse`] reads any bytes, [`Store::write`] gives the same bytes back; what is odd is a
//!   [`Problem`], never an error.
//! - [`Store::claim`], [`Store::release`], [`Store::close`] and [`Store::comment`] change one line
//!   and keep its key order, escaping, timestamp style and place. The file is never sorted and
//!   never written anew: its order is the tool's, and a moved line is a conflict for everyone.
//! - [`ready`] and [`Readiness`] say what `bd ready` would, [`Graph`] in which order work can go,
//!   [`join`] what two branches say together.
//! - [`discover`], [`Metadata`] and [`StoreConfig`] read what lies beside the issues in `.beads/`.
//!
//! Pure: no I/O, no clock, no randomness, and it knows nothing of git or Kubernetes. Everything
//! that it reads is taken for hostile.

mod comment;
mod config;
mod dialect;
mod edges;
mod edit;
mod files;
mod graph;
mod id;
mod issue;
mod join;
mod json;
mod line;
mod problem;
mod ready;
mod set;
mod store;

pub use config::StoreConfig;
pub use dialect::Dialect;
pub use edit::{Change, EditError};
pub use files::{DiscoverError, Metadata, MetadataError, discover};
pub use graph::Graph;
pub use id::{is_valid_id, prefix_of};
pub use issue::{Comment, Dependency, DependencyKind, Gate, Issue, Status};
pub use join::{Joined, Origin, join};
pub use problem::{Defect, NotWritable, Problem, Problems, Reason};
pub use ready::{Readiness, Standing, ready};
pub use set::IssueSet;
pub use store::{Options, Store};
