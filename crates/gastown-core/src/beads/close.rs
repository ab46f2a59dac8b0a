//! The close of a bead in a store that does not remember by itself what was written for whom.
//!
//! There the write and its record are two. The record is made before the write, as an intent, and
//! again after it, as done. After a lost answer, or a restart between the two, the bead is compared
//! with the version that the intent names.

use gastown_beads::{Issue, Status};
use serde::{Deserialize, Serialize};

/// The record of a close: intended at a version of the bead, or done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseIntent<V> {
    /// The bead.
    pub bead: String,
    /// The version at which the bead is to be closed; absent when the close is done.
    #[serde(
        rename = "asked",
        default = "Option::default",
        skip_serializing_if = "Option::is_none"
    )]
    pub at: Option<V>,
    /// Whether it is unknown that the bead was ever closed for this landing, and it stays open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_open: bool,
}

impl<V> CloseIntent<V> {
    /// The record of a close that is done: later changes by people stay.
    pub fn done(bead: &str) -> Self {
        Self { bead: bead.to_owned(), at: None, left_open: false }
    }

    /// The record of a close whose answer was lost: the bead is open, and stays so.
    pub fn left_open(bead: &str) -> Self {
        Self { left_open: true, ..Self::done(bead) }
    }

    /// Whether the close is done.
    pub fn is_done(&self) -> bool {
        self.at.is_none()
    }
}

/// The next step of a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseStep {
    /// The close is done and recorded: never close this bead for this landing again.
    Skip,
    /// The bead is closed: record the close as done.
    Record,
    /// Close the bead at the version that was just read.
    Close,
    /// The close was sent, its answer was lost, and the bead is open at another version: a person may
    /// have reopened it. Record the close as done, and report that the bead stays open.
    LeaveOpen,
}

/// The next step of the close of this bead, which was just read at `version`.
pub fn close_step<V: PartialEq>(
    intent: Option<&CloseIntent<V>>,
    issue: &Issue,
    version: &V,
) -> CloseStep {
    match intent {
        Some(intent) if intent.is_done() => CloseStep::Skip,
        _ if issue.status == Status::Closed => CloseStep::Record,
        Some(intent) if intent.at.as_ref() != Some(version) => CloseStep::LeaveOpen,
        _ => CloseStep::Close,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(status: Status) -> Issue {
        Issue { id: "gt-1".into(), status, ..Issue::default() }
    }

    fn intended(at: u64) -> CloseIntent<u64> {
        CloseIntent { bead: "gt-1".into(), at: Some(at), left_open: false }
    }

    #[test]
    fn an_open_bead_is_closed_until_that_is_done_and_never_after() {
        let open = issue(Status::Open);
        assert_eq!(close_step(None, &open, &1), CloseStep::Close);
        assert_eq!(
            close_step(Some(&intended(1)), &open, &1),
            CloseStep::Close,
            "the answer was lost, and nothing happened"
        );
        assert_eq!(
            close_step(Some(&CloseIntent::done("gt-1")), &open, &9),
            CloseStep::Skip,
            "a person's reopening wins"
        );
    }

    #[test]
    fn a_closed_bead_is_recorded_whoever_closed_it() {
        let closed = issue(Status::Closed);
        for intent in [None, Some(intended(1))] {
            assert_eq!(close_step(intent.as_ref(), &closed, &2), CloseStep::Record);
        }
    }

    #[test]
    fn a_bead_that_changed_while_the_answer_was_lost_stays_open() {
        assert_eq!(close_step(Some(&intended(1)), &issue(Status::Open), &3), CloseStep::LeaveOpen);
    }

    #[test]
    fn an_intent_reads_back_as_it_was() {
        for intent in [
            intended(9_223_372_036_854_775_807),
            CloseIntent::done("gt-1"),
            CloseIntent::left_open("gt-1"),
        ] {
            let text = serde_json::to_string(&intent).unwrap();
            assert_eq!(serde_json::from_str::<CloseIntent<u64>>(&text).unwrap(), intent, "{text}");
        }
        let text = serde_json::to_string(&intended(7)).unwrap();
        assert_eq!(text, r#"{"bead":"gt-1","asked":7}"#, "the annotation's format");
    }
}
