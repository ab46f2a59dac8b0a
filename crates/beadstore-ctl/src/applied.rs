//! The result of edits, and what a store never allows. Pure.

use std::fmt::Write as _;

use gastown_api::WritePolicy;
use gastown_beads::{Change, EditError, IssueSet};
use gastown_core::beads::{Edit, Prefixes, Record};
use gastown_types::{CommitId, text};

/// The committer of the write branch.
pub const COMMITTER: &str = "Gastown BeadStore <beads@gastown.io>";
/// The trailer that holds a [`Record`].
pub const TRAILER: &str = "Gastown-Bead";
/// The most characters of an edit's summary in a commit message.
const MAX_SUMMARY: usize = 200;

/// The result of edits.
#[derive(Debug, Default)]
pub struct Applied {
    /// The edits that succeeded, and whether they changed anything.
    pub done: Vec<(Edit, Change)>,
    /// The edits that the store refuses.
    pub refused: Vec<(Edit, EditError)>,
    /// Beads of which both branches changed a field, and whose values are written now.
    pub settled: Vec<String>,
    /// The commit of the target branch whose changes were taken over.
    pub target: Option<CommitId>,
}

impl Applied {
    /// Whether there is anything to commit: a changed line, a record, or what a time decided.
    pub fn needs_commit(&self) -> bool {
        !self.settled.is_empty() || self.to_commit().next().is_some()
    }

    fn to_commit(&self) -> impl Iterator<Item = &Edit> {
        let is_news =
            |(edit, change): &&(Edit, Change)| *change == Change::Made || edit.record().is_some();
        self.done.iter().filter(is_news).map(|(edit, _)| edit)
    }

    /// The message of the commit, with the records as trailers.
    pub fn commit_message(&self, author: &str) -> String {
        let edits: Vec<&Edit> = self.to_commit().collect();
        let summary = |edit: &Edit| text::line(&edit.summary(), MAX_SUMMARY);
        let mut message = match edits[..] {
            [] => format!("{}\n\n", self.settled_summary()),
            [one] => format!("{}\n\n", summary(one)),
            _ => {
                let list: Vec<String> =
                    edits.iter().map(|edit| format!("* {}", summary(edit))).collect();
                format!("Update {} beads\n\n{}\n\n", edits.len(), list.join("\n"))
            }
        };
        let target =
            self.target.as_ref().map(|target| Record::Joined { target: target.to_string() });
        let records = edits.iter().filter_map(|edit| edit.record()).chain(target);
        for record in records.filter_map(|record: Record| record.text()) {
            // Writing to a string cannot fail.
            let _ = writeln!(message, "{TRAILER}: {record}");
        }
        let _ = writeln!(message, "Gastown-Store: {author}");
        message
    }
}

impl Applied {
    /// What was settled, for a commit without edits.
    fn settled_summary(&self) -> String {
        const MAX_NAMED: usize = 5;
        let named: Vec<&str> = self.settled.iter().take(MAX_NAMED).map(String::as_str).collect();
        let more = match self.settled.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let beads = text::line(&named.join(", "), MAX_SUMMARY);
        format!("Keep the later edits of {beads}{more}")
    }
}

/// Why a store is not written, as a condition's reason and message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct WriteBlocked {
    /// The reason, in CamelCase.
    pub reason: String,
    /// The message, a sentence.
    pub message: String,
}

impl WriteBlocked {
    /// A store that is not written for this reason.
    pub(crate) fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

/// Fails where the policy allows no writes.
pub(crate) fn check_policy(policy: WritePolicy) -> Result<(), WriteBlocked> {
    match policy {
        WritePolicy::ReadOnly => Err(WriteBlocked::new("ReadOnly", "spec.writePolicy is ReadOnly")),
        WritePolicy::Unknown => Err(WriteBlocked::new(
            "ReadOnly",
            "spec.writePolicy has a value that this version of beadstore-ctl does not know",
        )),
        WritePolicy::Write | WritePolicy::AllowExportOnly => Ok(()),
    }
}

/// Fails where a bead does not exist or has none of the prefixes.
pub(crate) fn check_bead(
    bead: &str,
    issues: &IssueSet,
    prefixes: &Prefixes,
) -> Result<(), EditError> {
    if !prefixes.allow(bead) {
        let why =
            "it has none of the store's prefixes (spec.prefix, spec.allowedPrefixes)".to_owned();
        return Err(EditError::NotEditable { id: bead.to_owned(), why });
    }
    match issues.get(bead) {
        Some(_) => Ok(()),
        None => Err(EditError::NotFound(text::line(bead, 80))),
    }
}
