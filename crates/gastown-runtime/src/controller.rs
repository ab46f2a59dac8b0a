//! Runs a reconcile function on the objects of a store: with bounded concurrency, back-off for each
//! object, and only while the process holds the lease.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use gastown_api::names::reason;
use kube::Resource;
use kube::runtime::controller::{Action, Config, Error as QueueError, applier};
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::events::Note;
use crate::jitter::jittered;
use crate::metrics::{ControllerLabels, ReconcileLabels};
use crate::own_writes::OwnWrites;
use crate::runtime::Runtime;
use crate::sentence;
use crate::stalled::{self, Conditions};
use crate::watch::Triggers;

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
                doubled(Duration::from_secs(2), Duration::from_secs(300))
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
    /// Where they have their conditions, if the condition `Stalled` is to show there why an
    /// action fails.
    pub conditions: Option<Conditions<K>>,
}

/// An error that may pass by itself is shown when it has come this often in a row.
const STALLED_AFTER: u32 = 3;

/// How many reconciles of an object have failed in a row.
type Failures<K> = Mutex<HashMap<ObjectRef<K>, u32>>;

impl<K> Controller<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    /// Reconciles until the runtime drains, and returns when running work has ended. Whenever the
    /// lease is acquired every object of the store is reconciled; when it is lost, running
    /// reconciles are aborted.
    pub async fn run<Ctx, F, Fut, E>(self, runtime: &Runtime, ctx: Arc<Ctx>, reconcile: F)
    where
        Ctx: Send + Sync + 'static,
        F: Fn(Arc<K>, Arc<Ctx>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Action, E>> + Send + 'static,
        E: Classify,
    {
        let Self { name, store, own, mut triggers, conditions } = self;
        let reconcile = Arc::new(reconcile);
        let failures: Arc<Failures<K>> = Arc::default();
        loop {
            if !may_start(runtime, &mut triggers).await {
                return;
            }
            tracing::info!(controller = name, objects = store.len(), "reconciling under the lease");
            let all: Vec<_> = store
                .state()
                .iter()
                .map(|object| Ok(ObjectRef::from_obj(object.as_ref())))
                .collect();
            let drained = runtime.drain.clone();
            let incoming = futures::stream::poll_fn(|context| triggers.0.poll_recv(context))
                .map(Ok::<_, Infallible>);
            let queue =
                futures::stream::iter(all).chain(incoming).take_until(drained.cancelled_owned());
            let step = Step {
                name,
                runtime: runtime.clone(),
                own: own.clone(),
                reconcile: reconcile.clone(),
                failures: failures.clone(),
                conditions,
            };
            let config = Config::default().concurrency(runtime.args.concurrency.max(1));
            let results = applier(
                move |object, ctx| Box::pin(step.clone().run(object, ctx)),
                |_, error: &Infallible, _| match *error {},
                ctx.clone(),
                store.clone(),
                Box::pin(queue),
                config,
            );
            let term = results.for_each(|result| {
                if let Err(QueueError::ObjectNotFound(gone)) = result {
                    failures.lock().retain(|object, _| {
                        object.name != gone.name || object.namespace != gone.namespace
                    });
                }
                std::future::ready(())
            });
            tokio::select! {
                // Ends only after a drain, when the last running reconcile has ended.
                () = term => return,
                () = runtime.leadership.lost() => tracing::warn!(controller = name, "the lease is lost: running work is aborted"),
            }
        }
    }
}

/// Waits until the process is ready and holds the lease; false when it drains before.
async fn may_start<K: Resource<DynamicType = ()>>(
    runtime: &Runtime,
    triggers: &mut Triggers<K>,
) -> bool {
    // Without the lease references are dropped: acquiring it reconciles every object anyway.
    let standby = async {
        while triggers.recv().await.is_some() {}
        std::future::pending::<()>().await;
    };
    let acquired = async {
        runtime.readiness.ready().await;
        runtime.leadership.acquired().await
    };
    tokio::select! {
        () = runtime.drain.cancelled() => false,
        _ = acquired => true,
        () = standby => false,
    }
}

