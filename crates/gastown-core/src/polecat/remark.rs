//! What is told to a bead when its Polecat gives up or goes without having landed: one comment,
//! best effort. The store takes the same author and text once, so asking again after a lost answer
//! adds nothing.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::claim::lands;
use super::decide::{Next, Submission};
use super::facts::{Desired, Snapshot};
use super::ledger::{End, Ledger};

/// A deletion waits for so many tries to comment, and not longer.
pub const REMARK_TRIES: u32 = 3;

/// What became of commenting, as far as this process remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RemarkFacts {
    /// Nothing was tried.
    #[default]
    Untried,
    /// The store has it.
    Acknowledged {
        /// The comment.
        text: String,
    },
    /// It failed.
    Failed {
        /// The comment.
        text: String,
        /// How often in a row; a refusal that will not change counts as [`REMARK_TRIES`].
        tries: u32,
        /// Not again before this time.
        until: Timestamp,
    },
}

/// A comment to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemarkInputs {
    /// The rig.
    pub rig: String,
    /// The bead.
    pub bead: String,
    /// Who says it: the Polecat, as `namespace/name`.
    pub author: String,
    /// What is said.
    pub text: String,
}

/// Where the comment stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Remark {
    /// There is nothing to say, or it has been said.
    Nothing,
    /// To be made now.
    Due(RemarkInputs),
    /// To be tried again then.
    Later(Timestamp),
}

/// The comment that is due now, if one is.
pub(super) fn remark(
    now: Timestamp,
    s: &Snapshot,
    ledger: &Ledger,
    next: &Next,
    submit: &Submission,
    live: bool,
) -> Remark {
    let (Some(bead), true) = (&s.bead, s.bead_store && !live) else { return Remark::Nothing };
    let Some(text) = words(s, ledger, next, submit) else { return Remark::Nothing };
    match &s.remark {
        RemarkFacts::Acknowledged { text: said } if *said == text => return Remark::Nothing,
        RemarkFacts::Failed { text: tried, tries, until } if *tried == text => {
            if s.deleting && *tries >= REMARK_TRIES {
                return Remark::Nothing;
            }
            if *until > now {
                return Remark::Later(*until);
            }
        }
        RemarkFacts::Untried | RemarkFacts::Acknowledged { .. } | RemarkFacts::Failed { .. } => {}
    }
    Remark::Due(RemarkInputs {
        rig: s.rig.name().to_owned(),
        bead: bead.clone(),
        author: s.key(),
        text,
    })
}

fn words(s: &Snapshot, ledger: &Ledger, next: &Next, submit: &Submission) -> Option<String> {
    if ledger.attempt == 0 || (s.deleting && s.force_delete) {
        return None;
    }
    let attempts = ledger.attempt;
    let mut text = match next {
        Next::Stuck { reason, message, .. }
            if s.spec.is_ok() && (s.deleting || s.desired == Desired::Working) =>
        {
            format!("Polecat {} gave up in attempt {attempts}: {reason}: {message}", s.key())
        }
        _ if s.deleting
            && ledger.end() != Some(End::DoneWithoutChanges)
            && !lands(s, ledger, submit) =>
        {
            format!(
                "Polecat {} was deleted after attempt {attempts}; its work has not landed",
                s.key()
            )
        }
        _ => return None,
    };
    if let (Some(branch), Some(commit)) = (&ledger.branch, &ledger.commit) {
        let _ = write!(text, ". Branch {branch} holds {}", commit.short());
    }
    Some(text)
}
