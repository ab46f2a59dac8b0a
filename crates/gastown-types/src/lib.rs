//! The lowest crate of the workspace: types for untrusted input, checked or cleaned in one place.
//!
//! Branches, commits and repository URLs are types of their own, so that a commit cannot be used as
//! a branch, and no value can be one that git would read as an option, a helper or a ref outside
//! `refs/heads/`. [`text`] cleans text for display, [`digest`] and [`slug`] make names from content.
//! This crate does no I/O and knows neither Kubernetes nor a git implementation.

mod branch;
mod commit;
pub mod digest;
mod identity;
mod slug;
pub mod text;
mod url;

pub use branch::{BranchName, InvalidBranch};
pub use commit::{CommitId, InvalidCommit};
pub use identity::{Identity, InvalidIdentity};
pub use slug::{is_label_value, slug};
pub use url::{GitUrl, InvalidUrl, Scheme};
