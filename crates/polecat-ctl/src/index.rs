//! Which objects belong to which uid. Filled by a watch; the store says what is still there.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;

/// References by owner.
pub struct Index<K: Resource<DynamicType = ()>>(Arc<Mutex<HashMap<String, HashSet<ObjectRef<K>>>>>);

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
    /// Notes that an object belongs to an owner.
    pub fn note(&self, owner: &str, object: &K) {
        self.0.lock().entry(owner.to_owned()).or_default().insert(ObjectRef::from_obj(object));
    }

    /// What the store has of an owner's objects; forgets the rest.
    pub fn of(&self, owner: &str, store: &Store<K>) -> Vec<Arc<K>> {
        let mut map = self.0.lock();
        let Some(references) = map.get_mut(owner) else { return Vec::new() };
        let mut found = Vec::with_capacity(references.len());
        references.retain(|r| {
            store.get(r).is_some_and(|object| {
                found.push(object);
                true
            })
        });
        if references.is_empty() {
            map.remove(owner);
        }
        found
    }
}
