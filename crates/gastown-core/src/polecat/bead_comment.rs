//! The comment on a bead whose Polecat gives up, or is deleted without having landed. Best effort:
//! the store keeps the same author and text once, so repeating it after a lost answer adds nothing.

use std::fmt::Write as _;

use gastown_api::DesiredState;
use jiff::Timestamp;

use super::deliveries::COMMENT_TRIES;
use super::facts::Snapshot;
use super::ledger::{End, Ledger};
use super::next::Next;
use super::plan::CommentInputs;
use super::saved_work;
use super::submission::{Submission, lands};
use crate::retry::Due;

/// What to do about the comment.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum BeadComment {
    /// Nothing: no comment is wanted, or the store has it.
    Nothing,
    /// Send it now.
    Due(CommentInputs),
    /// Send it again at this time.
    Later(Timestamp),
}

/// The comment that is wanted now. `live`: the Polecat has a live pod.
pub(super) fn bead_comment(
    now: Timestamp,
    s: &Snapshot,
    ledger: &Ledger,
    next: &Next,
    submission: &Submission,
    live: bool,
) -> BeadComment {
    let (Some(bead), true) = (&s.bead, s.bead_store && !live) else { return BeadComment::Nothing };
    let Some(text) = text(s, ledger, next, submission) else { return BeadComment::Nothing };
    if s.deleting && s.deliveries.comment.tries(&text) >= COMMENT_TRIES {
        return BeadComment::Nothing;
    }
    match s.deliveries.comment.due(now, &text) {
        Due::Acknowledged(()) => BeadComment::Nothing,
        Due::Later(until, ()) => BeadComment::Later(until),
        Due::Now => BeadComment::Due(CommentInputs {
            rig: s.rig.name().to_owned(),
            bead: bead.clone(),
            author: s.key(),
            text,
        }),
    }
}

fn text(s: &Snapshot, ledger: &Ledger, next: &Next, submission: &Submission) -> Option<String> {
    if ledger.attempt == 0 || (s.deleting && s.force_delete) {
        return None;
    }
    let attempts = ledger.attempt;
    let mut text = match next {
        Next::Stuck { reason, message, .. }
            if s.spec.is_ok() && (s.deleting || s.desired == DesiredState::Working) =>
        {
            format!("Polecat {} gave up in attempt {attempts}: {reason}: {message}", s.key())
        }
        _ if s.deleting
            && ledger.end() != Some(End::DoneWithoutChanges)
            && !lands(s, ledger, submission) =>
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
    if !ledger.saved.is_empty() {
        let _ = write!(text, "\n{}", saved_work::describe(&ledger.saved).trim_end());
    }
    Some(text)
}
