//! Read-your-writes over a watch cache: objects that this process has written and the watch has not
//! delivered yet, so that no decision is made without them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::{Resource, ResourceExt as _};
use parking_lot::Mutex;

/// A watch that has not delivered a write after this long never will: the object was deleted
/// meanwhile.
const EXPIRY: Duration = Duration::from_secs(60);

/// What is known of so many objects is not looked through.
const FEW: usize = 1024;

/// This process's newest write of each object, by uid.
pub struct OwnWrites<K>(Mutex<Known<K>>);

struct Known<K> {
    /// Objects as the API server returned them.
    written: Recent<Arc<K>>,
    /// Objects that were deleted.
    deleted: Recent<()>,
    /// The versions that the API server answered with, whether or not the watch has delivered them.
    answered: Recent<u64>,
    /// The versions that the watch has delivered lately, the last ones of deleted objects included: an
    /// answer to a write may come after that. By object: one without the labels of the watch is never
    /// delivered, however new the others are.
    delivered: Recent<u64>,
}

impl<K> Default for OwnWrites<K> {
    fn default() -> Self {
        let (written, deleted, answered, delivered) = Default::default();
        Self(Mutex::new(Known { written, deleted, answered, delivered }))
    }
}

/// What is known of objects, by uid, and since when.
struct Recent<T> {
    known: HashMap<String, (T, Instant)>,
    /// What is too old to matter is forgotten when there is this much: each time twice of what is left,
    /// so that a crowd does not go through all of it for each object.
    limit: usize,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { known: HashMap::new(), limit: FEW }
    }
}

impl<T> Recent<T> {
    fn insert(&mut self, uid: String, value: T) {
        self.known.insert(uid, (value, Instant::now()));
        if self.known.len() > self.limit {
            self.known.retain(|_, (_, since)| since.elapsed() < EXPIRY);
            self.known.shrink_to_fit();
            self.limit = FEW.max(2 * self.known.len());
        }
    }

    fn get(&self, uid: &str) -> Option<&T> {
        self.known.get(uid).map(|(value, _)| value)
    }
}

impl<K: Resource> OwnWrites<K> {
    /// Records an object as the API server returned it from a write. One that the watch has delivered
    /// before the answer came, or that is older than another write, is not needed.
    pub fn record(&self, mut object: K) {
        let Some(uid) = object.uid() else { return };
        // Watches have none either.
        object.meta_mut().managed_fields = None;
        let version = resource_version(&object);
        let mut known = self.0.lock();
        known.answered.insert(uid.clone(), version);
        let is_delivered = known.delivered.get(&uid).is_some_and(|seen| *seen >= version);
        let is_outdated = known.deleted.get(&uid).is_some()
            || known.written.get(&uid).is_some_and(|own| resource_version(own.as_ref()) > version);
        if !is_delivered && !is_outdated {
            known.written.insert(uid, Arc::new(object));
        }
    }

    /// Records that the object of this uid was deleted.
    pub fn record_deleted(&self, uid: &str) {
        let mut known = self.0.lock();
        known.written.known.remove(uid);
        known.deleted.insert(uid.to_owned(), ());
    }

    /// The watch has delivered this version, or its deletion: an own write that is no newer is
    /// forgotten.
    pub fn observe(&self, shown: &K) {
        let Some(uid) = shown.uid() else { return };
        let version = resource_version(shown);
        let mut known = self.0.lock();
        if known.written.get(&uid).is_some_and(|own| resource_version(own.as_ref()) <= version) {
            known.written.known.remove(&uid);
        }
        known.delivered.insert(uid, version);
    }

    /// A list that was requested after `began`, of the newest versions, is complete, and what it holds is
    /// observed: what was written before and is not in it was deleted.
    pub fn listed(&self, began: Instant) {
        self.0.lock().written.known.retain(|_, (_, since)| *since > began);
    }

    /// The newer of the cached object and our own write of it; none when we deleted it. A write that
    /// is given in place of the cached object stays: the cache may be behind it.
    pub fn newest(&self, cached: Arc<K>) -> Option<Arc<K>> {
        let Some(uid) = cached.uid() else { return Some(cached) };
        let mut known = self.0.lock();
        if let Some(((), since)) = known.deleted.known.get(&uid) {
            if since.elapsed() < EXPIRY {
                return None;
            }
            known.deleted.known.remove(&uid);
        }
        let Some(own) = known.written.get(&uid) else { return Some(cached) };
        let is_newer = resource_version(own.as_ref()) > resource_version(cached.as_ref());
        if is_newer || Arc::ptr_eq(own, &cached) {
            return Some(own.clone());
        }
        known.written.known.remove(&uid);
        Some(cached)
    }

