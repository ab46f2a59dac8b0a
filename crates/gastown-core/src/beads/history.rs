//! What was written before: read from the history of the write branch, or, for a store behind a
//! server, from annotations.
//!
//! In git each of our commits names in trailers what it did for whom. So "a bead is closed once for
//! a landing" and "only copied claims are released" hold after any restart, and a record and its
//! write cannot come apart: they are one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The record of one edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A claim was copied into the store.
    Claimed {
        /// The bead.
        bead: String,
        /// The uid of the Polecat that holds the claim.
        holder: String,
        /// The Polecat's name in the store.
        assignee: String,
    },
    /// A claim is to be copied into a store without a history, and it is unknown whether it was.
    Intended {
        /// The bead.
        bead: String,
        /// The uid of the Polecat that holds the claim.
        holder: String,
        /// The Polecat's name in the store.
        assignee: String,
    },
    /// A claim was released.
    Released {
        /// The bead.
        bead: String,
        /// The uid of the Polecat that held the claim.
        holder: String,
    },
    /// A bead was closed for a landing.
    Closed {
        /// The bead.
        bead: String,
        /// The uid of the MergeRequest.
        request: String,
    },
    /// It is unknown whether a bead was closed for a landing: it is open, and is not closed again.
    LeftOpen {
        /// The bead.
        bead: String,
        /// The uid of the MergeRequest.
        request: String,
    },
    /// The changes of the target branch were taken over.
    Joined {
        /// The commit of the target branch.
        target: String,
    },
}

impl Record {
    /// The value of the trailer; `None` where a part is empty or holds white space, which would end
    /// it.
    pub fn text(&self) -> Option<String> {
        let parts = match self {
            Self::Claimed { bead, holder, assignee } => vec!["claim", bead, holder, assignee],
            // In git there are no intents: a record and its write are one commit.
            Self::Intended { .. } | Self::LeftOpen { .. } => return None,
            Self::Released { bead, holder } => vec!["release", bead, holder],
            Self::Closed { bead, request } => vec!["close", bead, request],
            Self::Joined { target } => vec!["join", target],
        };
        let sound = |part: &&str| {
            !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        parts.iter().all(sound).then(|| parts.join(" "))
    }

    /// Reads the value of a trailer. Parts that a later version added are left out; `None` where it is
    /// of a kind that only a later version knows.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(' ').collect();
        match parts[..] {
            ["claim", bead, holder, assignee, ..] => Some(Self::Claimed {
                bead: bead.into(),
                holder: holder.into(),
                assignee: assignee.into(),
            }),
            ["release", bead, holder, ..] => {
                Some(Self::Released { bead: bead.into(), holder: holder.into() })
            }
            ["close", bead, request, ..] => {
                Some(Self::Closed { bead: bead.into(), request: request.into() })
            }
            ["join", target, ..] => Some(Self::Joined { target: target.into() }),
            _ => None,
        }
    }
}

/// A claim that was copied into the store and not released.
#[derive(Clone, PartialEq, Eq)]
pub struct CopiedClaim {
    /// The uid of the Polecat.
    pub holder: String,
    /// The Polecat's name in the store.
    pub assignee: String,
    /// Whether the claim is known to have reached the store.
    pub is_confirmed: bool,
}

impl fmt::Debug for CopiedClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.assignee, self.holder)
    }
}

/// Everything that was written before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    claims: BTreeMap<String, CopiedClaim>,
    /// The requests for which each bead may or may not have been closed.
    left_open: BTreeMap<String, BTreeSet<String>>,
    /// The requests that each bead was closed for.
    closed: BTreeMap<String, BTreeSet<String>>,
}

