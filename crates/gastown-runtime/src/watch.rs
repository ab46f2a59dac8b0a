//! One watcher a kind into a store, and object references of another kind out of it.
//!
//! Stores are shared, streams are not: a subscriber of kube's shared streams can stall for ever
//! when an object leaves the store before its turn. An object that does not decode is skipped (its
//! last good version stays) and named once; it never stops the others.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;

use futures::StreamExt as _;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as start_watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::Runtime;
use crate::metrics::KindLabels;

/// How many references may wait for a controller; a watcher that finds the queue full waits.
const QUEUE: usize = 1024;

/// Where references of `K` are put to have it reconciled. Clones share.
pub struct Trigger<K: Resource<DynamicType = ()>>(mpsc::Sender<ObjectRef<K>>);

impl<K: Resource<DynamicType = ()>> Clone for Trigger<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The other end of [`Trigger`]s; one controller reads it.
pub struct Triggers<K: Resource<DynamicType = ()>>(pub(crate) mpsc::Receiver<ObjectRef<K>>);

/// A queue of references; the same one queued twice is reconciled once.
pub fn triggers<K: Resource<DynamicType = ()>>() -> (Trigger<K>, Triggers<K>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Trigger(sender), Triggers(receiver))
}

impl<K: Resource<DynamicType = ()>> Triggers<K> {
    /// The next reference, for who does without a [`crate::controller::Controller`]; nothing when
    /// all triggers are gone.
    pub async fn recv(&mut self) -> Option<ObjectRef<K>> {
        self.0.recv().await
    }
}

impl<K: Resource<DynamicType = ()>> Trigger<K> {
    /// Queues one, waiting while the queue is full.
    pub async fn send(&self, object: ObjectRef<K>) {
        // A closed queue is a controller that has ended.
        let _ = self.0.send(object).await;
    }

    /// Queues one unless the queue is full or its reader gone; says whether it did. For gRPC
    /// handlers: what is dropped here comes again by watch or resync.
    pub fn try_send(&self, object: ObjectRef<K>) -> bool {
        self.0.try_send(object).is_ok()
    }
}

type Notify<K> = Box<dyn Fn(&K) -> futures::future::BoxFuture<'static, ()> + Send + Sync>;

type Trim<K> = Box<dyn Fn(&mut K) + Send + Sync>;

/// A watch to be started.
pub struct Watch<K: Resource<DynamicType = ()> + 'static> {
    runtime: Runtime,
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    trim: Option<Trim<K>>,
    notify: Vec<Notify<K>>,
}

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// All objects of the kind, in the cluster.
    pub fn all(runtime: &Runtime) -> Self {
        Self::with(runtime, Api::all(runtime.client.clone()))
    }

    fn with(runtime: &Runtime, api: Api<DeserializeGuard<K>>) -> Self {
        let config = watcher::Config::default().any_semantic();
        Self { runtime: runtime.clone(), api, config, trim: None, notify: Vec::new() }
    }

    /// Only objects with these labels.
    #[must_use]
    pub fn labels(mut self, selector: &str) -> Self {
        self.config = self.config.labels(selector);
        self
    }

    /// Drops what is never read before it is stored; managedFields always go.
    #[must_use]
    pub fn trim(mut self, trim: impl Fn(&mut K) + Send + Sync + 'static) -> Self {
        self.trim = Some(Box::new(trim));
        self
    }

    /// On each change, deletes included, has what `map` names reconciled. The store shows the
    /// change by then.
    #[must_use]
    pub fn notify<Root, Refs>(
        mut self,
        trigger: &Trigger<Root>,
        map: impl Fn(&K) -> Refs + Send + Sync + 'static,
    ) -> Self
    where
        Root: Resource<DynamicType = ()> + 'static,
        Refs: IntoIterator<Item = ObjectRef<Root>>,
    {
        let trigger = trigger.clone();
        self.notify.push(Box::new(move |object| {
            let references: Vec<_> = map(object).into_iter().collect();
            let trigger = trigger.clone();
            Box::pin(async move {
                for reference in references {
                    trigger.send(reference).await;
                }
            })
        }));
        self
    }

    /// Has the changed object itself reconciled.
    #[must_use]
    pub fn notify_self(self, trigger: &Trigger<K>) -> Self {
        self.notify(trigger, |object| [ObjectRef::from_obj(object)])
    }

    /// Starts the watch; the process is not ready before its first list is in the store. Ends with
    /// the runtime's drain.
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