struct Step<K: Resource<DynamicType = ()> + 'static, F> {
    name: &'static str,
    runtime: Runtime,
    own: Arc<OwnWrites<K>>,
    reconcile: Arc<F>,
    failures: Arc<Failures<K>>,
    conditions: Option<Conditions<K>>,
}

impl<K: Resource<DynamicType = ()> + 'static, F> Clone for Step<K, F> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            runtime: self.runtime.clone(),
            own: self.own.clone(),
            reconcile: self.reconcile.clone(),
            failures: self.failures.clone(),
            conditions: self.conditions,
        }
    }
}

impl<K, F> Step<K, F>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    async fn run<Ctx, Fut, E>(self, object: Arc<K>, ctx: Arc<Ctx>) -> Result<Action, Infallible>
    where
        F: Fn(Arc<K>, Arc<Ctx>) -> Fut,
        Fut: Future<Output = Result<Action, E>> + Send + 'static,
        E: Classify,
    {
        let reference = ObjectRef::from_obj(object.as_ref());
        let meta = object.meta();
        let span = tracing::info_span!(
            "reconcile",
            controller = self.name,
            namespace = meta.namespace,
            name = meta.name,
            generation = meta.generation
        );
        if self.runtime.leadership.held().is_none() {
            return Ok(Action::await_change());
        }
        let Some(object) = self.own.newest(object) else { return Ok(Action::await_change()) };
        let (started, about) = (tokio::time::Instant::now(), object.clone());
        // A task of its own: reconciles run in parallel, a panic ends only one of them, and
        // dropping the handle aborts it.
        let task = AbortOnDropHandle::new(tokio::spawn(
            (self.reconcile)(object, ctx).instrument(span.clone()),
        ));
        let ended = task.await;
        let seconds = started.elapsed().as_secs_f64();
        self.runtime
            .metrics
            .reconcile_seconds
            .get_or_create(&ControllerLabels { controller: self.name })
            .observe(seconds);
        let (result, action, stalled) = span.in_scope(|| match ended {
            Ok(Ok(action)) => {
                self.failures.lock().remove(&reference);
                let change = action == Action::await_change();
                (if change { "success" } else { "requeue" }, action, Some(None))
            }
            Ok(Err(error)) => {
                let (action, failures) = self.retry(reference, error.class(), &error);
                (error.class().label(), action, stalled(&error, failures).map(Some))
            }
            Err(panic) => {
                let (action, _) = self.retry(reference, Class::Fatal, &panic);
                (Class::Fatal.label(), action, None)
            }
        });
        if let Some(message) = stalled {
            self.report(about.as_ref(), message).instrument(span).await;
        }
        self.runtime
            .metrics
            .reconciles
            .get_or_create(&ReconcileLabels { controller: self.name, result })
            .inc();
        Ok(action)
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

    /// Counts a failure, logs it, and requeues the object with back-off.
    fn retry(
        &self,
        reference: ObjectRef<K>,
        class: Class,
        error: &(dyn std::error::Error + 'static),
    ) -> (Action, u32) {
        let failures = {
            let mut failures = self.failures.lock();
            let failures = failures.entry(reference).or_default();
            *failures = failures.saturating_add(1);
            *failures
        };
        let after = jittered(class.back_off(failures));
        match class {
            Class::Conflict => {
                tracing::debug!(error, failures, ?after, "somebody else has written first");
            }
            Class::Fatal => {
                tracing::error!(error, failures, ?after, "a reconcile failed by a defect");
            }
            _ => {
                tracing::warn!(
                    error,
                    class = class.label(),
                    failures,
                    ?after,
                    "a reconcile failed"
                );
            }
        }
        (Action::requeue(after), failures)
    }
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
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_to_a_limit() {
        let class = Class::Retry { after: None };
        let waits: Vec<_> = (1..=10).map(|failures| class.back_off(failures).as_millis()).collect();
        assert_eq!(
            waits,
            [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]
        );
        assert_eq!(class.back_off(u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn a_given_wait_is_kept() {
        assert_eq!(
            Class::Retry { after: Some(Duration::from_secs(7)) }.back_off(9),
            Duration::from_secs(7)
        );
    }
}