impl History {
    /// Adds records, the oldest first.
    pub fn extend(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            match record {
                Record::Claimed { bead, holder, assignee } => {
                    let claim = CopiedClaim { holder, assignee, is_confirmed: true };
                    self.claims.insert(bead, claim);
                }
                Record::Intended { bead, holder, assignee } => {
                    let claim = CopiedClaim { holder, assignee, is_confirmed: false };
                    self.claims.insert(bead, claim);
                }
                Record::Released { bead, holder } => {
                    if self.claims.get(&bead).is_some_and(|claim| claim.holder == holder) {
                        self.claims.remove(&bead);
                    }
                }
                Record::Closed { bead, request } => {
                    self.closed.entry(bead).or_default().insert(request);
                }
                Record::LeftOpen { bead, request } => {
                    self.left_open.entry(bead).or_default().insert(request);
                }
                // The base of a join is found by the reader of the branches.
                Record::Joined { .. } => {}
            }
        }
    }

    /// The copied claim on a bead.
    pub fn claim(&self, bead: &str) -> Option<&CopiedClaim> {
        self.claims.get(bead)
    }

    /// All copied claims, by bead.
    pub fn claims(&self) -> impl Iterator<Item = (&str, &CopiedClaim)> {
        self.claims.iter().map(|(bead, claim)| (bead.as_str(), claim))
    }

    /// Whether this bead was closed for this request, or may have been.
    pub fn was_closed(&self, bead: &str, request: &str) -> bool {
        [&self.closed, &self.left_open]
            .into_iter()
            .any(|of| of.get(bead).is_some_and(|requests| requests.contains(request)))
    }

    /// The uids of the requests that this bead was closed for. Where it is open all the same, a
    /// person reopened it after they landed.
    pub fn closed_for(&self, bead: &str) -> impl Iterator<Item = &str> {
        self.closed.get(bead).into_iter().flatten().map(String::as_str)
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
        let joined = Record::Joined { target: "c".repeat(40) };
        let released = Record::Released { bead: "gt-1".into(), holder: "u-1".into() };
        for record in [claimed("u-1"), released, closed, joined] {
            assert_eq!(Record::parse(&record.text().unwrap()), Some(record));
        }
    }

    #[test]
    fn a_record_that_could_forge_another_one_is_not_written() {
        for bead in ["", "gt 1", "gt-1\nGastown-Bead: close gt-2 u"] {
            assert_eq!(
                Record::Closed { bead: bead.into(), request: "u".into() }.text(),
                None,
                "{bead:?}"
            );
        }
        for text in ["", "claim gt-1", "close gt-1", "forget gt-1 u", "join"] {
            assert_eq!(Record::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_record_of_a_later_version_is_read_for_what_is_known_of_it() {
        let closed = Record::Closed { bead: "gt-1".into(), request: "u".into() };
        assert_eq!(Record::parse("close gt-1 u more"), Some(closed));
        let longer = format!("{} by refinery-ctl", claimed("u-1").text().unwrap());
        assert_eq!(Record::parse(&longer), Some(claimed("u-1")));
    }

    #[test]
    fn a_close_is_known_by_its_bead_and_its_request() {
        let mut history = History::default();
        let closed =
            |request: &str| Record::Closed { bead: "gt-1".into(), request: request.into() };
        history.extend([closed("u-2"), closed("u-1"), closed("u-2")]);
        assert!(history.was_closed("gt-1", "u-1") && !history.was_closed("gt-2", "u-1"));
        assert_eq!(history.closed_for("gt-1").collect::<Vec<_>>(), ["u-1", "u-2"]);
        history.extend([Record::LeftOpen { bead: "gt-2".into(), request: "u-3".into() }]);
        assert!(history.was_closed("gt-2", "u-3"), "it is not closed again");
        assert_eq!(history.closed_for("gt-2").count(), 0, "and it is not known to be reopened");
    }

    #[test]
    fn a_release_ends_only_the_claim_of_its_holder() {
        let mut history = History::default();
        history.extend([
            claimed("old"),
            claimed("new"),
            Record::Released { bead: "gt-1".into(), holder: "old".into() },
        ]);
        assert_eq!(history.claim("gt-1").unwrap().holder, "new");
        history.extend([Record::Released { bead: "gt-1".into(), holder: "new".into() }]);
        assert_eq!(history.claim("gt-1"), None);
    }
}
