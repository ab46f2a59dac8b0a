//! What is to be told, and what has been. Pure.

use std::collections::HashMap;

use gastown_core::retry::call_delay;
use jiff::{SignedDuration, Timestamp};

use crate::call::Call;

/// The newest word about each cause.
#[derive(Debug, Default)]
pub(crate) struct Board(HashMap<String, Notice>);

#[derive(Debug)]
struct Notice {
    call: Call,
    state: State,
}

#[derive(Debug)]
enum State {
    Told,
    /// To be told at that time; so many tries failed.
    Due(Timestamp, u32),
}

/// Whether both say that there is trouble, or both that there is none.
fn same(a: &Call, b: &Call) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

impl Board {
    /// This is how it stands with a cause. Says whether there is something new to tell: trouble
    /// that has been told is not told again in other words.
    pub(crate) fn want(&mut self, cause: String, call: Call, now: Timestamp) -> bool {
        match self.0.get_mut(&cause) {
            Some(notice) if same(&notice.call, &call) => {
                if matches!(notice.state, State::Due(..)) {
                    notice.call = call;
                }
                false
            }
            _ => {
                self.0.insert(cause, Notice { call, state: State::Due(now, 0) });
                true
            }
        }
    }

    /// What is to be told now, and when the next thing will be.
    pub(crate) fn due(&self, now: Timestamp) -> (Vec<(String, Call)>, Option<Timestamp>) {
        let mut due = Vec::new();
        let mut next: Option<Timestamp> = None;
        for (cause, notice) in &self.0 {
            match notice.state {
                State::Due(at, _) if at <= now => due.push((cause.clone(), notice.call.clone())),
                State::Due(at, _) => next = Some(next.map_or(at, |n| n.min(at))),
                State::Told => {}
            }
        }
        due.sort_by(|a, b| a.0.cmp(&b.0));
        (due, next)
    }

    /// The witness has this word. Another one, said meanwhile, is still to be told.
    pub(crate) fn told(&mut self, cause: &str, call: &Call) {
        if let Some(notice) = self.0.get_mut(cause).filter(|n| same(&n.call, call)) {
            notice.state = State::Told;
        }
    }

    /// The witness did not take this word.
    pub(crate) fn failed(&mut self, cause: &str, call: &Call, now: Timestamp) {
        if let Some(Notice { state, .. }) = self.0.get_mut(cause).filter(|n| same(&n.call, call))
            && let State::Due(_, tries) = state
        {
            let tries = tries.saturating_add(1);
            let at = now
                .checked_add(SignedDuration::from_secs(call_delay(tries)))
                .unwrap_or(Timestamp::MAX);
            *state = State::Due(at, tries);
        }
    }
}

#[cfg(test)]
mod tests {
    use gastown_proto::v1::{RaiseRequest, SettleRequest};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn raise(summary: &str) -> Call {
        Call::Raise(RaiseRequest {
            cause: "c".into(),
            summary: summary.into(),
            ..RaiseRequest::default()
        })
    }

    fn settle() -> Call {
        Call::Settle(SettleRequest { cause: "c".into(), ..SettleRequest::default() })
    }

    fn due(board: &Board, second: i64) -> Vec<Call> {
        board.due(at(second)).0.into_iter().map(|(_, call)| call).collect()
    }

    #[test]
    fn trouble_is_told_once_and_taken_back_once() {
        let mut board = Board::default();
        for (call, other_words) in
            [(settle(), settle()), (raise("a"), raise("b")), (settle(), settle())]
        {
            assert!(board.want("c".into(), call.clone(), at(0)));
            assert_eq!(due(&board, 0), std::slice::from_ref(&call));
            board.told("c", &call);
            assert!(!board.want("c".into(), other_words, at(0)));
            assert_eq!(board.due(at(9999)), (vec![], None));
        }
    }

    #[test]
    fn what_was_not_taken_is_told_again_later_in_its_newest_words() {
        let mut board = Board::default();
        board.want("c".into(), raise("a"), at(0));
        board.failed("c", &raise("a"), at(0));
        assert_eq!(board.due(at(0)), (vec![], Some(at(1))));
        assert!(!board.want("c".into(), raise("b"), at(0)));
        assert_eq!(due(&board, 1), [raise("b")]);
        board.failed("c", &raise("b"), at(1));
        assert_eq!(board.due(at(2)).1, Some(at(3)));
    }

    #[test]
    fn a_word_that_came_while_another_was_told_is_told_too() {
        let mut board = Board::default();
        board.want("c".into(), raise("a"), at(0));
        assert!(board.want("c".into(), settle(), at(0)));
        board.told("c", &raise("a"));
        assert_eq!(due(&board, 0), [settle()]);
        board.failed("c", &raise("a"), at(0));
        assert_eq!(due(&board, 0), [settle()]);
    }
}
