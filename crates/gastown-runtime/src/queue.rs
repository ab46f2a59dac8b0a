//! Which objects to reconcile, and when. Pure: times are given.
//!
//! An object is reconciled once at a time, and once for all its changes that came before its turn.
//! After a failure it waits for its back-off, which changes of other objects do not shorten: a
//! change of the object itself does.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// What a person changes of an object to have it tried again at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// `metadata.generation`: it grows with the spec.
    pub generation: Option<i64>,
    /// Its deletion has begun.
    pub deleting: bool,
    /// The annotation `gastown.io/retry`.
    pub retry: Option<String>,
}

/// How a reconcile ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Well, or with a wait that changes may end: again after this time.
    Well(Option<Duration>),
    /// With an error: again after this time. With a mark, nothing but another mark ends the wait.
    Failed(Duration, Option<Mark>),
}

/// Where in the order an object is: the time when it is due, and a number that keeps those of the
/// same time in their order.
type Place = (Instant, u64);

#[derive(Debug, Default)]
struct Entry {
    /// When it is to be reconciled next.
    at: Option<Place>,
    running: bool,
    /// Its mark at its last change while it ran.
    marked: Option<Mark>,
    /// It is not reconciled before, unless its mark differs.
    held: Option<(Instant, Mark)>,
    /// How many reconciles have failed in a row.
    failures: u32,
}

/// The queue of one controller.
#[derive(Debug)]
pub(crate) struct Queue<Key> {
    entries: HashMap<Key, Entry>,
    /// The objects that do not run, by the time when they are due.
    due: BTreeMap<Place, Key>,
    /// The number of the next place.
    number: u64,
}

impl<Key> Default for Queue<Key> {
    fn default() -> Self {
        Self { entries: HashMap::new(), due: BTreeMap::new(), number: 0 }
    }
}

impl<Key: Clone + Debug + Eq + Hash> Queue<Key> {
    /// Something about the object has changed: it is due at this time, or earlier if it was, or when its
    /// back-off ends.
    pub(crate) fn changed(&mut self, key: &Key, mark: impl FnOnce() -> Mark, due: Instant) {
        let at = match self.entries.get_mut(key) {
            Some(entry) if entry.running => {
                entry.marked = Some(mark());
                due
            }
            Some(Entry { held: Some((until, held)), .. }) if *held == mark() => due.max(*until),
            _ => due,
        };
        self.schedule(key, at);
    }

    fn schedule(&mut self, key: &Key, at: Instant) {
        let place = (at, self.number);
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.at.is_some_and(|earlier| earlier.0 <= at) {
            return;
        }
        self.number += 1;
        let before = entry.at.replace(place);
        if !entry.running {
            if let Some(before) = before {
                self.due.remove(&before);
            }
            self.due.insert(place, key.clone());
        }
    }

    /// Takes the object that has been due for longest; it runs until [`Queue::ended`] or
    /// [`Queue::forget`].
    pub(crate) fn take(&mut self, now: Instant) -> Option<Key> {
        let first = self.due.first_entry().filter(|first| first.key().0 <= now)?;
        let key = first.remove();
        if let Some(entry) = self.entries.get_mut(&key) {
            (entry.at, entry.running) = (None, true);
        }
        Some(key)
    }

    /// When the next object is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many reconciles of the object have failed in a row.
    pub(crate) fn failures(&self, key: &Key) -> u32 {
        self.entries.get(key).map_or(0, |entry| entry.failures)
    }

    /// A reconcile has ended.
    pub(crate) fn ended(&mut self, key: &Key, ended: Ended, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.running = false;
        // What came while it ran is due as if it came now.
        let changed = entry.at.take().map(|(at, _)| at);
        let (again, held) = match ended {
            Ended::Well(again) => {
                entry.failures = 0;
                (again.map(|after| now + after), None)
            }
            Ended::Failed(after, mark) => {
                entry.failures = entry.failures.saturating_add(1);
                (Some(now + after), mark.map(|mark| (now + after, mark)))
            }
        };
        let marked = entry.marked.take();
        let changed = match &held {
            Some((until, failed)) if marked.is_none_or(|mark| mark == *failed) => {
                changed.map(|at| at.max(*until))
            }
            _ => changed,
        };
        entry.held = held;
        match [again, changed].into_iter().flatten().min() {
            Some(at) => self.schedule(key, at),
            None => {
                self.entries.remove(key);
            }
        }
    }

    /// The object, which was taken, does not exist any more.
    pub(crate) fn forget(&mut self, key: &Key) {
        if let Some(place) = self.entries.remove(key).and_then(|entry| entry.at) {
            self.due.remove(&place);
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
