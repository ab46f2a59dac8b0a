//! What the bench's own watches see, and when: its only clock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::{Stream, StreamExt as _};
use gastown_api::names::label;
use gastown_api::{Convoy, ConvoyPhase, Polecat, PolecatPhase};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// When each thing of one polecat's life was first seen.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// The request that created it was sent; not seen but done by the bench.
    pub created: Option<Instant>,
    /// Its pod exists.
    pub pod: Option<Instant>,
    /// Its pod is Running.
    pub running: Option<Instant>,
    /// Its pod has ended.
    pub ended: Option<Instant>,
    /// It is Done.
    pub done: Option<Instant>,
    /// Its convoy is Complete.
    pub complete: Option<Instant>,
    /// The uids of its pods; more than one is work that ran twice.
    pods: HashSet<String>,
}

/// A pod that has not ended.
#[derive(Clone, Debug)]
pub struct LivePod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// How many lives have come how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Polecats that exist.
    pub polecats: usize,
    /// Pods that exist.
    pub pods: usize,
    /// Lives whose pod was seen Running.
    pub running: usize,
    /// Lives whose pod was seen at all.
    pub started: usize,
    /// Lives that were seen Done.
    pub done: usize,
    /// Lives whose convoy was seen Complete.
    pub complete: usize,
}

/// All that was seen.
#[derive(Default)]
pub struct Board {
    /// Lives by the name of their Polecat; names are used once.
    pub lives: HashMap<String, Life>,
    /// The pods that have not ended, by the name of their Polecat.
    pub live: BTreeMap<String, LivePod>,
    /// One pod, bound to a node; all others have the same containers.
    pub sample: Option<Pod>,
    /// How many lives have come how far.
    pub counts: Counts,
    /// The largest number of live pods that a rig had at a time.
    pub most_live: usize,
    /// What must not happen.
    pub faults: Vec<String>,
    cap: usize,
    live_of_rig: HashMap<String, HashSet<String>>,
    polecats: HashSet<String>,
    pods: HashSet<String>,
}

/// The watches.
pub struct Observer {
    board: Arc<Mutex<Board>>,
    changed: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Observer {
    /// Watches a namespace in which each rig may have at most `cap` live pods.
    pub fn start(client: &Client, namespace: &str, cap: usize) -> Self {
        let board = Arc::new(Mutex::new(Board { cap, ..Board::default() }));
        let (changed, mut tasks) = (Arc::new(Notify::new()), JoinSet::new());
        let config = watcher::Config::default;
        let polecats: Api<Polecat> = Api::namespaced(client.clone(), namespace);
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let convoys: Api<Convoy> = Api::namespaced(client.clone(), namespace);
        tasks.spawn(follow(watcher(polecats, config()), &board, &changed, Board::polecat));
        tasks.spawn(follow(watcher(pods, config()), &board, &changed, Board::pod));
        tasks.spawn(follow(watcher(convoys, config()), &board, &changed, Board::convoy));
        Self { board, changed, _tasks: tasks }
    }

    /// What was seen so far.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the counts are as wanted; returns when that was seen.
    pub async fn until(
        &self,
        limit: Duration,
        what: &str,
        wanted: impl Fn(&Counts) -> bool,
    ) -> Result<Instant> {
        let seen = async {
            loop {
                let changed = self.changed.notified();
                if wanted(&self.board().counts) {
                    return Instant::now();
                }
                changed.await;
            }
        };
        match tokio::time::timeout(limit, seen).await {
            Ok(at) => Ok(at),
            Err(_) => bail!("{what}: not within {limit:?}; seen: {:?}", self.board().counts),
        }
    }
}

/// Notes every event of a watch.
fn follow<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    board: &Arc<Mutex<Board>>,
    changed: &Arc<Notify>,
    note: fn(&mut Board, K, bool, Instant),
) -> impl Future<Output = ()> + Send + 'static
where
    K: Send + 'static,
{
    let (board, changed) = (Arc::clone(board), Arc::clone(changed));
    async move {
        let mut events = std::pin::pin!(events.default_backoff());
        while let Some(event) = events.next().await {
            let at = Instant::now();
            let (object, exists) = match event {
                Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                    (object, true)
                }
                Ok(watcher::Event::Delete(object)) => (object, false),
                Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => continue,
            };
            note(&mut board.lock().unwrap_or_else(PoisonError::into_inner), object, exists, at);
            changed.notify_waiters();
        }
    }
}

impl Board {
    /// The next lives are counted from zero; those that were are forgotten.
    pub fn begin(&mut self) {
        self.lives.clear();
        (self.counts.running, self.counts.started) = (0, 0);
        (self.counts.done, self.counts.complete) = (0, 0);
    }

    /// A polecat is about to be created.
    pub fn creating(&mut self, name: &str) {
        let life = self.lives.entry(name.to_owned()).or_default();
        life.created = Some(Instant::now());
    }

