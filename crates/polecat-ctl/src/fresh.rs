//! What we wrote and the watch has not shown yet: a decision never looks at less than its own
//! deeds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::{Resource, ResourceExt as _};
use parking_lot::Mutex;

/// A watch that has not shown a write after this long never will: the object has been deleted
/// meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

enum Known<K> {
    /// It is at least this new.
    Is(Arc<K>),
    /// It is gone.
    Gone,
}

/// Own writes by uid.
pub struct Fresh<K>(Mutex<HashMap<String, (Known<K>, Instant)>>);

impl<K> Default for Fresh<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Resource> Fresh<K> {
    /// Notes what the API server answered.
    pub fn note(&self, object: K) {
        if let Some(uid) = object.uid() {
            self.put(uid, Known::Is(Arc::new(object)));
        }
    }

    /// Notes that an object is gone.
    pub fn gone(&self, uid: &str) {
        self.put(uid.to_owned(), Known::Gone);
    }

    /// The watch has shown this version, or that it is gone: an own write that is no newer has
    /// served its time.
    pub fn seen(&self, shown: &K) {
        let Some(uid) = shown.uid() else { return };
        let mut map = self.0.lock();
        if matches!(map.get(&uid), Some((Known::Is(own), _)) if version(own.as_ref()) <= version(shown))
        {
            map.remove(&uid);
        }
    }

    fn put(&self, uid: String, known: Known<K>) {
        let mut map = self.0.lock();
        if map.len() > 4096 {
            map.retain(|_, (_, since)| since.elapsed() < PATIENCE);
        }
        map.insert(uid, (known, Instant::now()));
    }

    /// The newer of the cached object and our own write.
    pub fn newest(&self, cached: Arc<K>) -> Option<Arc<K>> {
        let Some(uid) = cached.uid() else { return Some(cached) };
        let mut map = self.0.lock();
        match map.get(&uid) {
            Some((Known::Gone, since)) if since.elapsed() < PATIENCE => None,
            Some((Known::Is(own), _)) if version(own.as_ref()) > version(cached.as_ref()) => {
                Some(own.clone())
            }
            Some(_) => {
                map.remove(&uid);
                Some(cached)
            }
            None => Some(cached),
        }
    }

    /// Own writes that the cache shows nothing of: objects that we made.
    pub fn unseen(
        &self,
        mut wanted: impl FnMut(&K) -> bool,
        seen: impl Fn(&str) -> bool,
    ) -> Vec<Arc<K>> {
        let map = self.0.lock();
        let fresh = map.iter().filter(|(uid, (_, since))| since.elapsed() < PATIENCE && !seen(uid));
        fresh
            .filter_map(|(_, (known, _))| match known {
                Known::Is(own) if wanted(own) => Some(own.clone()),
                _ => None,
            })
            .collect()
    }
}

/// Resource versions of one kind grow; the API promises it since 1.35 and etcd always did.
pub fn version<K: Resource>(object: &K) -> u64 {
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
    fn an_own_write_counts_until_the_watch_has_shown_it() {
        let fresh = Fresh::default();
        let unseen = |fresh: &Fresh<Lease>| fresh.unseen(|_| true, |_| false).len();
        fresh.note(lease("9"));
        fresh.seen(&lease("8"));
        assert_eq!(unseen(&fresh), 1, "the watch is behind");
        assert_eq!(fresh.newest(Arc::new(lease("8"))).map(|l| version(l.as_ref())), Some(9));
        fresh.seen(&lease("10"));
        assert_eq!(unseen(&fresh), 0, "shown, or shown as deleted");
        fresh.gone("u");
        fresh.seen(&lease("10"));
        assert!(fresh.newest(Arc::new(lease("10"))).is_none(), "what is gone stays gone");
    }
}
