//! For which rigs this process works: rigs are divided into shards, and each shard has one replica
//! that works on it.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gastown_types::digest;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use crate::member::SHARDS;
use crate::member::{Replica, Share};

/// The shard of a rig, or of whatever else has this name and is divided.
pub fn of(rig: &str) -> usize {
    let digest = digest::sha256(rig.as_bytes());
    let first = u32::from_str_radix(digest.get(..8).unwrap_or_default(), 16).unwrap_or_default();
    usize::try_from(first).unwrap_or_default() % SHARDS
}

/// What is known of the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// What this process is to each shard, until `valid_until`.
    pub shares: [Share; SHARDS],
    /// Until when this process may act; in the past when it may not.
    pub valid_until: Instant,
    /// Where the other replicas serve.
    pub others: Vec<IpAddr>,
}

impl State {
    /// The term of a shard that this process works on, and may still write for.
    fn term(&self, shard: usize) -> Option<u64> {
        match self.shares[shard] {
            Share::Ours(term) | Share::Draining(term) if Instant::now() < self.valid_until => {
                Some(term)
            }
            _ => None,
        }
    }

    /// Whether this process works on a shard.
    pub(crate) fn is_held(&self, shard: usize) -> bool {
        self.term(shard).is_some()
    }

    /// The same, for a shard on which new work may begin.
    fn open(&self, shard: usize) -> Option<u64> {
        self.term(shard).filter(|_| matches!(self.shares[shard], Share::Ours(_)))
    }
}

/// How much work runs on each shard.
#[derive(Debug, Default)]
pub(crate) struct Running {
    counts: [AtomicUsize; SHARDS],
    /// Woken when the last work has ended of a shard that is to be handed over.
    pub idle: Notify,
}

impl Running {
    /// On which shards no work runs.
    pub(crate) fn idle(&self) -> [bool; SHARDS] {
        std::array::from_fn(|shard| self.counts[shard].load(Ordering::SeqCst) == 0)
    }
}

/// The shards, and which of them are this process's. Clones share.
#[derive(Clone, Debug)]
pub struct Shards {
    state: watch::Receiver<Arc<State>>,
    running: Arc<Running>,
}

/// Work on a shard, which is not handed over before this is dropped, but may be lost.
#[derive(Debug)]
pub struct Work {
    shards: Shards,
    shard: usize,
    term: u64,
}

impl Drop for Work {
    fn drop(&mut self) {
        let Shards { running, state } = &self.shards;
        let was_last = running.counts[self.shard].fetch_sub(1, Ordering::SeqCst) == 1;
        // Nobody waits for the end of what is not drained.
        if was_last && !matches!(state.borrow().shares[self.shard], Share::Ours(_)) {
            running.idle.notify_one();
        }
    }
}

impl Work {
    /// Waits for the end of the work, or until the shard is lost, which gives none.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.shards.while_state(|state| state.term(self.shard) == Some(self.term)) => None,
        }
    }
}

impl Shards {
    pub(crate) fn new(state: watch::Receiver<Arc<State>>, running: Arc<Running>) -> Self {
        Self { state, running }
    }

    /// All shards, for good: for a process without other replicas, such as a test.
    pub fn all() -> Self {
        Self::fixed(|_| Share::Ours(1))
    }

    /// No shard: all are another replica's for good, which serves at this address. For tests.
    pub fn elsewhere(address: IpAddr) -> Self {
        let name = "another".to_owned();
        Self::fixed(|_| Share::Others(Some(Replica { name: name.clone(), address: Some(address) })))
    }

    fn fixed(share: impl FnMut(usize) -> Share) -> Self {
        // Thirty years: tokio's clock has no infinity.
        let valid_until = Instant::now() + Duration::from_secs(86_400 * 365 * 30);
        let shares = std::array::from_fn(share);
        let state = State { shares, valid_until, others: Vec::new() };
        let (sender, state) = watch::channel(Arc::new(state));
        // The sender lives as long as the process: a closed channel would mean lost shards.
        std::mem::forget(sender);
        Self::new(state, Arc::default())
    }

    /// The term of this process's work for a rig, while it may write for it. To be checked before each
    /// write. Whatever was learnt in another term may be wrong.
    pub fn held(&self, rig: &str) -> Option<u64> {
        self.state.borrow().term(of(rig))
    }

    /// The same by the number of a shard.
    pub fn term(&self, shard: usize) -> Option<u64> {
        self.state.borrow().term(shard)
    }

    /// Whether new work for this rig may begin here.
    pub fn serves(&self, rig: &str) -> bool {
        self.state.borrow().open(of(rig)).is_some()
    }

    /// Whether this process works for any rig.
    pub fn serves_any(&self) -> bool {
        let state = self.state.borrow();
        (0..SHARDS).any(|shard| state.open(shard).is_some())
    }

