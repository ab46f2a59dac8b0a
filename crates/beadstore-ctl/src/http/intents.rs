//! The records of edits at a server, as annotations hold them. Pure.
//!
//! A store in git remembers in the history of its branch. The contract of `bd serve` has no such
//! place: its journal is cut short and may be off, and a comment could not be made together with
//! the write that it describes. So each record is an annotation on the object that wants the edit,
//! where neither the loss of a status nor a restart reaches it, and goes with that object:
//!
//! - the state of the close for a landing, on its MergeRequest ([`CloseIntent`]);
//! - claims, on the BeadStore ([`Intents`]): the Lease of a claim is gone before its bead can be
//!   released.
//!
//! A record and its write are two here. Each record is therefore made before its write, as an
//! intent, and again after it, as done; an intent that is not done is checked at the next reading.

use std::collections::BTreeMap;

use gastown_beads::{IssueSet, Status};
use gastown_beads_http::Revision;
use gastown_core::beads::{Claim, Record};
use serde::{Deserialize, Serialize};

/// The most bytes of an annotation; the API server takes 256 KiB for all annotations of an object.
const MAX_BYTES: usize = 200 << 10;

/// The state of the close of a bead for a landing: the annotation of a MergeRequest.
pub type CloseIntent = gastown_core::beads::CloseIntent<Revision>;

/// A claim that was copied into the store, or is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimIntent {
    /// The uid of the Polecat.
    pub holder: String,
    /// The Polecat's name in the store.
    pub assignee: String,
    /// Whether it is unknown that the claim was copied.
    #[serde(rename = "asked", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_pending: bool,
}

/// The records of a store as a whole: the annotation of a BeadStore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intents {
    /// The project of the server at the first connection.
    #[serde(default)]
    pub project: String,
    /// Claims, by bead.
    #[serde(default)]
    pub claims: BTreeMap<String, ClaimIntent>,
}

