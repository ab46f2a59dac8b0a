//! Bead stores as JSONL files in git: what `bd` (up to 0.49 and from 1.0 on) and `br` write, read
//! without loss and edited a line at a time.
//!
//! - [`Store::parse`] reads any bytes, [`Store::write`] returns the same bytes; whatever cannot be
//!   read becomes a [`Problem`], never an error.
//! - [`Store::claim`], [`Store::release`], [`Store::close`] and [`Store::comment`] change one line
//!   and keep its key order, escaping, timestamp style and place. The file is never sorted and
//!   never rewritten: its order is the tool's, and a moved line is a conflict for everyone.
//! - [`ready`] and [`Readiness`] list the issues that `bd ready` would list, [`Graph`] finds what
//!   blocks a bead and cycles among beads.
//! - [`join`] reads two branches as one store, field by field against the file that both began
//!   with; [`Store::adopt`] writes the result of it.
//! - [`discover`], [`Metadata`] and [`StoreConfig`] read the other files in `.beads/`.
//!
//! Pure: no I/O, no clock, no randomness; this crate knows neither git nor Kubernetes. All input
//! counts as hostile.

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
mod list;
mod meaning;
mod merge;
mod problem;
mod ready;
mod set;
mod store;

pub use config::StoreConfig;
pub use dialect::Dialect;
pub use edit::{Change, EditError};
pub use files::{DiscoverError, Metadata, MetadataError, discover};
pub use graph::{Beads, Edge, Graph};
pub use id::{is_valid_id, prefix_of};
pub use issue::{Comment, Dependency, DependencyKind, Gate, Issue, Status};
pub use join::{Joined, join};
pub use problem::{Defect, NotWritable, Problem, Problems, Reason};
pub use ready::{Readiness, Standing, ready};
pub use set::IssueSet;
pub use store::{Options, Store};
