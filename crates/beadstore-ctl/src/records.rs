//! What we wrote into a server, and what is to be made of it at the next look. Pure.
//!
//! A store in git remembers in the history of its branch. The contract of `bd serve` has no such
//! place: its journal is cut short and may be off, and a comment could not be made together with
//! the write that it tells of. So each record is an annotation of ours on the object whose wish it
//! is, where no loss of a status or of a process reaches it, and goes with that wish:
//!
//! - how far the close for a landing is, on its MergeRequest ([`Closing`]);
//! - claims, on the BeadStore ([`Book`]): the Lease of a claim is gone before its bead can be given
//!   back.
//!
//! A record and its write are two here. Each record is therefore made before its write, as
//! something that was asked for, and made again after it, as something that is done; what was asked
//! for and not done is looked at.

use std::collections::BTreeMap;

use gastown_beads::{Issue, IssueSet, Status};
use gastown_beads_http::Revision;
use serde::{Deserialize, Serialize};

use crate::ledger::Record;
use crate::plan::Claim;

/// The most bytes of a [`Book`]; the API server keeps 256 KiB of annotations.
const MAX_BOOK: usize = 200 << 10;

/// How far the close of a bead for a request's landing is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// The bead.
    pub bead: String,
    /// The version that the bead was asked to be closed at; absent when it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Revision>,
}

impl Closing {
    /// It was done: what people make of the bead from now on is theirs.
    pub fn done(bead: &str) -> Self {
        Self { bead: bead.to_owned(), asked: None }
    }

    /// Whether it was done.
    pub fn is_done(&self) -> bool {
        self.asked.is_none()
    }
}

/// What to do about the close of a bead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, ever again.
    Nothing,
    /// It is closed: remember that.
    Remember,
    /// Ask for it, at the version that was just looked at.
    Ask,
    /// It was asked for, the answer is not known, and the bead is another one by now and open. A
    /// person may have opened it again, and a person wins: remember it as done, and say so.
    Heed,
}

/// What to do about the close of a bead that looks like this.
pub fn step(record: Option<&Closing>, issue: &Issue, version: &Revision) -> Step {
    match record {
        Some(record) if record.is_done() => Step::Nothing,
        _ if issue.status == Status::Closed => Step::Remember,
        Some(record) if record.asked.as_ref() != Some(version) => Step::Heed,
        _ => Step::Ask,
    }
}

/// A claim that was copied into the store, or was to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// The uid of the Polecat.
    pub holder: String,
    /// Who it is in the store.
    pub assignee: String,
    /// Asked for, and not known to be done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asked: bool,
}

/// What is remembered of a store as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// The project that the server had when it was first asked.
    #[serde(default)]
    pub project: String,
    /// Claims, by bead.
    #[serde(default)]
    pub claims: BTreeMap<String, Copied>,
}

