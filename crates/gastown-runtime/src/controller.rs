//! Runs a reconcile function on the objects of a store: with bounded concurrency, back-off for each
//! object that no other object's changes cut short, and only while the object's shard is this
//! process's.
//!
//! kube's own queue is not used: there an event ends a back-off, and a reconcile that waits for a
//! slow neighbour keeps its place.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Fuse, FusedFuture as _};
use gastown_api::names::{annotation, reason};
use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::events::Note;
use crate::jitter::jittered;
use crate::own_writes::OwnWrites;
use crate::places;
use crate::queue::{Ended, Mark, Queue};
use crate::runtime::Runtime;
use crate::sentence;
use crate::shards;
use crate::stalled::{self, Conditions};
use crate::watch::{Triggers, Wanted};

/// The class of an error, which alone decides retry, metric label and log level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Something outside failed: retried after a given time, or with back-off.
    Retry {
        /// How long the other side asks to wait.
        after: Option<Duration>,
    },
    /// Somebody else has written first: retried soon.
    Conflict,
    /// An object that is referred to does not exist.
    Missing,
    /// A permission is missing.
    Forbidden,
    /// The spec has to be changed.
    InvalidSpec,
    /// A defect of this program.
    Fatal,
}

impl Class {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Retry { .. } => "retry",
            Self::Conflict => "conflict",
            Self::Missing => "missing",
            Self::Forbidden => "forbidden",
            Self::InvalidSpec => "invalid_spec",
            Self::Fatal => "fatal",
        }
    }

    /// The class of an error of the API server.
    pub fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                404 => Self::Missing,
                409 => Self::Conflict,
                401 | 403 => Self::Forbidden,
                400 | 422 => Self::InvalidSpec,
                _ => Self::Retry { after: None },
            },
            kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) => Self::Fatal,
            _ => Self::Retry { after: None },
        }
    }

    /// The wait after the `failures`-th failure in a row, counted from 1, without jitter.
    fn back_off(self, failures: u32) -> Duration {
        let doubled = |first: Duration, max: Duration| {
            first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(max)
        };
        match self {
            Self::Conflict => doubled(Duration::from_millis(100), Duration::from_secs(10)),
            Self::Retry { after: Some(after) } => after,
            Self::Retry { after: None } | Self::Missing => {
                doubled(Duration::from_millis(500), Duration::from_secs(60))
            }
            Self::Forbidden | Self::InvalidSpec | Self::Fatal => {
                doubled(Duration::from_secs(2), Duration::from_secs(120))
            }
        }
    }
}

/// An error with a class.
pub trait Classify: std::error::Error + Send + Sync + 'static {
    /// The class of the error.
    fn class(&self) -> Class;
}

impl Classify for kube::Error {
    fn class(&self) -> Class {
        Class::of(self)
    }
}

/// What follows a reconcile that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action(Option<Duration>);

impl Action {
    /// The object is reconciled again after this time, or at its next change before that.
    pub fn requeue(after: Duration) -> Self {
        Self(Some(after))
    }

    /// The object is reconciled again at its next change.
    pub fn await_change() -> Self {
        Self(None)
    }
}

/// Reconciles an object again after about ten minutes, in case a watch has missed a change.
pub fn resync() -> Action {
    Action::requeue(jittered(Duration::from_secs(600)))
}

/// The objects of one kind, and which of them to reconcile.
pub struct Controller<K: Resource<DynamicType = ()> + 'static> {
    /// The metric label: `rig`, `polecat`, …
    pub name: &'static str,
    /// The objects that are reconciled.
    pub store: Store<K>,
    /// This process's writes of them: a reconcile gets the newer of the cached object and ours.
    pub own: Arc<OwnWrites<K>>,
    /// Which of them to reconcile next.
    pub triggers: Triggers<K>,
    /// The rig of an object: whose shard it is in.
    pub rig: fn(&K) -> Cow<'_, str>,
    /// Where they have their conditions, if the condition `Stalled` is to show there why an
    /// action fails.
    pub conditions: Option<Conditions<K>>,
}

/// An error that may pass by itself is shown when it has come this often in a row.
const STALLED_AFTER: u32 = 3;

impl<K> Controller<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    /// Reconciles until the runtime drains, and returns when running work has ended. Whenever a shard
    /// is taken all its objects are reconciled; when it is lost, its running reconciles are aborted.
    pub async fn run<Ctx, F, Fut, E>(self, runtime: &Runtime, ctx: Arc<Ctx>, reconcile: F)
    where
        Ctx: Send + Sync + 'static,
        F: Fn(Arc<K>, Arc<Ctx>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Action, E>> + Send + 'static,
        E: Classify,
    {
        let Self { name, store, own, mut triggers, rig, conditions } = self;
        let start = move |object| reconcile(object, ctx.clone());
        let step = Step { name, runtime: runtime.clone(), store, own, start, rig, conditions };
        Round::new(Arc::new(step)).run(&mut triggers).await;
    }
}

