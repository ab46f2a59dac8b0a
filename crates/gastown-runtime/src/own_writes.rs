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

enum Write<K> {
    /// The object as the API server returned it.
    Object(Arc<K>),
    /// The object was deleted.
    Deleted,
}

/// This process's newest write of each object, by uid.
pub struct OwnWrites<K>(Mutex<HashMap<String, (Write<K>, Instant)>>);

impl<K> Default for OwnWrites<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Resource> OwnWrites<K> {
    /// Records an object as the API server returned it from a write.
    pub fn record(&self, object: K) {
        if let Some(uid) = object.uid() {
            self.put(uid, Write::Object(Arc::new(object)));
        }
    }

    /// Records that the object of this uid was deleted.
    pub fn record_deleted(&self, uid: &str) {
        self.put(uid.to_owned(), Write::Deleted);
    }

    /// The watch has delivered this version, or its deletion: an own write that is no newer is
    /// forgotten.
    pub fn observe(&self, shown: &K) {
        let Some(uid) = shown.uid() else { return };
        let mut map = self.0.lock();
        if matches!(map.get(&uid), Some((Write::Object(own), _)) if resource_version(own.as_ref()) <= resource_version(shown))
        {
            map.remove(&uid);
        }
    }

    fn put(&self, uid: String, write: Write<K>) {
        let mut map = self.0.lock();
        if map.len() > 4096 {
            map.retain(|_, (_, since)| since.elapsed() < EXPIRY);
        }
        map.insert(uid, (write, Instant::now()));
    }

    /// The newer of the cached object and our own write of it; none when we deleted it.
    pub fn newest(&self, cached: Arc<K>) -> Option<Arc<K>> {
        let Some(uid) = cached.uid() else { return Some(cached) };
        let mut map = self.0.lock();
        match map.get(&uid) {
            Some((Write::Deleted, since)) if since.elapsed() < EXPIRY => None,
            Some((Write::Object(own), _))
                if resource_version(own.as_ref()) > resource_version(cached.as_ref()) =>
            {
                Some(own.clone())
            }
            Some(_) => {
                map.remove(&uid);
                Some(cached)
            }
            None => Some(cached),
        }
    }

    /// Objects that we created and the cache does not hold yet: those that are `wanted`, except the
    /// uids that the cache has `seen`.
    pub fn unseen(
        &self,
        mut wanted: impl FnMut(&K) -> bool,
        seen: impl Fn(&str) -> bool,
    ) -> Vec<Arc<K>> {
        let map = self.0.lock();
        let own = map.iter().filter(|(uid, (_, since))| since.elapsed() < EXPIRY && !seen(uid));
        own.filter_map(|(_, (write, _))| match write {
            Write::Object(own) if wanted(own) => Some(own.clone()),
            _ => None,
        })
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
}
