use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A commit's object id: 40 (SHA-1) or 64 (SHA-256) lowercase hexadecimal digits, never all zeros.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitId(String);

/// The text is not a commit id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a commit id: expected 40 or 64 lowercase hexadecimal digits, not all zero")]
pub struct InvalidCommit(String);

impl CommitId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, for messages and names.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl FromStr for CommitId {
    type Err = InvalidCommit;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let valid =
            matches!(s.len(), 40 | 64) && s.bytes().all(hex) && s.bytes().any(|b| b != b'0');
        if valid {
            Ok(Self(s.to_owned()))
        } else {
            Err(InvalidCommit(s.chars().take(80).collect()))
        }
    }
}

crate::text_conversions!(CommitId, 0, InvalidCommit);

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hash_lengths_parse_and_nothing_else_does() {
        assert!("a".repeat(40).parse::<CommitId>().is_ok());
        assert!("0123456789abcdef".repeat(4).parse::<CommitId>().is_ok());
        let bad = [
            "",
            "HEAD",
            "-",
            &"A".repeat(40),
            &"a".repeat(39),
            &"0".repeat(40),
            &"0".repeat(64),
            &format!("{} ", "a".repeat(39)),
        ];
        for text in bad {
            assert!(text.parse::<CommitId>().is_err(), "{text:?}");
        }
    }
}
