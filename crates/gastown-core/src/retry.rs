//! When a failed attempt or request may be made again, and what became of a request. Pure; delays
//! are in seconds.

use gastown_types::digest;
use jiff::{SignedDuration, Timestamp};

/// The delay before respawn number `respawn` (from 1): 30 s, doubling to ten minutes.
pub fn respawn_delay(respawn: u32) -> i64 {
    30_i64.saturating_mul(1 << respawn.saturating_sub(1).min(10)).min(600)
}

/// The delay before the same attempt is made again because something outside is missing: 5 s,
/// doubling to a minute. `wait` counts from 1.
pub fn wait_delay(wait: u32) -> i64 {
    5_i64.saturating_mul(1 << wait.saturating_sub(1).min(10)).min(60)
}

/// When a service that asked to wait is asked again, in seconds since 1970: at the time that it
/// named, as the agent claims, but at most six hours after `now`, and not before a delay of 30 s
/// that doubles to half an hour. `wait` counts from 1. Up to a quarter of the time is added, as
/// `uid` has it, so that those who wait together do not come together.
pub fn service_wait_until(now: i64, claimed: Option<i64>, wait: u32, uid: &str) -> i64 {
    let delay = 30_i64.saturating_mul(1 << wait.saturating_sub(1).min(10)).min(1800);
    let claimed = claimed.map_or(0, |t| t.saturating_sub(now)).min(6 * 3600);
    let delay = delay.max(claimed);
    now.saturating_add(delay).saturating_add(spread(uid, wait, (delay / 4).min(600)))
}

/// A number from 0 to `most` that is always the same for a uid and a count.
pub fn spread(uid: &str, count: u32, most: i64) -> i64 {
    let digest = digest::short_digest(&[uid, &count.to_string()], 8);
    let number = i64::from_str_radix(&digest, 16).unwrap_or(0);
    number % most.saturating_add(1).max(1)
}

/// The delay before a request to another service is sent again: 1 s, doubling to 30 s. `failure`
/// counts from 1.
pub fn request_delay(failure: u32) -> i64 {
    (1_i64 << failure.saturating_sub(1).min(5)).min(30)
}

/// What became of sending a request to another service, as far as this process remembers. Losing
/// it costs a repeated request, so requests must be safe to repeat.
///
/// `Q` is the request, `A` the answer that acknowledged it, `E` why it failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Delivery<Q, A = (), E = ()> {
    /// No request was sent.
    #[default]
    Untried,
    /// The last request was acknowledged.
    Acknowledged {
        /// The request.
        request: Q,
        /// The answer.
        answer: A,
    },
    /// The last request failed.
    Failed {
        /// The request.
        request: Q,
        /// Why it failed.
        error: E,
        /// How often in a row this request failed, from 1.
        tries: u32,
        /// It is not sent again before this time.
        until: Timestamp,
    },
}

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due<'a, A, E> {
    /// Send it now.
    Now,
    /// Send it again at this time; this is why it failed.
    Later(Timestamp, &'a E),
    /// Nothing: it was acknowledged with this answer.
    Acknowledged(&'a A),
}

impl<Q: PartialEq, A, E> Delivery<Q, A, E> {
    /// What to do about `request` at `now`. Another request than the last one is sent at once.
    pub fn due(&self, now: Timestamp, request: &Q) -> Due<'_, A, E> {
        match self {
            Self::Acknowledged { request: sent, answer } if sent == request => {
                Due::Acknowledged(answer)
            }
            Self::Failed { request: sent, error, until, .. } if sent == request && *until > now => {
                Due::Later(*until, error)
            }
            _ => Due::Now,
        }
    }

    /// How often in a row `request` failed.
    pub fn tries(&self, request: &Q) -> u32 {
        match self {
            Self::Failed { request: sent, tries, .. } if sent == request => *tries,
            _ => 0,
        }
    }

    /// `request` was acknowledged.
    pub fn acknowledge(&mut self, request: Q, answer: A) {
        *self = Self::Acknowledged { request, answer };
    }

    /// `request` failed: it is sent again after `delay` seconds, given how often it has failed in a
    /// row (from 1).
    pub fn fail(&mut self, now: Timestamp, request: Q, error: E, delay: impl FnOnce(u32) -> i64) {
        let tries = self.tries(&request).saturating_add(1);
        *self = Self::Failed { request, error, tries, until: after(now, delay(tries)) };
    }

    /// `request` was refused, and sending it again soon would not help: it counts as at least
    /// `tries` failures, and is sent again after `delay` seconds.
    pub fn refuse(&mut self, now: Timestamp, request: Q, error: E, tries: u32, delay: i64) {
        let tries = self.tries(&request).saturating_add(1).max(tries);
        *self = Self::Failed { request, error, tries, until: after(now, delay) };
    }
}

