//! The beads of Convoys: read by id, kept while their store has no new revision, and read again
//! when it has one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use gastown_api::Convoy;
use gastown_core::convoy::{BeadFact, Dependency};
use gastown_proto::v1;
use gastown_runtime::index::Index;
use gastown_runtime::places::Places;
use gastown_runtime::watch::Trigger;
use gastown_runtime::{Runtime, jittered};
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use tonic::Status;

use crate::indices::Indices;
use crate::service::{self, BeadSource};
use crate::watches::is_complete;

/// How many beads a Convoy may have, those that it depends on included.
const MAX_BEADS: usize = 20_000;
/// How many reads of one Rig's beads are made at a time.
const READS: usize = 4;
/// How many beads of complete Convoys are read by one request.
const READ_AT_ONCE: usize = 1_000;
/// The wait before a lost stream is opened again: doubled each time, from the first to the second.
const REOPEN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// The beads of one Convoy, if they are known.
pub(crate) enum ConvoyBeads {
    /// The Convoy's Rig has no bead store, or the Convoy names no Rig or is being deleted.
    NoStore,
    /// The store could not be read, for this reason.
    Unavailable(String),
    /// The beads.
    Read(Arc<Beads>),
}

impl ConvoyBeads {
    /// What the Polecat of a tracked bead is to do, when it is known.
    pub(crate) fn task(&self, bead: &str) -> Option<&str> {
        match self {
            Self::Read(beads) => beads.tasks.get(bead).map(String::as_str),
            Self::NoStore | Self::Unavailable(_) => None,
        }
    }
}

/// Beads as their store holds them.
#[derive(Debug, Default)]
pub(crate) struct Beads {
    /// The Convoy's beads, and what they depend on.
    pub(crate) facts: BTreeMap<String, BeadFact>,
    /// The task of each bead that the Convoy tracks.
    pub(crate) tasks: BTreeMap<String, String>,
}

/// The stream of all Rigs' revisions.
#[derive(Default)]
struct RevisionStream {
    /// It has been started; it is opened again whenever it is lost.
    started: bool,
    /// It is open, so that no revision is missed.
    open: bool,
    /// How many revisions came, by Rig.
    counts: HashMap<String, u64>,
}

impl RevisionStream {
    fn count(&self, rig: &str) -> u64 {
        self.counts.get(rig).copied().unwrap_or(0)
    }
}

/// What was read for one Convoy.
struct Cached {
    /// [`RevisionStream::count`] before it was read.
    revision: u64,
    tracked: Vec<String>,
    beads: Arc<Beads>,
}

/// Reads beads, keeps them while the store has not changed, and triggers Convoys when it has.
pub(crate) struct BeadCache {
    runtime: Runtime,
    source: Arc<dyn BeadSource>,
    /// Where reads wait, by Rig.
    places: Places,
    convoys: Store<Convoy>,
    /// Convoys by their Rig.
    by_rig: Index<Convoy>,
    trigger: Trigger<Convoy>,
    stream: Mutex<RevisionStream>,
    /// By the uid of the Convoy.
    cached: Mutex<HashMap<String, Cached>>,
    /// The Rigs whose Convoys are looked at after a revision, and whether another one came meanwhile.
    looks: Mutex<HashMap<String, bool>>,
}

impl BeadCache {
    /// An empty cache. The stream of revisions is opened when a bead is first read.
    pub(crate) fn new(
        runtime: &Runtime,
        source: Arc<dyn BeadSource>,
        convoys: Store<Convoy>,
        indices: &Indices,
        trigger: Trigger<Convoy>,
    ) -> Arc<Self> {
        let (stream, cached, looks) = Default::default();
        let (runtime, places) = (runtime.clone(), Places::new(READS));
        let by_rig = indices.convoys_by_rig.clone();
        Arc::new(Self { runtime, source, places, convoys, by_rig, trigger, stream, cached, looks })
    }

    /// The beads of a Convoy, or why they cannot be read. From now on a change of the Rig's store
    /// triggers the Convoy.
    pub(crate) async fn read(
        self: &Arc<Self>,
        convoy: &Convoy,
        rig: &str,
    ) -> Result<Arc<Beads>, String> {
        let uid = convoy.uid().unwrap_or_default();
        let tracked = &convoy.spec.tracked_beads;
        // Before the read: a revision that comes meanwhile makes what was read an old one.
        let (is_open, revision) = self.stream(rig);
        if is_open
            && let Some(cached) = self
                .cached
                .lock()
                .get(&uid)
                .filter(|cached| cached.revision == revision && cached.tracked == *tracked)
        {
            return Ok(cached.beads.clone());
        }
        let beads = self.fetch(rig, tracked).await;
        let beads = Arc::new(beads.map_err(|status| service::describe(&status))?);
        let read = Cached { revision, tracked: tracked.clone(), beads: beads.clone() };
        let mut cached = self.cached.lock();
        cached.insert(uid, read);
        if cached.len() > self.convoys.len() {
            let present: BTreeSet<String> =
                self.convoys.state().iter().filter_map(|convoy| convoy.uid()).collect();
            cached.retain(|uid, _| present.contains(uid));
        }
        Ok(beads)
    }