/// A future of a slot, while there is something to do with it.
type Acquiring = Fuse<BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>>;

/// The objects that are to be reconciled, and those that are. Dropping it aborts the latter.
struct Round<K: Resource<DynamicType = ()> + 'static, F> {
    step: Arc<Step<K, F>>,
    queue: Queue<ObjectRef<K>>,
    /// How many reconciles run at a time; those that wait for a slow call do not count.
    slots: Arc<Semaphore>,
    running: JoinSet<Ended>,
    objects: HashMap<tokio::task::Id, ObjectRef<K>>,
}

impl<K, F, Fut, E> Round<K, F>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    F: Fn(Arc<K>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Action, E>> + Send + 'static,
    E: Classify,
{
    fn new(step: Arc<Step<K, F>>) -> Self {
        let slots = Semaphore::new(step.runtime.args.concurrency.max(1).into());
        Self {
            step,
            queue: Queue::default(),
            slots: Arc::new(slots),
            running: JoinSet::new(),
            objects: HashMap::new(),
        }
    }

    async fn run(mut self, triggers: &mut Triggers<K>) {
        let drain = self.step.runtime.drain.clone();
        let mut shards = self.step.runtime.shards.changes();
        let readiness = self.step.runtime.readiness.clone();
        let (mut ready, mut open) = (false, true);
        let mut acquiring: Acquiring = Fuse::terminated();
        while !(drain.is_cancelled() && self.running.is_empty()) {
            let now = Instant::now();
            let next = self.queue.next().filter(|_| !drain.is_cancelled());
            let is_due = next.is_some_and(|at| at <= now);
            if !is_due {
                // One that waits for a slot, or has it already, gives it back.
                acquiring = Fuse::terminated();
            } else if acquiring.is_terminated() {
                acquiring = self.slots.clone().acquire_owned().boxed().fuse();
            }
            tokio::select! {
                () = drain.cancelled(), if !drain.is_cancelled() => {}
                () = readiness.ready(), if !ready => ready = true,
                taken = shards.taken(), if ready => self.take(&taken),
                wanted = triggers.recv(), if open => match wanted {
                    Some(wanted) if ready => self.add(wanted),
                    // The store is not complete yet, and no shard was taken.
                    Some(_) => {}
                    None => open = false,
                },
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                Ok(slot) = &mut acquiring => self.start(slot),
                () = tokio::time::sleep_until(next.unwrap_or(now)), if next.is_some() && !is_due => {}
            }
        }
    }

    /// Queues the objects of shards that were taken.
    fn take(&mut self, shards: &[usize]) {
        let objects = self.add_all(|shard| shards.contains(&shard));
        tracing::info!(controller = self.step.name, objects, ?shards, "shards were taken");
    }

    /// Queues what is wanted, of the shards that are ours: when one is taken, all its objects are.
    fn add(&mut self, wanted: Wanted<K>) {
        let held = self.step.runtime.shards.clone();
        match wanted {
            Wanted::One(key, within) => {
                let Some(object) = self.step.store.get(&key) else { return };
                if held.term(self.step.shard(&object)).is_some() {
                    self.queue.changed(&key, || mark(&*object), Instant::now() + within);
                }
            }
            Wanted::All => {
                self.add_all(|shard| held.term(shard).is_some());
            }
        }
    }

    fn add_all(&mut self, is_wanted: impl Fn(usize) -> bool) -> usize {
        let (now, mut added) = (Instant::now(), 0);
        for object in self.step.store.state() {
            if is_wanted(self.step.shard(&object)) {
                self.queue.changed(&ObjectRef::from_obj(&*object), || mark(&*object), now);
                added += 1;
            }
        }
        added
    }

    /// Starts the reconcile of the object whose turn it is.
    fn start(&mut self, slot: OwnedSemaphorePermit) {
        while let Some(key) = self.queue.take(Instant::now()) {
            let Some(object) = self.step.store.get(&key) else {
                self.queue.forget(&key);
                continue;
            };
            let (step, failures) = (self.step.clone(), self.queue.failures(&key));
            let run = step.run(object, failures, self.slots.clone(), slot);
            self.objects.insert(self.running.spawn(run).id(), key);
            return;
        }
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, Ended), JoinError>) {
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, ended),
            // A panic in a reconcile is caught before; this one is in the code around it.
            Err(error) => (error.id(), Ended::Failed(Class::Fatal.back_off(1), None)),
        };
        if let Some(key) = self.objects.remove(&id) {
            self.queue.ended(&key, ended, Instant::now());
        }
    }
}

/// What a person changes of an object to have it tried again at once.
fn mark<K: Resource>(object: &K) -> Mark {
    let meta = object.meta();
    let retry = meta.annotations.as_ref().and_then(|all| all.get(annotation::RETRY));
    Mark {
        generation: meta.generation,
        deleting: meta.deletion_timestamp.is_some(),
        retry: retry.cloned(),
    }
}