fn after(now: Timestamp, seconds: i64) -> Timestamp {
    now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn delays_double_up_to_their_bounds() {
        assert_eq!(
            (1..=7).map(respawn_delay).collect::<Vec<_>>(),
            [30, 60, 120, 240, 480, 600, 600]
        );
        assert_eq!((1..=6).map(wait_delay).collect::<Vec<_>>(), [5, 10, 20, 40, 60, 60]);
        assert_eq!((1..=7).map(request_delay).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(
            [respawn_delay(0), respawn_delay(u32::MAX), wait_delay(u32::MAX)],
            [30, 600, 60]
        );
    }

    #[test]
    fn a_busy_service_is_asked_again_when_it_stated_but_later_each_time_and_not_by_all_at_once() {
        let wait = |claimed, n, uid: &str| service_wait_until(1000, claimed, n, uid) - 1000;
        for (claimed, n, least) in [
            (None, 1, 30),
            (None, 3, 120),
            (None, 99, 1800),
            (Some(i64::MIN), 1, 30),
            (Some(i64::MAX), 1, 6 * 3600),
            (Some(5000), 1, 4000),
            (Some(1001), 5, 480),
        ] {
            let all: Vec<i64> = (0..50).map(|u| wait(claimed, n, &format!("uid-{u}"))).collect();
            let most = least + (least / 4).min(600);
            assert!(all.iter().all(|w| (least..=most).contains(w)), "{least}: {all:?}");
            let different: std::collections::BTreeSet<_> = all.iter().collect();
            assert!(different.len() > 5, "{all:?}");
            assert_eq!(wait(claimed, n, "uid-1"), wait(claimed, n, "uid-1"));
        }
    }

    #[test]
    fn a_failed_request_is_sent_again_after_its_delay_until_it_is_acknowledged() {
        let mut delivery = Delivery::<&str, u8, &str>::default();
        assert_eq!(delivery.due(at(0), &"a"), Due::Now);
        delivery.fail(at(0), "a", "down", request_delay);
        assert_eq!(delivery.due(at(0), &"a"), Due::Later(at(1), &"down"));
        assert_eq!(delivery.due(at(1), &"a"), Due::Now);
        delivery.fail(at(1), "a", "still down", request_delay);
        assert_eq!(
            (delivery.tries(&"a"), delivery.due(at(2), &"a")),
            (2, Due::Later(at(3), &"still down"))
        );
        delivery.acknowledge("a", 7);
        assert_eq!((delivery.tries(&"a"), delivery.due(at(2), &"a")), (0, Due::Acknowledged(&7)));
    }

    #[test]
    fn another_request_is_sent_at_once_and_counted_anew() {
        let mut delivery = Delivery::<&str>::default();
        delivery.fail(at(0), "a", (), request_delay);
        delivery.fail(at(0), "a", (), request_delay);
        assert_eq!((delivery.tries(&"b"), delivery.due(at(0), &"b")), (0, Due::Now));
        delivery.fail(at(0), "b", (), request_delay);
        assert_eq!((delivery.tries(&"b"), delivery.tries(&"a")), (1, 0));
        delivery.acknowledge("a", ());
        assert_eq!(delivery.due(at(0), &"b"), Due::Now);
    }

    #[test]
    fn a_refused_request_counts_as_many_failures_and_waits_long() {
        let mut delivery = Delivery::<&str>::default();
        delivery.refuse(at(0), "a", (), 3, 600);
        assert_eq!(
            (delivery.tries(&"a"), delivery.due(at(0), &"a")),
            (3, Due::Later(at(600), &()))
        );
        delivery.refuse(at(600), "a", (), 3, 600);
        assert_eq!(delivery.tries(&"a"), 4);
        delivery.fail(at(0), "a", (), |_| i64::MAX);
        assert_eq!(
            delivery.due(at(0), &"a"),
            Due::Now,
            "a time that cannot be represented is not a delay"
        );
    }
}
