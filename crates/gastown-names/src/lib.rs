//! Names that a stranger may have written, made safe once: branches, commits and repository URLs.
//!
//! Every crate takes these instead of strings, so a commit cannot be passed for a branch and
//! nothing that git would read as an option, a helper or a ref outside `refs/heads/` gets past the
//! edge. This crate knows no Kubernetes and no git implementation.

mod branch;
mod commit;
mod url;

pub use branch::{BranchName, InvalidBranch};
pub use commit::{CommitId, InvalidCommit};
pub use url::{GitUrl, InvalidUrl, Scheme};
