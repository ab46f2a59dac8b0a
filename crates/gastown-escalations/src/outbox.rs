//! Which requests are still to be sent, and when. Pure.

use std::collections::HashMap;

use gastown_core::retry::request_delay;
use jiff::{SignedDuration, Timestamp};

use crate::request::Request;

/// The newest request for each cause, of the rigs that this process works for.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// By cause.
    entries: HashMap<String, Entry>,
    /// The term in which the requests of a rig were recorded.
    terms: HashMap<String, Option<u64>>,
}

#[derive(Debug)]
struct Entry {
    request: Request,
    state: State,
}

#[derive(Debug)]
enum State {
    /// witness-ctl has accepted it.
    Sent,
    /// To be sent at that time; this many tries have failed.
    Due(Timestamp, u32),
}

/// Whether both raise, or both settle.
fn same_kind(a: &Request, b: &Request) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

impl Outbox {
    /// Forgets what was recorded of a rig in another term: another replica may have sent something
    /// else since.
    pub(crate) fn begin(&mut self, rig: &str, term: Option<u64>) {
        if self.terms.get(rig) != Some(&term) {
            self.entries.retain(|_, entry| entry.request.rig() != rig);
            self.terms.insert(rig.to_owned(), term);
        }
    }

    /// Forgets the requests of rigs that this process does not work for any more.
    pub(crate) fn keep(&mut self, is_ours: impl Fn(&str) -> bool) {
        self.entries.retain(|_, entry| is_ours(entry.request.rig()));
        self.terms.retain(|rig, _| is_ours(rig));
    }

    /// Records what witness-ctl is to know about a cause. Returns whether that is new: a problem
    /// that was sent is not sent again with another wording.
    pub(crate) fn put(&mut self, cause: String, request: Request, now: Timestamp) -> bool {
        match self.entries.get_mut(&cause) {
            Some(entry) if same_kind(&entry.request, &request) => {
                if matches!(entry.state, State::Due(..)) {
                    entry.request = request;
                }
                false
            }
            _ => {
                self.entries.insert(cause, Entry { request, state: State::Due(now, 0) });
                true
            }
        }
    }

    /// The requests to send now, by cause, and when the next one is due.
    pub(crate) fn due(&self, now: Timestamp) -> (Vec<(String, Request)>, Option<Timestamp>) {
        let mut due = Vec::new();
        let mut next: Option<Timestamp> = None;
        for (cause, entry) in &self.entries {
            match entry.state {
                State::Due(at, _) if at <= now => due.push((cause.clone(), entry.request.clone())),
                State::Due(at, _) => next = Some(next.map_or(at, |n| n.min(at))),
                State::Sent => {}
            }
        }
        due.sort_by(|a, b| a.0.cmp(&b.0));
        (due, next)
    }

    /// witness-ctl has accepted this request. Another one that came meanwhile is still to be sent.
    pub(crate) fn sent(&mut self, cause: &str, request: &Request) {
        if let Some(entry) = self.entries.get_mut(cause).filter(|n| same_kind(&n.request, request))
        {
            entry.state = State::Sent;
        }
    }

    /// witness-ctl did not accept this request: it is tried again later.
    pub(crate) fn failed(&mut self, cause: &str, request: &Request, now: Timestamp) {
        if let Some(Entry { state, .. }) =
            self.entries.get_mut(cause).filter(|n| same_kind(&n.request, request))
            && let State::Due(_, tries) = state
        {
            let tries = tries.saturating_add(1);
            let at = now
                .checked_add(SignedDuration::from_secs(request_delay(tries)))
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

    fn raise(summary: &str) -> Request {
        Request::Raise(RaiseRequest {
            cause: "c".into(),
            summary: summary.into(),
            ..RaiseRequest::default()
        })
    }

    fn settle() -> Request {
        Request::Settle(SettleRequest { cause: "c".into(), ..SettleRequest::default() })
    }

    fn due(outbox: &Outbox, second: i64) -> Vec<Request> {
        outbox.due(at(second)).0.into_iter().map(|(_, request)| request).collect()
    }

    #[test]
    fn a_problem_is_raised_once_and_settled_once() {
        let mut outbox = Outbox::default();
        for (request, reworded) in
            [(settle(), settle()), (raise("a"), raise("b")), (settle(), settle())]
        {
            assert!(outbox.put("c".into(), request.clone(), at(0)));
            assert_eq!(due(&outbox, 0), std::slice::from_ref(&request));
            outbox.sent("c", &request);
            assert!(!outbox.put("c".into(), reworded, at(0)));
            assert_eq!(outbox.due(at(9999)), (vec![], None));
        }
    }

    #[test]
    fn what_was_not_accepted_is_sent_again_later_with_its_newest_wording() {
        let mut outbox = Outbox::default();
        outbox.put("c".into(), raise("a"), at(0));
        outbox.failed("c", &raise("a"), at(0));
        assert_eq!(outbox.due(at(0)), (vec![], Some(at(1))));
        assert!(!outbox.put("c".into(), raise("b"), at(0)));
        assert_eq!(due(&outbox, 1), [raise("b")]);
        outbox.failed("c", &raise("b"), at(1));
        assert_eq!(outbox.due(at(2)).1, Some(at(3)));
    }

    #[test]
    fn a_request_that_came_while_another_was_sent_is_sent_too() {
        let mut outbox = Outbox::default();
        outbox.put("c".into(), raise("a"), at(0));
        assert!(outbox.put("c".into(), settle(), at(0)));
        outbox.sent("c", &raise("a"));
        assert_eq!(due(&outbox, 0), [settle()]);
        outbox.failed("c", &raise("a"), at(0));
        assert_eq!(due(&outbox, 0), [settle()]);
    }

    #[test]
    fn what_another_replica_may_have_settled_since_is_not_sent() {
        let mut outbox = Outbox::default();
        outbox.begin("", Some(1));
        outbox.put("c".into(), raise("a"), at(0));
        outbox.begin("", Some(1));
        assert_eq!(due(&outbox, 0), [raise("a")], "the same term");
        outbox.keep(str::is_empty);
        assert_eq!(due(&outbox, 0), [raise("a")], "its rig is ours");
        outbox.keep(|_| false);
        assert_eq!(outbox.due(at(9999)), (vec![], None), "the shard was handed over");

        outbox.begin("", Some(1));
        assert!(outbox.put("c".into(), settle(), at(0)));
        outbox.sent("c", &settle());
        outbox.begin("", Some(2));
        assert!(outbox.put("c".into(), settle(), at(0)), "in another term it is sent once more");
    }
}
