//! The lowest crate of the workspace: types for untrusted input, checked or cleaned in one place.
//!
//! Branches, commits and repository URLs are types of their own, so that a commit cannot be used as
//! a branch, and no value can be one that git would read as an option, a helper or a ref outside
//! `refs/heads/`. [`text`] cleans text for display, [`digest`] and [`slug`] make names from content.
//! This crate does no I/O and knows neither Kubernetes nor a git implementation.

/// The conversions of a type that wraps a checked text: from a `String` as it parses, to the `String`
/// in its field, and for display.
macro_rules! text_conversions {
    ($name:ident, $field:tt, $error:ident) => {
        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(checked: $name) -> Self {
                checked.$field
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.$field)
            }
        }
    };
}
use text_conversions;

mod branch;
mod commit;
pub mod digest;
#[cfg(test)]
mod fuzz;
mod identity;
mod slug;
pub mod text;
mod url;

pub use branch::{BranchName, InvalidBranch};
pub use commit::{CommitId, InvalidCommit};
pub use identity::{Identity, InvalidIdentity};
pub use slug::{is_label_value, slug};
pub use url::{GitUrl, InvalidUrl, Scheme};