/// One reconcile, and what is shown of it.
struct Step<K: Resource<DynamicType = ()> + 'static, F> {
    name: &'static str,
    runtime: Runtime,
    store: Store<K>,
    own: Arc<OwnWrites<K>>,
    start: F,
    rig: fn(&K) -> Cow<'_, str>,
    conditions: Option<Conditions<K>>,
}

impl<K: Resource<DynamicType = ()> + 'static, F> Step<K, F> {
    fn shard(&self, object: &K) -> usize {
        shards::of(&(self.rig)(object))
    }
}

impl<K, F, Fut, E> Step<K, F>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    F: Fn(Arc<K>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Action, E>> + Send + 'static,
    E: Classify,
{
    /// Reconciles. `failures`: how many times in a row that has failed before.
    async fn run(
        self: Arc<Self>,
        object: Arc<K>,
        failures: u32,
        slots: Arc<Semaphore>,
        slot: OwnedSemaphorePermit,
    ) -> Ended {
        let meta = object.meta();
        let span = tracing::info_span!(
            "reconcile",
            controller = self.name,
            namespace = meta.namespace,
            name = meta.name,
            generation = meta.generation,
            // The life that it is about, see `telemetry::about`.
            trace_id = tracing::field::Empty,
            span_id = tracing::field::Empty,
        );
        let Some(work) = self.runtime.shards.enter(&(self.rig)(&object)) else {
            return Ended::Well(None);
        };
        let Some(object) = self.own.newest(object) else { return Ended::Well(None) };
        let (started, about) = (Instant::now(), object.clone());
        // A task of its own: a panic ends only this reconcile, and dropping the handle aborts it.
        let reconcile = places::with_slot(slots, slot, (self.start)(object));
        let mut task = AbortOnDropHandle::new(tokio::spawn(reconcile.instrument(span.clone())));
        let Some(result) = work.run(&mut task).await else {
            span.in_scope(|| tracing::warn!("the shard was lost: a reconcile is aborted"));
            // The shard is not handed over before it has ended.
            task.abort();
            let _ = task.await;
            return Ended::Well(None);
        };
        drop(work);
        let seconds = started.elapsed().as_secs_f64();
        let metrics = &self.runtime.metrics;
        metrics.reconcile_seconds.observe([self.name.into()], seconds, None);
        let (result, ended, stalled) = span.in_scope(|| match result {
            Ok(Ok(Action(after))) => {
                let result = if after.is_none() { "success" } else { "requeue" };
                (result, Ended::Well(after), Some(None))
            }
            Ok(Err(error)) => {
                let (class, failures) = (error.class(), failures.saturating_add(1));
                let ended = failed(about.as_ref(), class, &error, failures);
                (class.label(), ended, stalled(&error, failures).map(Some))
            }
            Err(panic) => {
                let class = Class::Fatal;
                (class.label(), failed(about.as_ref(), class, &panic, failures + 1), None)
            }
        });
        if let Some(message) = stalled {
            self.report(about.as_ref(), message).instrument(span).await;
        }
        metrics.reconciles.inc([self.name.into(), result.into()]);
        ended
    }

    /// Shows why an object could not be reconciled, in an Event and a condition, or that it could.
    async fn report(&self, object: &K, message: Option<String>) {
        if let Some(message) = &message {
            let note = Note::warning("Reconcile", reason::ACTION_FAILED, message);
            self.runtime.events.publish(object, note);
        }
        if let Some(conditions) = self.conditions {
            let (client, present) = (&self.runtime.client, conditions(object));
            stalled::show(client, self.name, object, present, message.as_deref()).await;
        }
    }
}

/// Logs a failure, the `failures`-th in a row, and decides on its back-off. What another object may
/// bring, such as one that is missing, ends the wait; nothing else does but the object itself.
fn failed<K: Resource>(
    object: &K,
    class: Class,
    error: &(dyn std::error::Error + 'static),
    failures: u32,
) -> Ended {
    let after = jittered(class.back_off(failures));
    match class {
        Class::Conflict => {
            tracing::debug!(error, failures, ?after, "somebody else has written first");
        }
        Class::Fatal => {
            tracing::error!(error, failures, ?after, "a reconcile failed by a defect");
        }
        _ => {
            let class = class.label();
            tracing::warn!(error, class, failures, ?after, "a reconcile failed");
        }
    }
    let mark = match class {
        Class::Missing | Class::Conflict => None,
        _ => Some(mark(object)),
    };
    Ended::Failed(after, mark)
}

/// What an object shows of an error that does not pass by itself: a missing permission, a quota, a
/// policy, a field that the API server refuses; or any other that has come several times in a row.
fn stalled(error: &impl Classify, failures: u32) -> Option<String> {
    let lasts = match error.class() {
        Class::Forbidden | Class::InvalidSpec => true,
        Class::Conflict | Class::Fatal => false,
        Class::Retry { .. } | Class::Missing => failures >= STALLED_AFTER,
    };
    if !lasts {
        return None;
    }
    Some(sentence::of(error))
}

#[cfg(test)]
#[path = "controller_tests.rs"]
mod tests;
