//! Where slow calls wait: apart from the slots of reconciles, and each beside those of its own kind
//! only.
//!
//! A reconcile that waits for a remote, a bead store or a webhook gives its slot to another object
//! meanwhile. Calls to one neighbour (a host, a rig's bead store, a route) share a number of places,
//! so that one that does not answer delays its own callers and nobody else.

use std::collections::HashMap;
use std::fmt::{self, Debug, Formatter};
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

tokio::task_local! {
    /// The slot of the reconcile that runs in this task.
    static SLOT: Arc<Slot>;
}

/// A controller's slot while a reconcile has it.
struct Slot {
    all: Arc<Semaphore>,
    state: Mutex<SlotState>,
}

struct SlotState {
    held: Option<OwnedSemaphorePermit>,
    /// How many slow calls the reconcile waits for.
    calls: usize,
}

impl Slot {
    /// Gives the slot up for a call, until the last one has ended.
    fn leave(self: &Arc<Self>) -> Outside {
        let mut state = self.state.lock();
        (state.held, state.calls) = (None, state.calls.saturating_add(1));
        Outside(self.clone())
    }

    /// Takes a slot again unless there is one, or a call that makes it unnecessary.
    async fn enter(&self) {
        let is_needed = |state: &SlotState| state.calls == 0 && state.held.is_none();
        if !is_needed(&self.state.lock()) {
            return;
        }
        // It fails when the semaphore is closed, which it never is.
        let again = self.all.clone().acquire_owned().await.ok();
        let mut state = self.state.lock();
        if is_needed(&state) {
            state.held = again;
        }
    }
}

/// A reconcile waits for a slow call.
struct Outside(Arc<Slot>);

impl Drop for Outside {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.calls = state.calls.saturating_sub(1);
    }
}

/// Runs a reconcile with a slot of `all`, which ends with it.
pub(crate) async fn with_slot<T>(
    all: Arc<Semaphore>,
    permit: OwnedSemaphorePermit,
    reconcile: impl Future<Output = T>,
) -> T {
    let state = Mutex::new(SlotState { held: Some(permit), calls: 0 });
    let slot = Slot { all, state };
    SLOT.scope(Arc::new(slot), reconcile).await
}

/// Awaits a call without the slot of the reconcile that makes it; outside of a reconcile it is
/// awaited as it is.
async fn without_slot<T>(call: impl Future<Output = T> + Send) -> T {
    let Ok(slot) = SLOT.try_with(Arc::clone) else { return call.await };
    let outside = slot.leave();
    let result = call.await;
    drop(outside);
    slot.enter().await;
    result
}

/// Places for slow calls, so many for each neighbour.
pub struct Places {
    each: usize,
    neighbours: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Debug for Places {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").field("each", &self.each).finish_non_exhaustive()
    }
}

impl Places {
    /// `each`: how many calls to one neighbour are made at a time, at least one.
    pub fn new(each: usize) -> Self {
        Self { each: each.max(1), neighbours: Mutex::default() }
    }

    /// Makes a call to a neighbour once a place for it is free. The reconcile that makes it, if one
    /// does, gives up its slot meanwhile. The caller bounds the call's time.
    pub fn call<'a, T: Send + 'a>(
        &'a self,
        neighbour: &'a str,
        call: impl Future<Output = T> + Send + 'a,
    ) -> BoxFuture<'a, T> {
        // Such calls are large: the callers of their callers would hold them.
        let call = Box::pin(call);
        let with_place = async move {
            // It fails when the semaphore is closed, which it never is.
            let _place = self.of(neighbour).acquire_owned().await.ok();
            call.await
        };
        Box::pin(without_slot(with_place))
    }

    fn of(&self, neighbour: &str) -> Arc<Semaphore> {
        let mut all = self.neighbours.lock();
        if let Some(places) = all.get(neighbour) {
            return places.clone();
        }
        // Those that nobody uses are made again when they are needed.
        all.retain(|_, places| Arc::strong_count(places) > 1);
        let places = Arc::new(Semaphore::new(self.each));
        all.insert(neighbour.to_owned(), places.clone());
        places
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    async fn slot(all: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        all.clone().acquire_owned().await.unwrap()
    }

    #[tokio::test]
    async fn a_slow_call_gives_the_slot_to_another_reconcile() {
        let all = Arc::new(Semaphore::new(1));
        let places = Places::new(1);
        let (answer, answered) = tokio::sync::oneshot::channel();
        let first = with_slot(all.clone(), slot(&all).await, async {
            assert_eq!(all.available_permits(), 0);
            places.call("remote", answered).await.unwrap();
            all.available_permits()
        });
        let mut first = Box::pin(first);
        assert!(first.as_mut().now_or_never().is_none(), "the call is not answered yet");
        let second = with_slot(all.clone(), slot(&all).await, async { all.available_permits() });
        assert_eq!(second.await, 0, "it runs meanwhile, and holds the slot");
        answer.send(()).unwrap();
        assert_eq!(first.await, 0, "it has a slot again");
        assert_eq!(all.available_permits(), 1, "both slots have ended");
    }

    #[tokio::test]
    async fn a_reconcile_with_several_slow_calls_takes_one_slot_after_them() {
        let all = Arc::new(Semaphore::new(1));
        let places = Places::new(8);
        let reconcile = with_slot(all.clone(), slot(&all).await, async {
            let calls = (0..3).map(|_| places.call("a", tokio::task::yield_now()));
            futures::future::join_all(calls).await;
            all.available_permits()
        });
        assert_eq!(reconcile.await, 0);
        assert_eq!(all.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_neighbour_that_does_not_answer_delays_only_its_own_callers() {
        let places = Places::new(2);
        let call = |neighbour: &'static str| {
            Box::pin(places.call(neighbour, std::future::pending::<()>()))
        };
        let mut silent = [call("a"), call("a"), call("a")];
        for call in &mut silent {
            assert!(call.as_mut().now_or_never().is_none());
        }
        let mut third = Box::pin(places.call("a", async { 1 }));
        assert_eq!(third.as_mut().now_or_never(), None, "its two places are taken");
        assert_eq!(places.call("b", async { 2 }).await, 2);
        drop(silent);
        assert_eq!(third.await, 1);
        let keys: Vec<_> = places.neighbours.lock().keys().cloned().collect();
        assert!(keys.len() <= 2, "{keys:?}");
    }

    #[tokio::test]
    async fn a_reconcile_that_is_dropped_in_a_slow_call_leaves_no_slot_taken() {
        let all = Arc::new(Semaphore::new(1));
        let places = Places::new(1);
        let mut reconcile = Box::pin(with_slot(all.clone(), slot(&all).await, async {
            places.call("a", std::future::pending::<()>()).await;
        }));
        assert!(reconcile.as_mut().now_or_never().is_none());
        drop(reconcile);
        assert_eq!(all.available_permits(), 1);
        assert_eq!(places.call("a", async { 1 }).await, 1);
    }
}
