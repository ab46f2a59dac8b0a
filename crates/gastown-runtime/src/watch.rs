//! Watches: the objects of a kind in a store, and for each change references to the objects to
//! reconcile.
//!
//! Stores are shared, streams are not: a subscriber of kube's shared streams can stall forever when
//! an object leaves the store before its turn. An object that cannot be decoded is skipped (its
//! last good version stays) and logged once; it never stops the others.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::watcher::{self, Event, ListSemantic};
use kube::runtime::{WatchStreamExt as _, watcher as start_watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::decode::Decoded;
pub use crate::decode::{NoStatus, Trim, Whole};
use crate::index::Index;
use crate::own_writes::OwnWrites;
use crate::runtime::Runtime;

/// How many objects one answer of a list has at most. A pod has 20 KB, and an answer is in memory more
/// than once while it is decoded.
pub(crate) const PAGE: u32 = 100;
/// How many references may wait for a controller; a watch waits while the queue is full.
const QUEUE: usize = 1024;

/// What to reconcile.
#[derive(Clone, Debug)]
pub enum Wanted<K: Resource<DynamicType = ()>> {
    /// This object, now or within this time: what changes meanwhile is looked at with it.
    One(ObjectRef<K>, Duration),
    /// Every object of the controller's store: a watch may have missed changes.
    All,
}

/// The sending end of a queue of objects to reconcile. Clones share the queue.
pub struct Trigger<K: Resource<DynamicType = ()>>(mpsc::Sender<Wanted<K>>);

impl<K: Resource<DynamicType = ()>> Clone for Trigger<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The receiving end of a queue of objects to reconcile, for one controller.
pub struct Triggers<K: Resource<DynamicType = ()>>(mpsc::Receiver<Wanted<K>>);

/// A queue of objects to reconcile; an object that is queued twice is reconciled once.
pub fn triggers<K: Resource<DynamicType = ()>>() -> (Trigger<K>, Triggers<K>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Trigger(sender), Triggers(receiver))
}

impl<K: Resource<DynamicType = ()>> Triggers<K> {
    /// Waits for the next one; none when all triggers are dropped.
    pub async fn recv(&mut self) -> Option<Wanted<K>> {
        self.0.recv().await
    }
}

impl<K: Resource<DynamicType = ()>> Trigger<K> {
    /// Queues an object, waiting while the queue is full.
    pub async fn send(&self, object: ObjectRef<K>) {
        self.send_within(object, Duration::ZERO).await;
    }

    /// Queues an object to be reconciled within this time, waiting while the queue is full.
    async fn send_within(&self, object: ObjectRef<K>, within: Duration) {
        // The queue is closed when the controller has ended.
        let _ = self.0.send(Wanted::One(object, within)).await;
    }

    /// Queues every object of the controller's store, waiting while the queue is full.
    async fn send_all(&self) {
        let _ = self.0.send(Wanted::All).await;
    }

    /// Queues an object unless the queue is full or closed; returns whether it did. For gRPC
    /// handlers: what is dropped here is reconciled after a watch event or a resync.
    pub fn try_send(&self, object: ObjectRef<K>) -> bool {
        self.0.try_send(Wanted::One(object, Duration::ZERO)).is_ok()
    }
}

/// Queues what is to be reconciled at a change of an object, or everything.
type Notify<K> = Box<dyn Fn(Option<&K>) -> futures::future::BoxFuture<'static, ()> + Send + Sync>;

/// An index, and the keys under which an object is in it.
type Indexed<K> = (Index<K>, Box<dyn Fn(&K) -> Vec<String> + Send + Sync>);

/// What can be watched: an object of a kind that is known when this is compiled.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + PartialEq + DeserializeOwned + Debug + Send + Sync + 'static
{
}