    /// Begins work for a rig; none when it is not ours, or is about to be handed over.
    pub fn enter(&self, rig: &str) -> Option<Work> {
        let shard = of(rig);
        // Counted before the look: who hands the shard over first shows that, and then counts.
        self.running.counts[shard].fetch_add(1, Ordering::SeqCst);
        let mut work = Work { shards: self.clone(), shard, term: 0 };
        work.term = self.state.borrow().open(shard)?;
        Some(work)
    }

    /// The name and the address of the replica that works for a rig, as far as they are known, when it
    /// is another one.
    pub fn other(&self, rig: &str) -> (Option<String>, Option<IpAddr>) {
        match &self.state.borrow().shares[of(rig)] {
            Share::Others(Some(replica)) => (Some(replica.name.clone()), replica.address),
            _ => (None, None),
        }
    }

    /// Where any other replica serves.
    pub fn others(&self) -> Vec<IpAddr> {
        self.state.borrow().others.clone()
    }

    /// Waits until no new work for the rig begins here: its shard is handed over, or was lost.
    pub async fn retired(&self, rig: &str) {
        let shard = of(rig);
        self.while_state(|state| state.open(shard).is_some()).await;
    }

    /// Waits until the shards that are open here, or the other replicas, are not the same any more.
    pub async fn regrouped(&self) {
        let key = |state: &State| {
            let open: [bool; SHARDS] = std::array::from_fn(|shard| state.open(shard).is_some());
            (open, state.others.clone())
        };
        let before = key(&self.state.borrow());
        self.while_state(|state| key(state) == before).await;
    }

    /// Waits while something is so; looks again at each change, and when the time to act has run out.
    async fn while_state(&self, is_so: impl Fn(&State) -> bool) {
        let mut state = self.state.clone();
        loop {
            let until = {
                let now = state.borrow_and_update();
                if !is_so(&now) {
                    return;
                }
                now.valid_until
            };
            tokio::select! {
                () = tokio::time::sleep_until(until), if Instant::now() < until => {}
                changed = state.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Which shards' work begins or has ended, as time goes on.
    pub(crate) fn changes(&self) -> Changes {
        Changes { shards: self.clone(), state: self.state.clone(), known: [None; SHARDS] }
    }
}

/// The shards that this process took since the last look.
#[derive(Debug)]
pub(crate) struct Changes {
    shards: Shards,
    state: watch::Receiver<Arc<State>>,
    known: [Option<u64>; SHARDS],
}

impl Changes {
    /// Waits until shards were taken, and returns which. Cancel safe.
    pub(crate) async fn taken(&mut self) -> Vec<usize> {
        loop {
            let until = self.state.borrow_and_update().valid_until;
            let mut taken = Vec::new();
            for shard in 0..SHARDS {
                let term = self.shards.term(shard);
                if term.is_some() && term != self.known[shard] {
                    taken.push(shard);
                }
                self.known[shard] = term;
            }
            if !taken.is_empty() {
                return taken;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until), if Instant::now() < until => {}
                changed = self.state.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn rigs_are_spread_over_all_shards() {
        let mut counts = [0; SHARDS];
        for rig in 0..1600 {
            counts[of(&format!("rig-{rig}"))] += 1;
        }
        assert!(counts.iter().all(|count| (60..150).contains(count)), "{counts:?}");
        assert_eq!((of("web"), of("demo")), (of("web"), of("demo")));
    }

    #[tokio::test]
    async fn work_begins_on_open_shards_and_ends_when_they_are_lost() {
        let valid_until = Instant::now() + Duration::from_secs(3600);
        let state = |share: Share| {
            let shares = std::array::from_fn(|_| share.clone());
            Arc::new(State { shares, valid_until, others: Vec::new() })
        };
        let (sender, receiver) = watch::channel(state(Share::Ours(1)));
        let shards = Shards::new(receiver, Arc::default());
        let work = shards.enter("web").unwrap();
        assert!(!shards.running.idle()[of("web")] && shards.serves("web"));
        sender.send_replace(state(Share::Draining(1)));
        assert_eq!((shards.held("web"), shards.serves("web")), (Some(1), false));
        assert!(shards.enter("web").is_none(), "nothing new begins");
        shards.retired("web").await;
        assert_eq!(work.run(async { 7 }).await, Some(7), "what runs goes on");
        drop(work);
        assert_eq!(shards.running.idle(), [true; SHARDS]);

        sender.send_replace(state(Share::Ours(2)));
        let work = shards.enter("web").unwrap();
        let mut run = Box::pin(work.run(std::future::pending::<()>()));
        assert!((&mut run).now_or_never().is_none());
        sender.send_replace(state(Share::Others(None)));
        assert_eq!(run.await, None);
        assert!(!shards.running.idle()[of("web")], "it is being aborted");
        drop(work);
        assert_eq!(shards.running.idle(), [true; SHARDS]);
        assert!(shards.enter("web").is_none() && shards.held("web").is_none());
        assert_eq!(shards.running.idle(), [true; SHARDS]);
    }
}
