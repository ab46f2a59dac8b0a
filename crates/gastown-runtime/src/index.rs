//! Which objects of a watch belong to a key: to look at those of one rig, bead or owner without going
//! through all the others.

use std::collections::HashMap;
use std::sync::Arc;

use kube::Resource;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;

/// The objects of one key, by uid.
type Group<K> = HashMap<String, Arc<K>>;

/// Objects by key. A watch keeps it up to date: it holds what the watch's store holds. Clones share.
pub struct Index<K>(Arc<Mutex<HashMap<String, Group<K>>>>);

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Resource> Index<K> {
    /// The objects of a key, in no order.
    pub fn of(&self, key: &str) -> Vec<Arc<K>> {
        self.0.lock().get(key).map(|group| group.values().cloned().collect()).unwrap_or_default()
    }

    /// The objects of a key that are `wanted`, in no order.
    pub fn filter(&self, key: &str, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let all = self.0.lock();
        let group = all.get(key).into_iter().flat_map(HashMap::values);
        group.filter(|object| wanted(object)).cloned().collect()
    }

    /// The first object of a key that is `wanted`, in no order.
    pub fn find(&self, key: &str, wanted: impl Fn(&K) -> bool) -> Option<Arc<K>> {
        let all = self.0.lock();
        all.get(key)?.values().find(|object| wanted(object)).cloned()
    }

    /// References to the objects of a key, in no order.
    pub fn references(&self, key: &str) -> Vec<ObjectRef<K>>
    where
        K: Resource<DynamicType = ()>,
    {
        let all = self.0.lock();
        let group = all.get(key).into_iter().flat_map(HashMap::values);
        group.map(|object| ObjectRef::from_obj(object.as_ref())).collect()
    }

    /// How many objects a key has.
    pub fn count(&self, key: &str) -> usize {
        self.0.lock().get(key).map_or(0, HashMap::len)
    }

    /// Puts an object under its keys, in place of the one `before`, which had others.
    pub(crate) fn replace(
        &self,
        before: Option<(&[String], &K)>,
        now: Option<(&[String], &Arc<K>)>,
    ) {
        let mut all = self.0.lock();
        if let Some((keys, object)) = before {
            let uid = object.meta().uid.as_deref().unwrap_or_default();
            for key in keys {
                remove(&mut all, key, uid);
            }
        }
        if let Some((keys, object)) = now {
            for key in keys {
                insert(&mut all, key, object);
            }
        }
    }

    /// Holds these objects and no others.
    pub(crate) fn fill<'a>(&self, objects: impl Iterator<Item = (Vec<String>, &'a Arc<K>)>)
    where
        K: 'a,
    {
        let mut all = HashMap::new();
        for (keys, object) in objects {
            for key in keys {
                insert(&mut all, &key, object);
            }
        }
        *self.0.lock() = all;
    }
}

fn insert<K: Resource>(all: &mut HashMap<String, Group<K>>, key: &str, object: &Arc<K>) {
    let uid = object.meta().uid.clone().unwrap_or_default();
    match all.get_mut(key) {
        Some(group) => drop(group.insert(uid, object.clone())),
        None => drop(all.insert(key.to_owned(), HashMap::from([(uid, object.clone())]))),
    }
}

fn remove<K>(all: &mut HashMap<String, Group<K>>, key: &str, uid: &str) {
    if let Some(group) = all.get_mut(key) {
        group.remove(uid);
        if group.is_empty() {
            all.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::ResourceExt as _;

    use super::*;

    fn pod(uid: &str, name: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        (pod.metadata.uid, pod.metadata.name) = (Some(uid.into()), Some(name.into()));
        Arc::new(pod)
    }

    fn uids(index: &Index<Pod>, key: &str) -> Vec<String> {
        let mut uids: Vec<_> = index.of(key).iter().filter_map(|pod| pod.uid()).collect();
        uids.sort();
        uids
    }

    #[test]
    fn an_object_is_under_the_keys_that_it_has_now() {
        let (index, keys) = (Index::default(), |key: &str| vec![key.to_owned()]);
        let (first, again) = (pod("1", "a"), pod("2", "a"));
        index.replace(None, Some((&keys("web"), &first)));
        index.replace(Some((&keys("web"), &first)), Some((&keys("app"), &first)));
        assert_eq!((uids(&index, "web"), uids(&index, "app")), (vec![], vec!["1".to_owned()]));
        index.replace(Some((&keys("app"), &first)), Some((&keys("app"), &again)));
        assert_eq!(uids(&index, "app"), ["2"], "another object of the same name");
        assert!(index.find("app", |pod| pod.name_any() == "a").is_some());
        assert!(index.filter("app", |pod| pod.name_any() == "b").is_empty());
        assert_eq!((index.count("app"), index.count("web")), (1, 0));
        index.replace(Some((&keys("app"), &again)), None);
        assert!(index.0.lock().is_empty(), "a key without objects is not kept");
    }

    #[test]
    fn a_list_replaces_everything() {
        let index = Index::default();
        let keys = vec!["web".to_owned(), "all".to_owned()];
        let (old, new) = (pod("1", "a"), pod("2", "b"));
        index.fill([(keys.clone(), &old)].into_iter());
        index.fill([(keys, &new)].into_iter());
        assert_eq!(
            (uids(&index, "web"), uids(&index, "all")),
            (vec!["2".into()], vec!["2".into()])
        );
    }
}
