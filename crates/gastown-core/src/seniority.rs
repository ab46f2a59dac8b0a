//! Which of several objects with the same duty is the active one: two BeadStores of a rig, two
//! Refineries of a branch, two Polecats of a bead.

use kube::Resource;

/// The active one: the oldest that is not being deleted. The API server counts ages in seconds, so
/// ties are common; namespace and name settle them, and every controller chooses the same object.
pub fn active<'a, K: Resource>(objects: impl IntoIterator<Item = &'a K>) -> Option<&'a K> {
    let candidates = objects.into_iter().filter(|o| o.meta().deletion_timestamp.is_none());
    candidates.min_by_key(|object| Seniority::of(*object))
}

/// An object's place among those with the same duty; the least is the most senior. One without a
/// creation time, which the API server has not seen yet, is the last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seniority {
    created: i64,
    namespace: String,
    name: String,
}

impl Seniority {
    /// The place of `object`.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            created: meta.creation_timestamp.as_ref().map_or(i64::MAX, |t| t.0.as_second()),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn object(name: &str, created: Option<i64>) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.to_owned());
        object.metadata.creation_timestamp =
            created.map(|second| Time(Timestamp::from_second(second).unwrap()));
        object
    }

    fn names(objects: &[ConfigMap]) -> Option<&str> {
        active(objects).and_then(|o| o.metadata.name.as_deref())
    }

    #[test]
    fn the_oldest_is_active_and_ties_go_by_name() {
        let all = [object("c", Some(1)), object("b", Some(1)), object("a", Some(2))];
        assert_eq!(names(&all), Some("b"));
        assert_eq!(names(&[object("a", None), object("b", Some(9))]), Some("b"));
        assert_eq!(names(&[]), None);
    }

    #[test]
    fn one_that_is_being_deleted_is_not_active() {
        let mut all = [object("a", Some(1)), object("b", Some(2))];
        all[0].metadata.deletion_timestamp = all[0].metadata.creation_timestamp.clone();
        assert_eq!(names(&all), Some("b"));
    }
}
