//! When this process first saw a pod in a state, by its own monotonic clock. The clocks of nodes and
//! of the API server may be wrong, and are not compared with ours.

use std::collections::HashMap;
use std::time::Instant;

use gastown_core::polecat::Seen;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// What a look at a pod shows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    /// Its agent's container runs.
    pub running: bool,
    /// It is drained.
    pub drained: bool,
    /// Its agent has not started and `git-init` does not run.
    pub stalled: bool,
    /// It is being deleted.
    pub deleted: bool,
    /// What its sidecar's readiness states, while that runs.
    pub saved: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default)]
struct First {
    running: Option<Instant>,
    drained: Option<Instant>,
    stalled: Option<Instant>,
    deleted: Option<Instant>,
    saved: Option<bool>,
}

/// First looks by the pod's uid. After a restart all times begin anew, so that what is judged by
/// them is judged later, never earlier.
#[derive(Debug, Default)]
pub(crate) struct Sightings(Mutex<HashMap<String, First>>);

impl Sightings {
    /// Records a look at a pod. Returns when each state was first seen, and when the deletion was,
    /// as times before `now`.
    pub(crate) fn look(&self, now: Timestamp, uid: &str, look: Look) -> (Seen, Option<Timestamp>) {
        let this = Instant::now();
        let mut all = self.0.lock();
        let first = all.entry(uid.to_owned()).or_default();
        let since = |first: &mut Option<Instant>, holds: bool| {
            *first = holds.then(|| first.unwrap_or(this));
            first.map(|then| {
                let ago = SignedDuration::try_from(this.duration_since(then));
                ago.ok().and_then(|ago| now.checked_sub(ago).ok()).unwrap_or(now)
            })
        };
        first.saved = look.saved.or(first.saved);
        let seen = Seen {
            running: since(&mut first.running, look.running),
            drained: since(&mut first.drained, look.drained),
            stalled: since(&mut first.stalled, look.stalled),
            saved: first.saved,
        };
        let deleted = since(&mut first.deleted, look.deleted);
        (seen, deleted)
    }

    /// The pod is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_seen_from_its_first_look_until_it_ends() {
        let sightings = Sightings::default();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let stalled = Look { stalled: true, saved: Some(true), ..Look::default() };
        let first = sightings.look(now, "pod", stalled).0.stalled.unwrap();
        assert_eq!(first, now);
        // the wall clock jumps ahead by an hour, and the state is no older for it
        let later = now + SignedDuration::from_hours(1);
        let (seen, deleted) = sightings.look(later, "pod", stalled);
        assert!(later.duration_since(seen.stalled.unwrap()) < SignedDuration::from_mins(1));
        assert_eq!((seen.running, deleted), (None, None));
        let (seen, _) = sightings.look(later, "pod", Look { running: true, ..Look::default() });
        assert_eq!((seen.stalled, seen.saved), (None, Some(true)), "{seen:?}");
        sightings.forget("pod");
        assert_eq!(sightings.look(later, "pod", Look::default()).0, Seen::default());
    }
}