impl<K> Watch<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    /// The objects of one namespace.
    pub fn namespaced(runtime: &Runtime, namespace: &str) -> Self {
        Self::with(runtime, Api::namespaced(runtime.client.clone(), namespace))
    }
}

struct Task<K: Resource<DynamicType = ()> + Clone + 'static> {
    kind: String,
    store: Store<K>,
    writer: Writer<K>,
    watch: Watch<K>,
    /// Objects that do not decode, and the complaint that was logged.
    bad: HashMap<ObjectRef<K>, String>,
    listed_once: bool,
    /// While a list comes in: what was there before it and has not come again.
    listing: Option<HashSet<ObjectRef<K>>>,
}

impl<K> Task<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
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
                    self.take(event).await;
                }
                Err(error) => {
                    self.watch
                        .runtime
                        .metrics
                        .watch_errors
                        .get_or_create(&KindLabels { kind: self.kind.clone() })
                        .inc();
                    if !failing {
                        tracing::warn!(
                            kind = self.kind,
                            error = &error as &dyn std::error::Error,
                            "the watch fails"
                        );
                    }
                    failing = true;
                    if !self.listed_once {
                        self.watch.runtime.readiness.wait_for(&self.kind, &missing(&error));
                    }
                }
            }
        }
    }

    async fn take(&mut self, event: Event<DeserializeGuard<K>>) {
        match event {
            Event::Init => {
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
                if let Some(object) = self.decode(object) {
                    self.writer.apply_watcher_event(&Event::Apply(object.clone()));
                    self.notify(&object).await;
                }
            }
            Event::Delete(DeserializeGuard(object)) => {
                let reference = match &object {
                    Ok(object) => ObjectRef::from_obj(object),
                    Err(bad) => reference(&bad.metadata),
                };
                self.forget(&reference);
                let last = object
                    .ok()
                    .or_else(|| self.store.get(&reference).map(|object| object.as_ref().clone()));
                if let Some(last) = last {
                    self.writer.apply_watcher_event(&Event::Delete(last.clone()));
                    self.notify(&last).await;
                }
            }
        }
    }

    /// A list is complete: what was not in it is gone, and everything may have changed.
    async fn listed(&mut self) {
        let gone: Vec<_> = self.listing.take().unwrap_or_default().into_iter().collect();
        let last: Vec<_> = gone.iter().filter_map(|reference| self.store.get(reference)).collect();
        self.writer.apply_watcher_event(&Event::InitDone);
        self.listed_once = true;
        self.watch.runtime.readiness.done(&self.kind);
        for object in last.into_iter().chain(self.store.state()) {
            self.notify(&object).await;
        }
    }

    async fn notify(&self, object: &K) {
        for notify in &self.watch.notify {
            notify(object).await;
        }
    }

    /// The object, or its last good version while a list comes in, or nothing.
    fn decode(&mut self, DeserializeGuard(object): DeserializeGuard<K>) -> Option<K> {
        match object {
            Ok(mut object) => {
                self.forget(&ObjectRef::from_obj(&object));
                object.managed_fields_mut().clear();
                if let Some(trim) = &self.watch.trim {
                    trim(&mut object);
                }
                Some(object)
            }
            Err(bad) => {
                let reference = reference::<K>(&bad.metadata);
                if self.bad.get(&reference) != Some(&bad.error) {
                    tracing::error!(object = %reference, error = bad.error, "an object does not decode and is skipped");
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
        let labels = KindLabels { kind: self.kind.clone() };
        self.watch
            .runtime
            .metrics
            .undecodable
            .get_or_create(&labels)
            .set(i64::try_from(self.bad.len()).unwrap_or(i64::MAX));
    }
}

fn reference<K: Resource<DynamicType = ()>>(metadata: &kube::api::ObjectMeta) -> ObjectRef<K> {
    let reference = ObjectRef::new(metadata.name.as_deref().unwrap_or_default());
    match metadata.namespace.as_deref() {
        Some(namespace) => reference.within(namespace),
        None => reference,
    }
}

fn missing(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404 => {
            "its CustomResourceDefinition is not installed".to_owned()
        }
        error => format!("{error}"),
    }
}
