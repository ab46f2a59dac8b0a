//! Runs a reconcile function over the objects of a store: bounded, backed off by object, only under
//! the lease.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::Resource;
use kube::runtime::controller::{Action, Config, Error as QueueError, applier};
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::Runtime;
use crate::metrics::{ControllerLabels, ReconcileLabels};
use crate::watch::Triggers;

/// What kind of failure an error is: the only input to retry, metric label and log level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Something outside failed; again after this long, or with back-off.
    Retry {
        /// When the other side named a time.
        after: Option<Duration>,
    },
    /// Somebody else wrote first: look again at once.
    Conflict,
    /// Something referred to is not there.
    Missing,
    /// A permission lacks.
    Forbidden,
    /// Only a change of the spec helps.
    InvalidSpec,
    /// A defect of ours.
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

    /// The class of an API server's answer.
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

    /// The wait before the `tries`-th try again, counted from 1, without jitter.
    fn back_off(self, tries: u32) -> Duration {
        let doubled = |first: Duration, most: Duration| {
            first.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(most)
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

/// An error of a reconcile.
pub trait Classify: std::error::Error + Send + Sync + 'static {
    /// What kind of failure it is.
    fn class(&self) -> Class;
}

impl Classify for kube::Error {
    fn class(&self) -> Class {
        Class::of(self)
    }
}

/// The safety net under the watches: every object again after about ten minutes.
pub fn resync() -> Action {
    Action::requeue(crate::jittered(Duration::from_secs(600)))
}

/// What one controller runs on.
pub struct Controller<K: Resource<DynamicType = ()> + 'static> {
    /// The metric label: `rig`, `polecat`, …
    pub name: &'static str,
    /// The objects.
    pub store: Store<K>,
    /// Which of them to look at.
    pub triggers: Triggers<K>,
}

type Tries<K> = Mutex<HashMap<ObjectRef<K>, u32>>;

impl<K> Controller<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    /// Reconciles until the runtime drains. Each time that the lease is won everything in the store
    /// is looked at; when it is lost, running reconciles are dropped where they stand. Returns when
    /// running work has ended.
    pub async fn run<Ctx, F, Fut, E>(self, runtime: &Runtime, context: Arc<Ctx>, reconcile: F)
    where
        Ctx: Send + Sync + 'static,
        F: Fn(Arc<K>, Arc<Ctx>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Action, E>> + Send + 'static,
        E: Classify,
    {
        let Self { name, store, triggers: Triggers(mut triggers) } = self;
        let reconcile = Arc::new(reconcile);
        let tries: Arc<Tries<K>> = Arc::default();
        loop {
            // Without the lease references are thrown away: winning it looks at everything anyway.
            let standby = async {
                loop {
                    if triggers.recv().await.is_none() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            let may_start = async {
                runtime.readiness.ready().await;
                runtime.leadership.acquired().await
            };
            tokio::select! {
                () = runtime.drain.cancelled() => return,
                _ = may_start => {}
                () = standby => {}
            }
            tracing::info!(controller = name, objects = store.len(), "reconciling under the lease");
            let all: Vec<_> = store
                .state()
                .iter()
                .map(|object| Ok(ObjectRef::from_obj(object.as_ref())))
                .collect();
            let drained = runtime.drain.clone();
            let incoming = futures::stream::poll_fn(|context| triggers.poll_recv(context))
                .map(Ok::<_, Infallible>);
            let queue =
                futures::stream::iter(all).chain(incoming).take_until(drained.cancelled_owned());
            let step = Step {
                name,
                runtime: runtime.clone(),
                reconcile: reconcile.clone(),
                tries: tries.clone(),
            };
            let config = Config::default().concurrency(runtime.args.concurrency.max(1));
            let results = applier(
                move |object, context| Box::pin(step.clone().take(object, context)),
                |_, error: &Infallible, _| match *error {},
                context.clone(),
                store.clone(),
                Box::pin(queue),
                config,
            );
            let term = results.for_each(|result| {
                if let Err(QueueError::ObjectNotFound(gone)) = result {
                    tries.lock().retain(|object, _| {
                        object.name != gone.name || object.namespace != gone.namespace
                    });
                }
                std::future::ready(())
            });
            tokio::select! {
                // Ends by drain only, when the last running reconcile has.
                () = term => return,
                () = runtime.leadership.lost() => tracing::warn!(controller = name, "the lease is lost: running work is dropped"),
            }
        }
    }
}

struct Step<K: Resource<DynamicType = ()> + 'static, F> {
    name: &'static str,
    runtime: Runtime,
    reconcile: Arc<F>,
    tries: Arc<Tries<K>>,
}

impl<K: Resource<DynamicType = ()> + 'static, F> Clone for Step<K, F> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            runtime: self.runtime.clone(),
            reconcile: self.reconcile.clone(),
            tries: self.tries.clone(),
        }
    }
}