impl<K> Watched for K where
    K: Resource<DynamicType = ()>
        + Clone
        + PartialEq
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// A watch that is not started yet, of objects as `T` trims them. managedFields are always removed. A
/// change of nothing but what is trimmed is stored and queues nothing.
pub struct Watch<K: Resource<DynamicType = ()> + 'static, T: Trim<K> = Whole> {
    runtime: Runtime,
    api: Api<Decoded<K, T>>,
    config: watcher::Config,
    indices: Vec<Indexed<K>>,
    notify: Vec<Notify<K>>,
    own: Option<Arc<OwnWrites<K>>>,
}

impl<K, T> Watch<K, T>
where
    K: Watched,
    T: Trim<K>,
{
    /// A watch of all objects of the kind in the cluster.
    pub fn all(runtime: &Runtime) -> Self {
        Self::with(runtime, Api::all(runtime.client.clone()))
    }

    fn with(runtime: &Runtime, api: Api<Decoded<K, T>>) -> Self {
        let config = watcher::Config::default().any_semantic().page_size(PAGE);
        Self {
            runtime: runtime.clone(),
            api,
            config,
            indices: Vec::new(),
            notify: Vec::new(),
            own: None,
        }
    }

    /// Watches only objects that match a label selector.
    #[must_use]
    pub fn labels(mut self, selector: &str) -> Self {
        self.config = self.config.labels(selector);
        self
    }

    /// Has the process's own writes forgotten once the watch has delivered them, before anybody is
    /// notified. Lists are of the newest versions then: one from the API server's cache may lack what
    /// was written before it.
    #[must_use]
    pub fn own(mut self, own: &Arc<OwnWrites<K>>) -> Self {
        self.config.list_semantic = ListSemantic::MostRecent;
        self.own = Some(own.clone());
        self
    }

    /// Keeps the stored objects in an index as well, under all keys that `keys` returns. It has a change
    /// by the time when anybody is notified.
    #[must_use]
    pub fn index<Keys>(
        mut self,
        index: &Index<K>,
        keys: impl Fn(&K) -> Keys + Send + Sync + 'static,
    ) -> Self
    where
        Keys: IntoIterator<Item = String>,
    {
        let keys = move |object: &K| keys(object).into_iter().collect();
        self.indices.push((index.clone(), Box::new(keys)));
        self
    }

    /// Queues the objects that `map` returns at each change of what is stored, deletions included. The
    /// store has the change by then. After every list but the first all objects of the trigger's controller are
    /// queued as well: what was created and deleted between two lists has been missed.
    #[must_use]
    pub fn notify<Root, Refs>(
        self,
        trigger: &Trigger<Root>,
        map: impl Fn(&K) -> Refs + Send + Sync + 'static,
    ) -> Self
    where
        Root: Resource<DynamicType = ()> + 'static,
        Refs: IntoIterator<Item = ObjectRef<Root>>,
    {
        self.notify_within(trigger, Duration::ZERO, map)
    }

    /// Like [`Watch::notify`], for objects that look at a whole crowd of this kind: those that change
    /// within this time are looked at once.
    #[must_use]
    pub fn notify_within<Root, Refs>(
        mut self,
        trigger: &Trigger<Root>,
        within: Duration,
        map: impl Fn(&K) -> Refs + Send + Sync + 'static,
    ) -> Self
    where
        Root: Resource<DynamicType = ()> + 'static,
        Refs: IntoIterator<Item = ObjectRef<Root>>,
    {
        let trigger = trigger.clone();
        self.notify.push(Box::new(move |object| {
            let references: Option<Vec<_>> = object.map(|object| map(object).into_iter().collect());
            let trigger = trigger.clone();
            Box::pin(async move {
                let Some(references) = references else { return trigger.send_all().await };
                for reference in references {
                    trigger.send_within(reference, within).await;
                }
            })
        }));
        self
    }

    /// Queues the changed object itself at each change.
    #[must_use]
    pub fn notify_self(self, trigger: &Trigger<K>) -> Self {
        self.notify(trigger, |object| [ObjectRef::from_obj(object)])
    }

    /// Starts the watch. The process is not ready before its first list is in the store. It ends
    /// with the runtime.
    pub fn start(self) -> Store<K> {
        let kind = K::kind(&()).into_owned();
        self.runtime.readiness.wait_for(&kind, "not listed yet");
        let writer = Writer::default();
        let store = writer.as_reader();
        let stop = self.runtime.stop.clone();
        let task = Task {
            kind,
            store: store.clone(),
            writer,
            watch: self,
            bad: HashMap::new(),
            listed_once: false,
            listing: None,
            began: Instant::now(),
        };
        tokio::spawn(async move {
            tokio::select! {
                () = task.run() => {}
                () = stop.cancelled() => {}
            }
        });
        store
    }
}

