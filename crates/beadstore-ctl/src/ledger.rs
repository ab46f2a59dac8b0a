//! What we wrote before, read from the history of the write branch; of a server's store from our
//! own annotations ([`crate::records`]).
//!
//! In git each of our commits says in trailers what it did for whom. So "a close is written once
//! per request" and "we release only what we claimed" hold after any loss of memory, and a record
//! and its write cannot come apart: they are one commit.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// Who commits to the write branch.
pub const COMMITTER: &str = "Gastown BeadStore <beads@gastown.io>";
/// The trailer that holds a [`Record`].
pub const TRAILER: &str = "Gastown-Bead";

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A claim was copied into the store.
    Claimed {
        /// The bead.
        bead: String,
        /// The uid of the Polecat that holds the claim.
        holder: String,
        /// Who it is in the store.
        assignee: String,
    },
    /// A claim was to be copied into a store that cannot remember by itself, and is not known to
    /// be.
    Asked {
        /// The bead.
        bead: String,
        /// The uid of the Polecat that holds the claim.
        holder: String,
        /// Who it is in the store.
        assignee: String,
    },
    /// A claim was taken back.
    Released {
        /// The bead.
        bead: String,
        /// The uid of the Polecat that held the claim.
        holder: String,
    },
    /// A request's landing closed its bead.
    Closed {
        /// The bead.
        bead: String,
        /// The uid of the MergeRequest.
        request: String,
    },
}

impl Record {
    /// The value of the trailer; `None` where a part holds what would end it.
    pub fn text(&self) -> Option<String> {
        let parts = match self {
            Self::Claimed { bead, holder, assignee } => vec!["claim", bead, holder, assignee],
            // In git a record and its write are one commit.
            Self::Asked { .. } => return None,
            Self::Released { bead, holder } => vec!["release", bead, holder],
            Self::Closed { bead, request } => vec!["close", bead, request],
        };
        let sound = |part: &&str| {
            !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        parts.iter().all(sound).then(|| parts.join(" "))
    }

    /// Reads the value of a trailer; another version's is none.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(' ').collect();
        match parts[..] {
            ["claim", bead, holder, assignee] => Some(Self::Claimed {
                bead: bead.into(),
                holder: holder.into(),
                assignee: assignee.into(),
            }),
            ["release", bead, holder] => {
                Some(Self::Released { bead: bead.into(), holder: holder.into() })
            }
            ["close", bead, request] => {
                Some(Self::Closed { bead: bead.into(), request: request.into() })
            }
            _ => None,
        }
    }
}

/// A claim of ours that stands in the store.
#[derive(Clone, PartialEq, Eq)]
pub struct Standing {
    /// The uid of the Polecat.
    pub holder: String,
    /// Who it is in the store.
    pub assignee: String,
    /// Whether it is known to have reached the store.
    pub sure: bool,
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.assignee, self.holder)
    }
}

/// Everything that we wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    claims: BTreeMap<String, Standing>,
    closed: HashSet<(String, String)>,
}

impl Ledger {
    /// Takes records in, the oldest first.
    pub fn extend(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            match record {
                Record::Claimed { bead, holder, assignee } => {
                    drop(self.claims.insert(bead, Standing { holder, assignee, sure: true }))
                }
                Record::Asked { bead, holder, assignee } => {
                    drop(self.claims.insert(bead, Standing { holder, assignee, sure: false }))
                }
                Record::Released { bead, holder } => {
                    if self.claims.get(&bead).is_some_and(|claim| claim.holder == holder) {
                        self.claims.remove(&bead);
                    }
                }
                Record::Closed { bead, request } => drop(self.closed.insert((bead, request))),
            }
        }
    }

    /// The claim of ours on a bead that was not taken back.
    pub fn claim(&self, bead: &str) -> Option<&Standing> {
        self.claims.get(bead)
    }

    /// All claims of ours that were not taken back, by bead.
    pub fn claims(&self) -> impl Iterator<Item = (&str, &Standing)> {
        self.claims.iter().map(|(bead, claim)| (bead.as_str(), claim))
    }

    /// Whether the landing of a request closed this bead once.
    pub fn closed(&self, bead: &str, request: &str) -> bool {
        self.closed.contains(&(bead.to_owned(), request.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(holder: &str) -> Record {
        Record::Claimed {
            bead: "gt-1".into(),
            holder: holder.into(),
            assignee: "web/polecats/nux".into(),
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was() {
        let closed = Record::Closed { bead: "gt-1.2".into(), request: "u-2".into() };
        for record in
            [claimed("u-1"), Record::Released { bead: "gt-1".into(), holder: "u-1".into() }, closed]
        {
            assert_eq!(Record::parse(&record.text().unwrap()), Some(record));
        }
    }

    #[test]
    fn what_would_forge_another_record_is_not_written() {
        for bead in ["", "gt 1", "gt-1\nGastown-Bead: close gt-2 u"] {
            assert_eq!(
                Record::Closed { bead: bead.into(), request: "u".into() }.text(),
                None,
                "{bead:?}"
            );
        }
        for text in ["", "claim gt-1", "close gt-1 u more", "forget gt-1 u"] {
            assert_eq!(Record::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_release_ends_the_claim_of_its_own_holder_alone() {
        let mut ledger = Ledger::default();
        ledger.extend([
            claimed("old"),
            claimed("new"),
            Record::Released { bead: "gt-1".into(), holder: "old".into() },
        ]);
        assert_eq!(ledger.claim("gt-1").unwrap().holder, "new");
        ledger.extend([Record::Released { bead: "gt-1".into(), holder: "new".into() }]);
        assert_eq!(ledger.claim("gt-1"), None);
    }
}