impl<K, F> Step<K, F>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    async fn take<Ctx, Fut, E>(
        self,
        object: Arc<K>,
        context: Arc<Ctx>,
    ) -> Result<Action, Infallible>
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
        let started = tokio::time::Instant::now();
        // A task of its own: reconciles run in parallel, a panic ends one only, and dropping the
        // handle ends it.
        let task = AbortOnDropHandle::new(tokio::spawn(
            (self.reconcile)(object, context).instrument(span.clone()),
        ));
        let ended = task.await;
        let seconds = started.elapsed().as_secs_f64();
        self.runtime
            .metrics
            .reconcile_seconds
            .get_or_create(&ControllerLabels { controller: self.name })
            .observe(seconds);
        let (result, action) = span.in_scope(|| match ended {
            Ok(Ok(action)) => {
                self.tries.lock().remove(&reference);
                (if action == Action::await_change() { "success" } else { "requeue" }, action)
            }
            Ok(Err(error)) => (error.class().label(), self.again(reference, error.class(), &error)),
            Err(panic) => (Class::Fatal.label(), self.again(reference, Class::Fatal, &panic)),
        });
        self.runtime
            .metrics
            .reconciles
            .get_or_create(&ReconcileLabels { controller: self.name, result })
            .inc();
        Ok(action)
    }

    fn again(
        &self,
        reference: ObjectRef<K>,
        class: Class,
        error: &(dyn std::error::Error + 'static),
    ) -> Action {
        let tries = {
            let mut tries = self.tries.lock();
            let tries = tries.entry(reference).or_default();
            *tries = tries.saturating_add(1);
            *tries
        };
        let after = crate::jittered(class.back_off(tries));
        match class {
            Class::Conflict => tracing::debug!(error, tries, ?after, "somebody else wrote first"),
            Class::Fatal => {
                tracing::error!(error, tries, ?after, "a reconcile failed by our own fault")
            }
            _ => tracing::warn!(error, class = class.label(), tries, ?after, "a reconcile failed"),
        }
        Action::requeue(after)
    }
}

/// A token that is cancelled when the runtime drains or the lease is lost, for long external work.
pub fn term(runtime: &Runtime) -> CancellationToken {
    let token = runtime.drain.child_token();
    let (leadership, lost) = (runtime.leadership.clone(), token.clone());
    let stop = runtime.stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = leadership.lost() => lost.cancel(),
            () = lost.cancelled() => {}
            () = stop.cancelled() => lost.cancel(),
        }
    });
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_to_a_limit() {
        let class = Class::Retry { after: None };
        let waits: Vec<_> = (1..=10).map(|tries| class.back_off(tries).as_millis()).collect();
        assert_eq!(
            waits,
            [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]
        );
        assert_eq!(class.back_off(u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn a_named_time_is_kept() {
        assert_eq!(
            Class::Retry { after: Some(Duration::from_secs(7)) }.back_off(9),
            Duration::from_secs(7)
        );
    }
}