impl<K, T> Watch<K, T>
where
    K: Watched + Resource<Scope = NamespaceResourceScope>,
    T: Trim<K>,
{
    /// A watch of the objects of one namespace.
    pub fn namespaced(runtime: &Runtime, namespace: &str) -> Self {
        Self::with(runtime, Api::namespaced(runtime.client.clone(), namespace))
    }
}

struct Task<K: Resource<DynamicType = ()> + Clone + 'static, T: Trim<K>> {
    kind: String,
    store: Store<K>,
    writer: Writer<K>,
    watch: Watch<K, T>,
    /// Objects that cannot be decoded, and the error that was logged.
    bad: HashMap<ObjectRef<K>, String>,
    listed_once: bool,
    /// While a list arrives: the objects of the store that have not been in it so far.
    listing: Option<HashSet<ObjectRef<K>>>,
    /// When the last list was begun.
    began: Instant,
}

impl<K, T> Task<K, T>
where
    K: Watched,
    T: Trim<K>,
    ObjectRef<K>: Hash + Eq,
{
    async fn run(mut self) {
        let events =
            start_watcher(self.watch.api.clone(), self.watch.config.clone()).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut failing = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    failing = false;
                    self.handle(event).await;
                }
                Err(error) => {
                    self.watch.runtime.metrics.watch_errors.inc([self.kind.clone().into()]);
                    if !failing {
                        tracing::warn!(
                            kind = self.kind,
                            error = &error as &dyn std::error::Error,
                            "the watch fails"
                        );
                    }
                    failing = true;
                    if !self.listed_once {
                        self.watch.runtime.readiness.wait_for(&self.kind, &why_not_listed(&error));
                    }
                }
            }
        }
    }

    async fn handle(&mut self, event: Event<Decoded<K, T>>) {
        match event {
            Event::Init => {
                self.began = Instant::now();
                self.listing = Some(
                    self.store
                        .state()
                        .iter()
                        .map(|object| ObjectRef::from_obj(object.as_ref()))
                        .collect(),
                );
                self.writer.apply_watcher_event(&Event::Init);
            }
            Event::InitApply(object) => {
                if let Some(object) = self.decode(object) {
                    if let Some(listing) = self.listing.as_mut() {
                        listing.remove(&ObjectRef::from_obj(&object));
                    }
                    self.writer.apply_watcher_event(&Event::InitApply(object));
                }
            }
            Event::InitDone => self.listed().await,
            Event::Apply(object) => {
                if let Some(mut object) = self.decode(object) {
                    let reference = ObjectRef::from_obj(&object);
                    let before = self.store.get(&reference);
                    let is_changed = is_changed(before.as_deref(), &mut object);
                    self.writer.apply_watcher_event(&Event::Apply(object.clone()));
                    self.index(before.as_deref(), self.store.get(&reference).as_ref());
                    self.observe(&object);
                    if is_changed {
                        self.notify(Some(&object)).await;
                    }
                }
            }
            Event::Delete(Decoded { object, .. }) => {
                let reference = match &object {
                    Ok(object) => ObjectRef::from_obj(object),
                    Err(bad) => reference(&bad.metadata),
                };
                self.forget(&reference);
                let last = object
                    .ok()
                    .or_else(|| self.store.get(&reference).map(|object| object.as_ref().clone()));
                if let Some(last) = last {
                    let before = self.store.get(&reference);
                    self.writer.apply_watcher_event(&Event::Delete(last.clone()));
                    self.index(before.as_deref(), None);
                    self.observe(&last);
                    self.notify(Some(&last)).await;
                }
            }
        }
    }

    /// Puts an object into the indices in place of the one `before`.
    fn index(&self, before: Option<&K>, now: Option<&Arc<K>>) {
        for (index, keys) in &self.watch.indices {
            let before = before.map(|object| (keys(object), object));
            let now = now.map(|object| (keys(object), object));
            index.replace(
                before.as_ref().map(|(keys, object)| (keys.as_slice(), *object)),
                now.as_ref().map(|(keys, object)| (keys.as_slice(), *object)),
            );
        }
    }

    /// A list is complete: what was not in it was deleted, and every other object may have changed.
    async fn listed(&mut self) {
        let deleted: Vec<_> = self.listing.take().unwrap_or_default().into_iter().collect();
        let last: Vec<_> =
            deleted.iter().filter_map(|reference| self.store.get(reference)).collect();
        self.writer.apply_watcher_event(&Event::InitDone);
        let listed = self.store.state();
        for (index, keys) in &self.watch.indices {
            index.fill(listed.iter().map(|object| (keys(object), object)));
        }
        if let Some(own) = &self.watch.own {
            last.iter().chain(&listed).for_each(|object| own.observe(object));
            own.listed(self.began);
        }
        let listed_before = std::mem::replace(&mut self.listed_once, true);
        self.watch.runtime.readiness.done(&self.kind);
        for object in last.into_iter().chain(listed) {
            self.notify(Some(&object)).await;
        }
        if listed_before {
            self.notify(None).await;
        }
    }

    fn observe(&self, object: &K) {
        if let Some(own) = &self.watch.own {
            own.observe(object);
        }
    }

    async fn notify(&self, object: Option<&K>) {
        for notify in &self.watch.notify {
            notify(object).await;
        }
    }

    /// The object; if it cannot be decoded, its last good version while a list arrives, else none.
    fn decode(&mut self, Decoded { object, .. }: Decoded<K, T>) -> Option<K> {
        match object {
            Ok(object) => {
                self.forget(&ObjectRef::from_obj(&object));
                Some(object)
            }
            Err(bad) => {
                let reference = reference::<K>(&bad.metadata);
                if self.bad.get(&reference) != Some(&bad.error) {
                    tracing::error!(object = %reference, error = bad.error, "an object cannot be decoded and is skipped");
                    self.bad.insert(reference.clone(), bad.error);
                    self.count();
                }
                let listing = self.listing.is_some();
                listing
                    .then(|| self.store.get(&reference))
                    .flatten()
                    .map(|object| object.as_ref().clone())
            }
        }
    }

    fn forget(&mut self, reference: &ObjectRef<K>) {
        if self.bad.remove(reference).is_some() {
            self.count();
        }
    }

    fn count(&self) {
        let bad = i64::try_from(self.bad.len()).unwrap_or(i64::MAX);
        self.watch.runtime.metrics.undecodable.set([self.kind.clone().into()], bad);
    }
}

