//! The ground floor of the workspace: what a stranger may have written, made safe once.
//!
//! Branches, commits and repository URLs are types of their own, so a commit cannot be passed for a
//! branch, and nothing that git would read as an option, a helper or a ref outside `refs/heads/`
//! gets past the edge. [`text`] cleans what is shown, [`digest`] and [`slug`] make names from
//! content. This crate does no I/O and knows neither Kubernetes nor a git implementation.

mod branch;
mod commit;
pub mod digest;
mod slug;
pub mod text;
mod url;

pub use branch::{BranchName, InvalidBranch};
pub use commit::{CommitId, InvalidCommit};
pub use slug::{is_label_value, slug};
pub use url::{GitUrl, InvalidUrl, Scheme};
