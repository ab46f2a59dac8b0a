use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A branch's short name, without `refs/heads/`: one that `git check-ref-format --branch` accepts
/// and that no command line takes for an option. At most 244 bytes, so that it fits a ref file's
/// path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BranchName(String);

/// Why a text is not a branch name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a branch name: {why}")]
pub struct InvalidBranch {
    name: String,
    why: String,
}

impl BranchName {
    /// The short name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The full ref, `refs/heads/<name>`.
    pub fn full(&self) -> String {
        format!("refs/heads/{}", self.0)
    }
}

/// Our rules beyond git's: what git itself, a command line or a file system could misread.
fn refusal(name: &str) -> Option<&'static str> {
    let is_lock = |part: &str| {
        let suffix = part.len().checked_sub(5).and_then(|at| part.as_bytes().get(at..));
        suffix.is_some_and(|s| s.eq_ignore_ascii_case(b".lock"))
    };
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > 244 {
        Some("it is longer than 244 bytes")
    } else if name == "HEAD" || name == "@" {
        Some("git reserves it")
    } else if name.starts_with("refs/") {
        Some("it must be the short name, without refs/")
    } else if name.starts_with('-') {
        Some("it starts with a hyphen")
    } else if name.chars().any(char::is_whitespace) {
        Some("it has white space")
    } else if name.split('/').any(is_lock) {
        Some("a part of its path ends in .lock")
    } else {
        None
    }
}

impl FromStr for BranchName {
    type Err = InvalidBranch;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = |why: String| InvalidBranch { name: s.chars().take(80).collect(), why };
        if let Some(why) = refusal(s) {
            return Err(invalid(why.to_owned()));
        }
        let branch = Self(s.to_owned());
        gix_validate::reference::branch_name(branch.full().as_str().into())
            .map_err(|error| invalid(error.to_string()))?;
        Ok(branch)
    }
}

crate::text_conversions!(BranchName, 0, InvalidBranch);

impl fmt::Debug for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_branches_parse() {
        for name in ["main", "feature/bl-01", "polecat/toast-1a2b", "release/1.2", "日本"] {
            assert_eq!(name.parse::<BranchName>().unwrap().full(), format!("refs/heads/{name}"));
        }
    }

    #[test]
    fn names_that_git_refuses_or_could_misread_do_not_parse() {
        let bad = [
            "",
            "-D",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a\nb",
            "a~1",
            "a^",
            "a:b",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a/.b",
            "a.lock",
            "a/b.lock/c",
            "a.LOCK",
            "a/.Lock",
            "a\u{a0}b",
            "a\u{7f}b",
            "a.",
            "HEAD",
            "@",
            "a@{1}",
            "refs/heads/main",
            "a\\b",
            "a*",
            "a?",
            "a[",
        ];
        for name in bad {
            assert!(name.parse::<BranchName>().is_err(), "{name:?}");
        }
        assert!("x".repeat(245).parse::<BranchName>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_whatever_parses_is_a_ref_below_heads(s in "\\PC{0,40}") {
            if let Ok(b) = s.parse::<BranchName>() {
                proptest::prop_assert!(b.full().starts_with("refs/heads/"));
                proptest::prop_assert!(!b.as_str().starts_with('-') && !b.as_str().contains(".."));
            }
        }
    }
}
