use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most bytes of a name, so that it fits into the path of a ref's file.
const MAX_BYTES: usize = 244;

/// A branch's short name, without `refs/heads/`, that `git check-ref-format --branch` accepts and
/// that no command line can take for an option. At most 244 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BranchName(String);

/// The text is not a branch name.
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

/// Our rules, which are stricter than git's, and then git's own.
fn fault(s: &str) -> Option<String> {
    let ours = if s.is_empty() {
        "it is empty"
    } else if s.len() > MAX_BYTES {
        "it is longer than 244 bytes"
    } else if s == "HEAD" || s == "@" {
        "git reserves it"
    } else if s.starts_with("refs/") {
        "it must be the short name, without refs/"
    } else if s.starts_with('-') {
        "it starts with a hyphen"
    } else if s.chars().any(char::is_whitespace) {
        "it has white space"
    } else if s.split('/').any(ends_in_lock) {
        "a path part ends in .lock"
    } else {
        let full = format!("refs/heads/{s}");
        let checked = gix_validate::reference::branch_name(full.as_str().into());
        return checked.err().map(|e| e.to_string());
    };
    Some(ours.to_owned())
}

/// Whether the name is one of git's lock files, on any file system.
fn ends_in_lock(part: &str) -> bool {
    let tail = part.len().checked_sub(".lock".len()).and_then(|at| part.as_bytes().get(at..));
    tail.is_some_and(|tail| tail.eq_ignore_ascii_case(b".lock"))
}

impl FromStr for BranchName {
    type Err = InvalidBranch;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match fault(s) {
            None => Ok(Self(s.to_owned())),
            Some(why) => Err(InvalidBranch { name: s.chars().take(80).collect(), why }),
        }
    }
}

impl TryFrom<String> for BranchName {
    type Error = InvalidBranch;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<BranchName> for String {
    fn from(b: BranchName) -> Self {
        b.0
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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
    fn names_that_git_would_refuse_or_misread_are_invalid() {
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
            ".lock",
            "a\u{a0}b",
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
        fn no_text_panics_and_every_valid_name_is_a_ref_in_heads(s in "\\PC{0,40}") {
            if let Ok(b) = s.parse::<BranchName>() {
                proptest::prop_assert!(b.full().starts_with("refs/heads/"));
                proptest::prop_assert!(!b.as_str().starts_with('-') && !b.as_str().contains(".."));
            }
        }
    }
}