/// Whether an object differs from the one `before` in more than its resource version, which is as it
/// was afterwards.
fn is_changed<K: Watched>(before: Option<&K>, object: &mut K) -> bool {
    let Some(before) = before else { return true };
    let version = before.meta().resource_version.clone();
    let version = std::mem::replace(&mut object.meta_mut().resource_version, version);
    let is_changed = *object != *before;
    object.meta_mut().resource_version = version;
    is_changed
}

fn reference<K: Resource<DynamicType = ()>>(metadata: &kube::api::ObjectMeta) -> ObjectRef<K> {
    let reference = ObjectRef::new(metadata.name.as_deref().unwrap_or_default());
    match metadata.namespace.as_deref() {
        Some(namespace) => reference.within(namespace),
        None => reference,
    }
}

fn why_not_listed(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404 => {
            "its CustomResourceDefinition is not installed".to_owned()
        }
        error => format!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;
    use crate::metrics::Metrics;
    use crate::shards::Shards;
    use crate::testing;

    fn map(name: &str) -> Decoded<ConfigMap> {
        Ok(testing::config_map(name, 1)).into()
    }

    #[derive(Clone, Debug)]
    struct NoData;

    impl Trim<ConfigMap> for NoData {
        fn trim(map: &mut ConfigMap) {
            map.data = None;
        }
    }

    fn task<T: Trim<ConfigMap>>(watch: Watch<ConfigMap, T>) -> Task<ConfigMap, T> {
        let writer = Writer::default();
        Task {
            kind: "ConfigMap".to_owned(),
            store: writer.as_reader(),
            writer,
            watch,
            bad: HashMap::new(),
            listed_once: false,
            listing: None,
            began: Instant::now(),
        }
    }

    fn received(triggers: &mut Triggers<ConfigMap>) -> Vec<String> {
        let mut received = Vec::new();
        while let Some(wanted) = futures::FutureExt::now_or_never(triggers.recv()).flatten() {
            received.push(match wanted {
                Wanted::One(object, _) => object.name,
                Wanted::All => "all".to_owned(),
            });
        }
        received
    }

    #[tokio::test]
    async fn a_change_of_what_is_not_stored_queues_nothing() {
        let runtime = testing::runtime(Shards::all(), Metrics::default());
        let (trigger, mut triggers) = triggers::<ConfigMap>();
        let watch = Watch::<ConfigMap, NoData>::namespaced(&runtime, "ns").notify_self(&trigger);
        let mut task = task(watch);
        let version = |version: &str, change: fn(&mut ConfigMap)| {
            let mut map = testing::config_map("a", 1);
            map.metadata.resource_version = Some(version.to_owned());
            change(&mut map);
            Ok(map).into()
        };
        for event in [Event::Init, Event::InitApply(version("1", |_| ())), Event::InitDone] {
            task.handle(event).await;
        }
        assert_eq!(received(&mut triggers), ["a"]);
        let data = |map: &mut ConfigMap| map.data = Some([("k".into(), "v".into())].into());
        task.handle(Event::Apply(version("2", data))).await;
        assert_eq!(received(&mut triggers), [""; 0], "what changed is not stored");
        let stored = task.store.state();
        assert_eq!(stored[0].metadata.resource_version.as_deref(), Some("2"), "the version is");
        let labels = |map: &mut ConfigMap| {
            map.metadata.labels = Some([("k".into(), "v".into())].into());
        };
        task.handle(Event::Apply(version("3", labels))).await;
        assert_eq!(received(&mut triggers), ["a"]);
        task.handle(Event::Delete(version("4", labels))).await;
        assert_eq!(received(&mut triggers), ["a"], "a deletion is a change");
    }

    #[tokio::test]
    async fn every_list_but_the_first_queues_what_changed_and_then_everything() {
        let runtime = testing::runtime(Shards::all(), Metrics::default());
        let (trigger, mut triggers) = triggers::<ConfigMap>();
        let index = Index::default();
        let watch = Watch::<ConfigMap>::namespaced(&runtime, "ns")
            .index(&index, |map: &ConfigMap| map.metadata.namespace.clone())
            .notify_self(&trigger);
        let mut task = task(watch);
        let indexed = || {
            index.of("ns").iter().filter_map(|map| map.metadata.name.clone()).collect::<Vec<_>>()
        };
        for event in [Event::Init, Event::InitApply(map("a")), Event::InitDone] {
            task.handle(event).await;
        }
        assert_eq!((received(&mut triggers), indexed()), (vec!["a".into()], vec!["a".into()]));
        // What was created and deleted in between is in neither list.
        for event in [Event::Init, Event::InitApply(map("b")), Event::InitDone] {
            task.handle(event).await;
        }
        assert_eq!(received(&mut triggers), ["a", "b", "all"]);
        assert_eq!(indexed(), ["b"]);
        task.handle(Event::Delete(map("b"))).await;
        assert_eq!(indexed(), [""; 0]);
    }
}
