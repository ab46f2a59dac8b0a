use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A branch's short name, without `refs/heads/`, that `git check-ref-format --branch` would take
/// and that no command line can mistake for an option. At most 244 bytes, so that it fits a ref
/// file's path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BranchName(String);

/// Why a text is not a branch name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a branch name: {why}")]
pub struct InvalidBranch {
    name: String,
    why: &'static str,
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

fn fault(s: &str) -> Option<&'static str> {
    if s.is_empty() {
        return Some("it is empty");
    }
    if s.len() > 244 {
        return Some("it is longer than 244 bytes");
    }
    if s == "HEAD" || s == "@" {
        return Some("git reserves it");
    }
    if s.starts_with("refs/") {
        return Some("it must be the short name, without refs/");
    }
    if s.starts_with('-') {
        return Some("it starts with a hyphen");
    }
    if s.starts_with('/') || s.ends_with('/') || s.contains("//") {
        return Some("it has an empty path part");
    }
    if s.contains("..") || s.contains("@{") || s.ends_with('.') {
        return Some("it has `..`, `@{` or a final dot");
    }
    let bad = |c: char| c.is_ascii_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    if s.chars().any(bad) {
        return Some("it has a space, a control character or one of ~^:?*[\\");
    }
    if s.split('/').any(|p| {
        p.starts_with('.')
            || p.len() > 5 && p.as_bytes()[p.len() - 5..].eq_ignore_ascii_case(b".lock")
            || p == ".lock"
    }) {
        return Some("a path part starts with a dot or ends in .lock");
    }
    None
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
    fn what_git_would_refuse_or_misread_does_not() {
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
