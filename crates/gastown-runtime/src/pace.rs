//! A minimum time between two writes of an object, for fields that change often.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kube::{Resource, ResourceExt as _};
use parking_lot::Mutex;

/// When each object was written last, by uid; older writes are forgotten.
#[derive(Debug)]
pub struct Pace {
    every: Duration,
    last: Mutex<HashMap<String, Instant>>,
}

impl Pace {
    /// At most one write of each object in the time `every`.
    pub fn new(every: Duration) -> Self {
        Self { every, last: Mutex::default() }
    }

    /// How long the next write of an object has to wait; none when it need not.
    pub fn wait<K: Resource>(&self, object: &K) -> Option<Duration> {
        let last = *self.last.lock().get(&object.uid()?)?;
        self.every.checked_sub(last.elapsed()).filter(|left| !left.is_zero())
    }

    /// The object was written just now.
    pub fn wrote<K: Resource>(&self, object: &K) {
        let mut all = self.last.lock();
        all.retain(|_, last| last.elapsed() < self.every);
        all.extend(object.uid().map(|uid| (uid, Instant::now())));
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[test]
    fn only_an_object_that_was_just_written_waits() {
        let mut object = ConfigMap::default();
        object.metadata.uid = Some("u".into());
        let mut other = object.clone();
        other.metadata.uid = Some("v".into());
        let (slow, fast) = (Pace::new(Duration::from_secs(3600)), Pace::new(Duration::ZERO));
        assert_eq!(slow.wait(&object), None);
        slow.wrote(&object);
        fast.wrote(&object);
        assert!(slow.wait(&object).is_some_and(|wait| wait <= Duration::from_secs(3600)));
        assert_eq!((slow.wait(&other), fast.wait(&object)), (None, None));
    }
}
