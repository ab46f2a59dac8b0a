//! One change of a store.

use gastown_beads::prefix_of;

use super::history::Record;

/// One change of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Makes a bead `in_progress` with this assignee.
    Claim {
        /// The bead.
        bead: String,
        /// The uid of the Polecat that holds the claim.
        holder: String,
        /// The Polecat's name in the store: `<rig>/polecats/<name>`.
        assignee: String,
    },
    /// Makes a bead `open` again where it still has this assignee.
    Release {
        /// The bead.
        bead: String,
        /// The uid of the Polecat that held the claim.
        holder: String,
        /// The Polecat's name in the store.
        assignee: String,
    },
    /// Closes a bead for a landing.
    Close {
        /// The bead.
        bead: String,
        /// The uid of the MergeRequest that landed.
        request: String,
        /// The reason, for people.
        reason: String,
    },
    /// Adds a comment.
    Comment {
        /// The bead.
        bead: String,
        /// Who comments.
        author: String,
        /// The text of the comment.
        text: String,
    },
}

impl Edit {
    /// The bead that is changed.
    pub fn bead(&self) -> &str {
        match self {
            Self::Claim { bead, .. }
            | Self::Release { bead, .. }
            | Self::Close { bead, .. }
            | Self::Comment { bead, .. } => bead,
        }
    }

    /// The edit in a few words, for commit messages, Events and logs.
    pub fn summary(&self) -> String {
        match self {
            Self::Claim { bead, assignee, .. } => format!("Claim {bead} for {assignee}"),
            Self::Release { bead, assignee, .. } => format!("Release {bead} of {assignee}"),
            Self::Close { bead, reason, .. } => format!("Close {bead}: {reason}"),
            Self::Comment { bead, author, .. } => format!("Comment on {bead} by {author}"),
        }
    }

    /// The record of this edit in the history; comments have none.
    pub fn record(&self) -> Option<Record> {
        let bead = self.bead().to_owned();
        match self {
            Self::Claim { holder, assignee, .. } => {
                Some(Record::Claimed { bead, holder: holder.clone(), assignee: assignee.clone() })
            }
            Self::Release { holder, .. } => Some(Record::Released { bead, holder: holder.clone() }),
            Self::Close { request, .. } => Some(Record::Closed { bead, request: request.clone() }),
            Self::Comment { .. } => None,
        }
    }
}

/// The prefixes of the beads that a store may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefixes(Vec<String>);

impl Prefixes {
    /// The prefixes of a spec, with or without their last hyphens.
    pub fn new<'a>(prefixes: impl IntoIterator<Item = &'a str>) -> Self {
        Self(prefixes.into_iter().map(|prefix| prefix.trim_end_matches('-').to_owned()).collect())
    }

    /// Whether a bead has one of the prefixes.
    pub fn allow(&self, bead: &str) -> bool {
        self.0.iter().any(|prefix| {
            prefix_of(bead) == prefix
                || bead.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('-'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_match_with_and_without_their_hyphen() {
        let prefixes = Prefixes::new(["gt-", "bd-main"]);
        for (bead, allowed) in [
            ("gt-1", true),
            ("gt-a1b2.3", true),
            ("bd-main-idj", true),
            ("gtx-1", false),
            ("bd-1", false),
            ("hq-1", false),
        ] {
            assert_eq!(prefixes.allow(bead), allowed, "{bead}");
        }
    }
}