    /// Whether the API server answered a write or a read of this process with this version of an object
    /// less than `age` ago.
    pub fn is_answered(&self, object: &K, age: Duration) -> bool {
        let uid = object.meta().uid.as_deref().unwrap_or_default();
        let known = self.0.lock();
        let answered = known.answered.known.get(uid);
        answered.is_some_and(|(version, since)| {
            since.elapsed() < age && *version == resource_version(object)
        })
    }

    /// Objects that we created and the cache does not hold yet: those that are `wanted`, except the
    /// uids that the cache has `seen`.
    pub fn unseen(
        &self,
        mut wanted: impl FnMut(&K) -> bool,
        seen: impl Fn(&str) -> bool,
    ) -> Vec<Arc<K>> {
        let known = self.0.lock();
        let own = known.written.known.iter();
        own.filter(|(uid, (own, since))| since.elapsed() < EXPIRY && wanted(own) && !seen(uid))
            .map(|(_, (own, _))| own.clone())
            .collect()
    }
}

/// An object's resource version as a number, 0 where there is none: those of one kind grow. The API
/// promises it since 1.35, and etcd always did.
pub fn resource_version<K: Resource>(object: &K) -> u64 {
    object.resource_version().and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::Lease;

    use super::*;

    fn lease(version: &str) -> Lease {
        let mut lease = Lease::default();
        (lease.metadata.uid, lease.metadata.resource_version) =
            (Some("u".into()), Some(version.into()));
        lease
    }

    #[test]
    fn an_own_write_counts_until_the_watch_has_delivered_it() {
        let own = OwnWrites::default();
        let unseen = |own: &OwnWrites<Lease>| own.unseen(|_| true, |_| false).len();
        own.record(lease("9"));
        own.observe(&lease("8"));
        assert_eq!(unseen(&own), 1, "the watch is behind");
        assert_eq!(own.newest(Arc::new(lease("8"))).map(|l| resource_version(l.as_ref())), Some(9));
        own.observe(&lease("10"));
        assert_eq!(unseen(&own), 0, "delivered, or delivered as deleted");
        own.record_deleted("u");
        own.observe(&lease("10"));
        assert!(own.newest(Arc::new(lease("10"))).is_none(), "a deleted object stays deleted");
    }

    #[test]
    fn an_own_write_is_kept_as_a_watch_keeps_it_wherever_it_comes_from() {
        let own = OwnWrites::default();
        let mut written = lease("9");
        written.metadata.managed_fields = Some(Vec::new());
        own.record(written);
        assert_eq!(own.newest(Arc::new(lease("8"))).as_deref(), Some(&lease("9")));
    }

    #[test]
    fn looking_twice_does_not_forget_a_write_that_the_cache_has_not() {
        let own = OwnWrites::default();
        own.record(lease("9"));
        let newest = own.newest(Arc::new(lease("8"))).and_then(|first| own.newest(first));
        assert_eq!(newest.map(|l| resource_version(l.as_ref())), Some(9));
        let later = own.newest(Arc::new(lease("8")));
        assert_eq!(later.map(|l| resource_version(l.as_ref())), Some(9), "the cache is behind");
        own.newest(Arc::new(lease("9")));
        assert!(own.unseen(|_| true, |_| false).is_empty(), "the cache has it");
    }

    #[test]
    fn what_was_answered_just_now_is_known_also_when_the_watch_has_delivered_it() {
        let own = OwnWrites::default();
        own.record(lease("9"));
        own.observe(&lease("9"));
        assert!(own.is_answered(&lease("9"), EXPIRY));
        assert!(!own.is_answered(&lease("10"), EXPIRY), "somebody else has written since");
        assert!(!own.is_answered(&lease("9"), Duration::ZERO), "it is too long ago");
    }

    #[test]
    fn what_a_later_list_does_not_hold_was_deleted() {
        let own = OwnWrites::default();
        let before = Instant::now();
        own.record(lease("9"));
        own.listed(before);
        assert_eq!(own.unseen(|_| true, |_| false).len(), 1, "the list may be older");
        own.listed(Instant::now());
        assert!(own.unseen(|_| true, |_| false).is_empty());
    }

    #[test]
    fn an_answer_that_comes_after_the_watch_or_after_a_newer_one_is_not_needed() {
        let own = OwnWrites::default();
        // The watch has delivered the object and its deletion while the answer was under way.
        own.observe(&lease("10"));
        own.record(lease("9"));
        assert!(own.unseen(|_| true, |_| false).is_empty(), "it was deleted");
        own.record(lease("12"));
        own.record(lease("11"));
        let newest = own.newest(Arc::new(lease("10")));
        assert_eq!(newest.map(|l| resource_version(l.as_ref())), Some(12));
    }
}
