//! Which objects belong to which key. A watch fills it; the store decides what still exists.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;

/// References by key. Clones share.
pub(crate) struct Index<K: Resource<DynamicType = ()>>(
    Arc<Mutex<HashMap<String, HashSet<ObjectRef<K>>>>>,
);

impl<K: Resource<DynamicType = ()>> Default for Index<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Resource<DynamicType = ()>> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Index<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
    ObjectRef<K>: Hash + Eq,
{
    /// Adds an object under a key.
    pub(crate) fn add(&self, key: &str, object: &K) {
        self.0.lock().entry(key.to_owned()).or_default().insert(ObjectRef::from_obj(object));
    }

    /// The objects of a key that the store has; the others are removed.
    pub(crate) fn of(&self, key: &str, store: &Store<K>) -> Vec<Arc<K>> {
        let mut map = self.0.lock();
        let Some(references) = map.get_mut(key) else { return Vec::new() };
        let mut found = Vec::with_capacity(references.len());
        references.retain(|r| {
            store.get(r).is_some_and(|object| {
                found.push(object);
                true
            })
        });
        if references.is_empty() {
            map.remove(key);
        }
        found
    }
}
