//! What models' services have asked for: Polecats that use one account wait together.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// What one Polecat's agent reports makes others wait for at most this long after it was first
/// seen: the agent could have made it up.
const MAX_SHARED: SignedDuration = SignedDuration::from_mins(5);

#[derive(Clone, Debug)]
struct Wait {
    /// The Polecat that was asked to wait, by uid.
    polecat: String,
    /// Until when.
    claimed: Timestamp,
    /// Until when others wait too.
    until: Timestamp,
}

/// Waits by account. Losing them costs one attempt each to ask a busy service.
#[derive(Debug, Default)]
pub(crate) struct BusyServices(Mutex<HashMap<String, Wait>>);

impl BusyServices {
    /// The service of `account` has asked `polecat` to wait until `claimed`.
    pub(crate) fn report(&self, now: Timestamp, account: &str, polecat: &str, claimed: Timestamp) {
        let mut all = self.0.lock();
        all.retain(|_, wait| wait.claimed > now);
        let known = all.get(account).is_some_and(|w| w.polecat == polecat && w.claimed == claimed);
        if claimed > now && !known {
            let until = now.checked_add(MAX_SHARED).unwrap_or(now).min(claimed);
            let wait = Wait { polecat: polecat.to_owned(), claimed, until };
            all.insert(account.to_owned(), wait);
        }
    }

    /// Until when `polecat` has to wait because the service asked another one of its account.
    pub(crate) fn wait(&self, now: Timestamp, account: &str, polecat: &str) -> Option<Timestamp> {
        let all = self.0.lock();
        let wait = all.get(account).filter(|w| w.polecat != polecat)?;
        Some(wait.until).filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn others_of_the_account_wait_too_and_never_long_on_one_polecats_word() {
        let busy = BusyServices::default();
        busy.report(at(0), "dev key", "a", at(60));
        assert_eq!(busy.wait(at(1), "dev key", "b"), Some(at(60)));
        assert_eq!(busy.wait(at(1), "dev key", "a"), None, "it has its own time");
        assert_eq!(busy.wait(at(1), "ops key", "b"), None);
        assert_eq!(busy.wait(at(60), "dev key", "b"), None);
        busy.report(at(100), "dev key", "a", at(10_000));
        for second in [100, 200, 399] {
            busy.report(at(second), "dev key", "a", at(10_000));
            assert_eq!(busy.wait(at(second), "dev key", "b"), Some(at(400)));
        }
        busy.report(at(400), "dev key", "a", at(10_000));
        assert_eq!(busy.wait(at(400), "dev key", "b"), None);
    }
}