impl Intents {
    /// Reads an annotation, without what only a later version knows; empty where it is not one.
    pub fn read(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The text of the annotation; `None` where it is too long for an object.
    pub fn text(&self) -> Option<String> {
        serde_json::to_string(self).ok().filter(|text| text.len() <= MAX_BYTES)
    }

    /// Binds the records to a project; claims in another project are dropped.
    pub fn bind(&mut self, project: &str) {
        if self.project != project {
            *self = Self { project: project.to_owned(), claims: BTreeMap::new() };
        }
    }

    /// Adds what became of a claim.
    pub fn add(&mut self, record: &Record) {
        match record {
            Record::Claimed { bead, holder, assignee } => {
                let claim = ClaimIntent {
                    holder: holder.clone(),
                    assignee: assignee.clone(),
                    is_pending: false,
                };
                self.claims.insert(bead.clone(), claim);
            }
            Record::Released { bead, holder } => {
                if self.claims.get(bead).is_some_and(|claim| claim.holder == *holder) {
                    self.claims.remove(bead);
                }
            }
            Record::Intended { .. }
            | Record::Closed { .. }
            | Record::LeftOpen { .. }
            | Record::Joined { .. } => {}
        }
    }

    /// Drops claims that neither the store shows nor the cluster holds any more.
    pub fn prune(&mut self, issues: &IssueSet, held: &[Claim]) {
        let is_shown = |bead: &str, claim: &ClaimIntent| {
            issues.get(bead).is_some_and(|issue| {
                issue.status != Status::Closed && issue.assignee.as_deref() == Some(&claim.assignee)
            })
        };
        let is_held = |bead: &str, claim: &ClaimIntent| {
            held.iter().any(|held| held.bead == bead && held.holder == claim.holder)
        };
        self.claims.retain(|bead, claim| is_shown(bead, claim) || is_held(bead, claim));
    }

    /// The claims as records of the history.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.claims.iter().map(|(bead, ClaimIntent { holder, assignee, is_pending })| {
            let (bead, holder, assignee) = (bead.clone(), holder.clone(), assignee.clone());
            if *is_pending {
                Record::Intended { bead, holder, assignee }
            } else {
                Record::Claimed { bead, holder, assignee }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gastown_beads::{Dialect, Issue};
    use gastown_compat::v0_1_0::{BeadClosed, BeadsServed};

    use super::*;

    fn version(text: &str) -> Revision {
        serde_json::from_value(text.into()).unwrap()
    }

    fn issue(status: Status, assignee: &str) -> Issue {
        let assignee = Some(assignee.to_owned()).filter(|text| !text.is_empty());
        Issue { id: "gt-1".into(), status, assignee, ..Issue::default() }
    }

    #[test]
    fn records_read_back_as_they_were_and_others_count_as_empty() {
        let pending =
            CloseIntent { at: Some(version("9223372036854775807")), ..CloseIntent::done("gt-1") };
        for record in [pending, CloseIntent::done("gt-1")] {
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<CloseIntent>(&text).unwrap(), record, "{text}");
        }
        let mut intents = Intents::default();
        intents.bind("proj-web");
        intents.claims.insert(
            "gt-1".into(),
            ClaimIntent {
                holder: "u1".into(),
                assignee: "web/polecats/nux".into(),
                is_pending: true,
            },
        );
        assert_eq!(Intents::read(intents.text().as_deref()), intents);
        assert_eq!(Intents::read(Some("[]")), Intents::default());
        intents.bind("proj-api");
        assert!(intents.claims.is_empty());
    }

    #[test]
    fn records_of_earlier_versions_are_read_and_today_s_are_read_by_them() {
        let close = CloseIntent {
            at: Some(version("9223372036854775807")),
            ..CloseIntent::done("ws-7k2p")
        };
        for sample in gastown_compat::samples("bead-closed.json") {
            let read: CloseIntent = serde_json::from_str(&sample.text).unwrap();
            assert_eq!(read, close, "{}", sample.version);
        }
        let claim = ClaimIntent {
            holder: "0a1b2c3d".into(),
            assignee: "web/polecats/toast".into(),
            is_pending: true,
        };
        let served =
            Intents { project: "proj-web".into(), claims: [("ws-7k2p".to_owned(), claim)].into() };
        for sample in gastown_compat::samples("beads-served.json") {
            assert_eq!(Intents::read(Some(&sample.text)), served, "{}", sample.version);
        }
        let read: BeadClosed =
            serde_json::from_str(&serde_json::to_string(&close).unwrap()).unwrap();
        assert_eq!((read.bead.as_str(), read.asked.is_some()), ("ws-7k2p", true));
        let read: BeadClosed =
            serde_json::from_str(&serde_json::to_string(&CloseIntent::left_open("b")).unwrap())
                .unwrap();
        assert!(read.left_open);
        let read: BeadsServed = serde_json::from_str(&served.text().unwrap()).unwrap();
        assert_eq!((read.project.as_str(), read.claims["ws-7k2p"].asked), ("proj-web", true));
    }

    #[test]
    fn a_claim_is_dropped_when_it_is_neither_shown_nor_held() {
        let copied = ClaimIntent {
            holder: "u1".into(),
            assignee: "web/polecats/nux".into(),
            is_pending: false,
        };
        let wanted =
            Claim { bead: "gt-1".into(), holder: "u1".into(), assignee: "web/polecats/nux".into() };
        let kept = |issue: Issue, wanted: &[Claim]| {
            let mut intents = Intents {
                claims: BTreeMap::from([("gt-1".to_owned(), copied.clone())]),
                ..Intents::default()
            };
            intents.prune(&IssueSet::new(Dialect::Export, [Arc::new(issue)]), wanted);
            intents.claims.len()
        };
        assert_eq!(
            kept(issue(Status::InProgress, "web/polecats/nux"), &[]),
            1,
            "it is still to be released"
        );
        assert_eq!(
            kept(issue(Status::Open, ""), std::slice::from_ref(&wanted)),
            1,
            "a person took it back, and wins"
        );
        assert_eq!(kept(issue(Status::Open, ""), &[]), 0);
        assert_eq!(kept(issue(Status::Closed, "web/polecats/nux"), &[]), 0);
    }

    #[test]
    fn records_that_no_annotation_can_hold_are_not_written() {
        let mut intents = Intents::default();
        for number in 0..4000 {
            let copied = ClaimIntent {
                holder: "u".repeat(36),
                assignee: "web/polecats/nux".into(),
                is_pending: false,
            };
            intents.claims.insert(format!("gt-{number}"), copied);
        }
        assert_eq!(intents.text(), None);
    }
}