    /// Reads the tracked beads, what they depend on, what that depends on, and so on.
    async fn fetch(&self, rig: &str, tracked: &[String]) -> Result<Beads, Status> {
        let mut beads = Beads::default();
        let mut requested: BTreeSet<String> = tracked.iter().cloned().collect();
        let mut next: Vec<String> = requested.iter().cloned().collect();
        while !next.is_empty() {
            let read = self.source.get(rig.to_owned(), std::mem::take(&mut next));
            for bead in self.places.call(rig, read).await? {
                // A server that sends more than was requested is not believed.
                if !requested.contains(&bead.id) {
                    continue;
                }
                let (id, task) = (bead.id.clone(), service::task(&bead));
                let fact = service::fact(bead);
                // What a closed bead waited for blocks nothing any more.
                let is_needed = |dependency: &&Dependency| {
                    !fact.is_closed() && (dependency.blocks() || dependency.is_parent())
                };
                for dependency in fact.dependencies.iter().filter(is_needed) {
                    if requested.len() >= MAX_BEADS {
                        return Err(Status::failed_precondition(format!(
                            "TooManyBeads: the convoy depends on more than {MAX_BEADS} beads"
                        )));
                    }
                    if requested.insert(dependency.on.clone()) {
                        next.push(dependency.on.clone());
                    }
                }
                beads.tasks.insert(id.clone(), task);
                beads.facts.insert(id, fact);
            }
        }
        let tracked: BTreeSet<&String> = tracked.iter().collect();
        beads.tasks.retain(|id, _| tracked.contains(id));
        Ok(beads)
    }

    /// Whether the stream is open, and how many revisions of a Rig have come. It is started unless it
    /// was before.
    fn stream(self: &Arc<Self>, rig: &str) -> (bool, u64) {
        let mut stream = self.stream.lock();
        if !std::mem::replace(&mut stream.started, true) {
            let (cache, stop) = (self.clone(), self.runtime.stop.clone());
            tokio::spawn(async move { stop.run_until_cancelled(cache.follow()).await });
        }
        (stream.open, stream.count(rig))
    }

    /// Keeps the stream open.
    async fn follow(self: Arc<Self>) {
        let mut wait = REOPEN.0;
        loop {
            match self.source.watch().await {
                Ok(mut revisions) => {
                    self.stream.lock().open = true;
                    while let Some(Ok(revision)) = revisions.next().await {
                        let v1::StoreRevision { rig, number, .. } = revision;
                        tracing::debug!(rig, revision = number, "a store has changed");
                        wait = REOPEN.0;
                        *self.stream.lock().counts.entry(rig.clone()).or_default() += 1;
                        self.trigger_in_background(rig);
                    }
                }
                Err(status) => tracing::debug!(code = ?status.code(), "opening the stream failed"),
            }
            if std::mem::take(&mut self.stream.lock().open) {
                tracing::info!("the stream of the stores' revisions was lost");
                let rigs = self.convoys.state();
                let rigs: BTreeSet<_> =
                    rigs.iter().filter_map(|c| c.spec.rig_ref.clone()).collect();
                for rig in rigs {
                    self.trigger_in_background(rig);
                }
            }
            tokio::time::sleep(jittered(wait)).await;
            wait = (wait * 2).min(REOPEN.1);
        }
    }

    /// Triggers the Convoys of a Rig beside those of others: its store may not answer. All revisions that
    /// come while that is done are followed by one more look.
    fn trigger_in_background(self: &Arc<Self>, rig: String) {
        if let Some(again) = self.looks.lock().get_mut(&rig) {
            *again = true;
            return;
        }
        // Nobody else begins one: revisions come one after another.
        self.looks.lock().insert(rig.clone(), false);
        let (cache, stop) = (self.clone(), self.runtime.stop.clone());
        let look = async move {
            loop {
                cache.trigger_convoys(&rig).await;
                let mut looks = cache.looks.lock();
                if looks.insert(rig.clone(), false) != Some(true) {
                    looks.remove(&rig);
                    return;
                }
            }
        };
        tokio::spawn(async move { stop.run_until_cancelled(look).await });
    }

    /// Triggers the Convoys of the Rig that the change may concern.
    async fn trigger_convoys(&self, rig: &str) {
        let (complete, open): (Vec<_>, Vec<_>) =
            self.by_rig.of(rig).into_iter().partition(|convoy| is_complete(convoy));
        self.send(open).await;
        self.send(self.changed(rig, complete).await).await;
    }

    /// Those of the complete Convoys that have a bead which is not as it was read last: a person may
    /// have reopened it. They are many and seldom change, so their beads are read at once.
    async fn changed(&self, rig: &str, complete: Vec<Arc<Convoy>>) -> Vec<Arc<Convoy>> {
        let ids: BTreeSet<&String> =
            complete.iter().flat_map(|convoy| &convoy.spec.tracked_beads).collect();
        let ids: Vec<String> = ids.into_iter().cloned().collect();
        let mut facts = HashMap::new();
        for ids in ids.chunks(READ_AT_ONCE) {
            match self.places.call(rig, self.source.get(rig.to_owned(), ids.to_vec())).await {
                Ok(beads) => facts.extend(beads.into_iter().map(|bead| {
                    let id = bead.id.clone();
                    (id, service::fact(bead))
                })),
                // The Convoys read the error themselves, and report it.
                Err(_) => return complete,
            }
        }
        let cached = self.cached.lock();
        let is_changed = |convoy: &Arc<Convoy>| {
            let known = cached.get(convoy.metadata.uid.as_deref().unwrap_or_default());
            known.is_none_or(|known| {
                let mut tracked = convoy.spec.tracked_beads.iter();
                tracked.any(|bead| known.beads.facts.get(bead) != facts.get(bead))
            })
        };
        complete.into_iter().filter(is_changed).collect()
    }

    async fn send(&self, convoys: Vec<Arc<Convoy>>) {
        for convoy in convoys {
            self.trigger.send(ObjectRef::from_obj(convoy.as_ref())).await;
        }
    }
}
