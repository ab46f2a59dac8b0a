use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A person or program as git writes it: `Name <mail>`, at most 256 characters on one line.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identity(String);

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a name and an address, such as Acme Bot <bot@example.org>")]
pub struct InvalidIdentity {
    text: String,
}

impl Identity {
    /// `Name <mail>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let is_odd = |c: char| c.is_control() || "<>".contains(c);
        let valid = s.chars().count() <= 256
            && s.strip_suffix('>').and_then(|s| s.split_once(" <")).is_some_and(|(name, mail)| {
                let is_trimmed = !name.is_empty() && name.trim() == name;
                let no_space = !mail.is_empty() && !mail.contains(char::is_whitespace);
                is_trimmed && no_space && !name.contains(is_odd) && !mail.contains(is_odd)
            });
        let invalid = || InvalidIdentity { text: s.chars().take(80).collect() };
        valid.then(|| Self(s.to_owned())).ok_or_else(invalid)
    }
}

crate::text_conversions!(Identity, 0, InvalidIdentity);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_an_address_are_an_identity() {
        for text in ["Acme Bot <bot@example.org>", "b <b@h>", "Jürgen, Dr. (x) <j@h>", "a <b>"] {
            assert_eq!(text.parse::<Identity>().unwrap().as_str(), text);
        }
        assert!(format!("{} <b@h>", "ü".repeat(250)).parse::<Identity>().is_ok());
        assert!(format!("{} <b@h>", "ü".repeat(251)).parse::<Identity>().is_err());
    }

    #[test]
    fn what_would_break_a_commit_is_not_an_identity() {
        let bad = [
            "",
            "Acme",
            "bot@example.org",
            "<b@h>",
            " <b@h>",
            "a <>",
            "a <b@h",
            "a b@h>",
            "a<b@h>",
            " a <b@h>",
            "a  <b@h>",
            "a <b@h> ",
            "a <b h>",
            "a <<b@h>",
            "a <b@h>>",
            "a> <b@h>",
            "a\nb <b@h>",
            "a <b@h>\ncommitter x <y>",
            "a\0 <b@h>",
            "a <b\u{a0}@h>",
            "a\u{85}b <b@h>",
        ];
        for text in bad {
            assert!(text.parse::<Identity>().is_err(), "{text:?}");
        }
    }
}