impl Book {
    /// Reads an annotation; another version's is none.
    pub fn read(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The annotation; nothing where it is too long to be kept.
    pub fn text(&self) -> Option<String> {
        serde_json::to_string(self).ok().filter(|text| text.len() <= MAX_BOOK)
    }

    /// A book of this project: claims in another one are none of this one's.
    pub fn bind(&mut self, project: &str) {
        if self.project != project {
            *self = Self { project: project.to_owned(), claims: BTreeMap::new() };
        }
    }

    /// Takes in what became of a claim.
    pub fn take(&mut self, record: &Record) {
        match record {
            Record::Claimed { bead, holder, assignee } => {
                let copied =
                    Copied { holder: holder.clone(), assignee: assignee.clone(), asked: false };
                self.claims.insert(bead.clone(), copied);
            }
            Record::Released { bead, holder } => {
                if self.claims.get(bead).is_some_and(|copied| copied.holder == *holder) {
                    self.claims.remove(bead);
                }
            }
            Record::Asked { .. } | Record::Closed { .. } => {}
        }
    }

    /// Forgets claims that neither stand in the store nor are wanted any more.
    pub fn prune(&mut self, issues: &IssueSet, wanted: &[Claim]) {
        let stands = |bead: &str, copied: &Copied| {
            let issue = issues.get(bead);
            issue.is_some_and(|issue| {
                issue.status != Status::Closed
                    && issue.assignee.as_deref() == Some(&copied.assignee)
            })
        };
        let held = |bead: &str, copied: &Copied| {
            wanted.iter().any(|claim| claim.bead == bead && claim.holder == copied.holder)
        };
        self.claims.retain(|bead, copied| stands(bead, copied) || held(bead, copied));
    }

    /// The same as records of a ledger.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.claims.iter().map(|(bead, Copied { holder, assignee, asked })| {
            let (bead, holder, assignee) = (bead.clone(), holder.clone(), assignee.clone());
            if *asked {
                Record::Asked { bead, holder, assignee }
            } else {
                Record::Claimed { bead, holder, assignee }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gastown_beads::Dialect;

    use super::*;

    fn version(text: &str) -> Revision {
        serde_json::from_value(text.into()).unwrap()
    }

    fn issue(status: Status, assignee: &str) -> Issue {
        let assignee = Some(assignee.to_owned()).filter(|text| !text.is_empty());
        Issue { id: "gt-1".into(), status, assignee, ..Issue::default() }
    }

    fn asked(at: &str) -> Closing {
        Closing { bead: "gt-1".into(), asked: Some(version(at)) }
    }

    #[test]
    fn an_open_bead_is_asked_to_be_closed_until_that_is_done_and_never_after() {
        let open = issue(Status::Open, "");
        assert_eq!(step(None, &open, &version("1")), Step::Ask);
        assert_eq!(
            step(Some(&asked("1")), &open, &version("1")),
            Step::Ask,
            "the answer was lost, and nothing happened"
        );
        assert_eq!(
            step(Some(&Closing::done("gt-1")), &open, &version("9")),
            Step::Nothing,
            "a person's reopening wins"
        );
    }

    #[test]
    fn a_closed_bead_is_remembered_whoever_closed_it() {
        let closed = issue(Status::Closed, "");
        for record in [None, Some(asked("1"))] {
            assert_eq!(step(record.as_ref(), &closed, &version("2")), Step::Remember);
        }
    }

    #[test]
    fn a_bead_that_changed_while_the_answer_was_lost_is_a_person_s() {
        assert_eq!(step(Some(&asked("1")), &issue(Status::Open, ""), &version("3")), Step::Heed);
    }

    #[test]
    fn a_record_reads_back_as_it_was_and_what_is_odd_is_none() {
        for record in [asked("9223372036854775807"), Closing::done("gt-1")] {
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Closing>(&text).unwrap(), record, "{text}");
        }
        let mut book = Book::default();
        book.bind("proj-web");
        book.claims.insert(
            "gt-1".into(),
            Copied { holder: "u1".into(), assignee: "web/polecats/nux".into(), asked: true },
        );
        assert_eq!(Book::read(book.text().as_deref()), book);
        assert_eq!(Book::read(Some("[]")), Book::default());
        book.bind("proj-api");
        assert!(book.claims.is_empty());
    }

    #[test]
    fn a_claim_is_forgotten_when_it_neither_stands_nor_is_wanted() {
        let copied =
            Copied { holder: "u1".into(), assignee: "web/polecats/nux".into(), asked: false };
        let wanted =
            Claim { bead: "gt-1".into(), holder: "u1".into(), assignee: "web/polecats/nux".into() };
        let kept = |issue: Issue, wanted: &[Claim]| {
            let mut book = Book {
                claims: BTreeMap::from([("gt-1".to_owned(), copied.clone())]),
                ..Book::default()
            };
            book.prune(&IssueSet::new(Dialect::Export, [Arc::new(issue)]), wanted);
            book.claims.len()
        };
        assert_eq!(
            kept(issue(Status::InProgress, "web/polecats/nux"), &[]),
            1,
            "it is still to be given back"
        );
        assert_eq!(
            kept(issue(Status::Open, ""), std::slice::from_ref(&wanted)),
            1,
            "a person took it back, and is heeded"
        );
        assert_eq!(kept(issue(Status::Open, ""), &[]), 0);
        assert_eq!(kept(issue(Status::Closed, "web/polecats/nux"), &[]), 0);
    }

    #[test]
    fn a_book_that_no_object_could_hold_is_not_written() {
        let mut book = Book::default();
        for number in 0..4000 {
            let copied = Copied {
                holder: "u".repeat(36),
                assignee: "web/polecats/nux".into(),
                asked: false,
            };
            book.claims.insert(format!("gt-{number}"), copied);
        }
        assert_eq!(book.text(), None);
    }
}