    fn polecat(&mut self, polecat: Polecat, exists: bool, at: Instant) {
        let name = polecat.name_any();
        if exists {
            self.polecats.insert(name.clone());
        } else {
            self.polecats.remove(&name);
        }
        self.counts.polecats = self.polecats.len();
        let phase = polecat.status.as_ref().and_then(|status| status.phase);
        let Some(life) = self.lives.get_mut(&name) else { return };
        if phase == Some(PolecatPhase::Done) && life.done.is_none() {
            life.done = Some(at);
            self.counts.done += 1;
        }
        if phase == Some(PolecatPhase::Stuck) && exists {
            let why = polecat.status.map(|status| status.conditions).unwrap_or_default();
            let why: Vec<_> = why.iter().filter(|c| c.status == "False").collect();
            self.fault(format!("polecat {name} is Stuck: {why:?}"));
        }
    }

    fn convoy(&mut self, convoy: Convoy, _exists: bool, at: Instant) {
        let name = convoy.name_any();
        let phase = convoy.status.and_then(|status| status.phase);
        let Some(life) = self.lives.get_mut(&name) else { return };
        if phase == Some(ConvoyPhase::Complete) && life.complete.is_none() {
            life.complete = Some(at);
            self.counts.complete += 1;
        }
    }

    fn pod(&mut self, pod: Pod, exists: bool, at: Instant) {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let of = |key: &str| pod.labels().get(key).cloned().unwrap_or_default();
        let (polecat, rig) = (of(label::POLECAT), of(label::RIG));
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let has_ended = matches!(phase, "Succeeded" | "Failed");
        let is_running = phase == "Running";
        if exists {
            self.pods.insert(uid.clone());
        } else {
            self.pods.remove(&uid);
        }
        self.counts.pods = self.pods.len();
        self.count_live(&rig, &uid, exists && !has_ended);
        if exists && is_running {
            self.live.insert(polecat.clone(), LivePod { name, uid: uid.clone() });
        } else {
            self.live.remove(&polecat);
        }
        self.life_of_pod(&polecat, uid, (is_running, has_ended), at);
        if self.sample.is_none() && is_running {
            self.sample = Some(pod);
        }
    }

    fn life_of_pod(
        &mut self,
        polecat: &str,
        uid: String,
        (is_running, has_ended): (bool, bool),
        at: Instant,
    ) {
        let Some(life) = self.lives.get_mut(polecat) else { return };
        if life.pod.is_none() {
            self.counts.started += 1;
        }
        life.pod.get_or_insert(at);
        if is_running && life.running.is_none() {
            life.running = Some(at);
            self.counts.running += 1;
        }
        if has_ended {
            life.ended.get_or_insert(at);
        }
        if life.pods.insert(uid) && life.pods.len() > 1 {
            let pods = life.pods.len();
            self.fault(format!("polecat {polecat} ran {pods} times"));
        }
    }

    fn count_live(&mut self, rig: &str, uid: &str, is_live: bool) {
        let live = self.live_of_rig.entry(rig.to_owned()).or_default();
        if is_live {
            live.insert(uid.to_owned());
        } else {
            live.remove(uid);
        }
        let count = live.len();
        self.most_live = self.most_live.max(count);
        if count > self.cap {
            let cap = self.cap;
            self.fault(format!("rig {rig} has {count} live pods, more than its cap of {cap}"));
        }
    }

    fn fault(&mut self, what: String) {
        if self.faults.len() < 20 && !self.faults.contains(&what) {
            self.faults.push(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(polecat: &str, uid: &str, phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": format!("polecat-{polecat}"), "uid": uid,
                "labels": {label::POLECAT: polecat, label::RIG: "web"},
            },
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn board(cap: usize, lives: &[&str]) -> Board {
        let mut board = Board { cap, ..Board::default() };
        for name in lives {
            board.creating(name);
        }
        board
    }

    #[test]
    fn a_rig_with_more_live_pods_than_its_cap_is_a_fault() {
        let mut board = board(1, &["a", "b"]);
        let at = Instant::now();
        board.pod(pod("a", "1", "Running"), true, at);
        board.pod(pod("a", "1", "Succeeded"), true, at);
        board.pod(pod("b", "2", "Pending"), true, at);
        assert_eq!((board.most_live, board.faults.len()), (1, 0));
        board.pod(pod("c", "3", "Pending"), true, at);
        assert_eq!((board.most_live, board.faults.len()), (2, 1));
    }

    #[test]
    fn a_second_pod_of_a_polecat_is_a_fault() {
        let mut board = board(9, &["a"]);
        let at = Instant::now();
        board.pod(pod("a", "1", "Running"), true, at);
        board.pod(pod("a", "1", "Running"), false, at);
        assert!(board.faults.is_empty());
        board.pod(pod("a", "2", "Pending"), true, at);
        assert_eq!(board.faults, ["polecat a ran 2 times"]);
    }

    #[test]
    fn each_step_is_counted_once_and_keeps_its_first_time() {
        let mut board = board(9, &["a"]);
        let first = Instant::now();
        let later = first + Duration::from_secs(1);
        board.pod(pod("a", "1", "Running"), true, first);
        board.pod(pod("a", "1", "Running"), true, later);
        assert_eq!(board.lives["a"].running, Some(first));
        assert_eq!(board.live["a"].uid, "1");
        board.pod(pod("a", "1", "Succeeded"), true, later);
        assert_eq!((board.counts.started, board.counts.running, board.counts.pods), (1, 1, 1));
        assert_eq!((board.lives["a"].ended, board.live.len()), (Some(later), 0));
        board.pod(pod("a", "1", "Succeeded"), false, later);
        assert_eq!(board.counts.pods, 0);
    }
}
