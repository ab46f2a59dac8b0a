//! How often a status is written for details, such as counts.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kube::{Resource, ResourceExt as _};
use parking_lot::Mutex;

/// Details that changed are written after this time, with what changes meanwhile: most changes come
/// in groups.
const SETTLE: Duration = Duration::from_secs(2);
/// Details of an object are written at most this often.
const EVERY: Duration = Duration::from_secs(10);

/// When details of each object changed first since they were written, and when they were written,
/// by uid. What is older than any wait is forgotten.
#[derive(Debug)]
pub struct Pace {
    settle: Duration,
    every: Duration,
    objects: Mutex<HashMap<String, Times>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    changed: Option<Instant>,
    written: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(SETTLE, EVERY)
    }
}

impl Pace {
    /// Details are written `settle` after they changed, and not within `every` of the last write.
    pub fn new(settle: Duration, every: Duration) -> Self {
        Self { settle, every, objects: Mutex::default() }
    }

    /// Details of the object differ from what was written: how long to wait before they are
    /// written; none when they are due.
    pub fn wait<K: Resource>(&self, object: &K) -> Option<Duration> {
        let uid = object.uid()?;
        let now = Instant::now();
        let mut all = self.objects.lock();
        let times = all.entry(uid).or_default();
        // A change that was taken back leaves its time: it is no younger than the next one.
        let changed = *times.changed.get_or_insert(now);
        let settled = self.settle.saturating_sub(now.duration_since(changed));
        let spaced = times.written.map_or(Duration::ZERO, |written| {
            self.every.saturating_sub(now.duration_since(written))
        });
        Some(settled.max(spaced)).filter(|wait| !wait.is_zero())
    }

    /// The object was written just now, with all details.
    pub fn wrote<K: Resource>(&self, object: &K) {
        let now = Instant::now();
        let longest = self.settle.max(self.every);
        let is_recent = |time: Instant| now.duration_since(time) < longest;
        let mut all = self.objects.lock();
        all.retain(|_, t| t.written.is_some_and(is_recent) || t.changed.is_some_and(is_recent));
        all.extend(object.uid().map(|uid| (uid, Times { changed: None, written: Some(now) })));
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn object(uid: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.uid = Some(uid.into());
        object
    }

    #[test]
    fn only_an_object_that_was_just_written_waits() {
        let spaced = Pace::new(Duration::ZERO, HOUR);
        assert_eq!(spaced.wait(&object("u")), None);
        spaced.wrote(&object("u"));
        assert!(spaced.wait(&object("u")).is_some_and(|wait| wait <= HOUR));
        assert_eq!(spaced.wait(&object("v")), None);
    }

    #[test]
    fn a_change_settles_from_its_first_sight_until_it_is_written() {
        let settling = Pace::new(HOUR, Duration::ZERO);
        let first = settling.wait(&object("u")).unwrap();
        assert!(settling.wait(&object("u")).unwrap() <= first);
        settling.wrote(&object("u"));
        assert!(settling.wait(&object("u")).is_some(), "the next change settles as well");
        let fast = Pace::new(Duration::ZERO, Duration::ZERO);
        fast.wrote(&object("u"));
        assert_eq!(fast.wait(&object("u")), None);
    }
}
