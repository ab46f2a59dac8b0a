//! The Leases by which replicas divide the rigs among them: reading, watching and writing them.
//!
//! What is decided, and why no two replicas ever work for one rig, is in `member`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use gastown_api::names::{annotation, label};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admin::Readiness;
use crate::jitter::jittered;
use crate::member::{
    Member, Owners, Place, RANKS, Rank, Replica, SHARDS, Share, Table, Times, Value, Write,
};
use crate::metrics::Metrics;
use crate::own_writes::resource_version;
use crate::shards::{Running, Shards, State};

/// A request is given up after this long: there must be time for another one before a rank that is
/// not renewed is not trusted any more.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A renewal that the watch has not shown after this long makes it begin anew.
const ECHO: Duration = Duration::from_secs(3);
/// The time between two lists while they fail, and between two looks at a rank that may be held by a
/// replica that knows no shards.
const RETRY: Duration = Duration::from_secs(2);
/// The time between two lists, or two watches, that end at once.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a replica that ends tries to hand over what it still has.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// The server ends a watch after this long.
const WATCH_SECONDS: u32 = 290;
/// What rank 0 promises to replicas of version 0.1.0, which wait no longer than this.
const FIRST_SECONDS: i32 = 60;

/// Whose Leases they are, and who takes part.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Leases' namespace.
    pub namespace: String,
    /// The controller; the Leases' names begin with `gastown-` and this.
    pub controller: String,
    /// The name of this process, see [`crate::args::RuntimeArgs::identity`].
    pub identity: String,
    /// The address at which this process serves.
    pub address: Option<IpAddr>,
}

/// When a replica takes part.
#[derive(Clone, Debug, Default)]
pub struct Phases {
    /// It is ready to work.
    pub ready: CancellationToken,
    /// Nothing new begins: shards are handed over as their work ends.
    pub drain: CancellationToken,
    /// All work has ended.
    pub ended: CancellationToken,
}

impl Phases {
    /// Enters the first two phases when the process does.
    pub(crate) async fn follow(self, readiness: Readiness, drain: CancellationToken) {
        tokio::select! {
            () = readiness.ready() => self.ready.cancel(),
            () = drain.cancelled() => {}
        }
        drain.cancelled().await;
        self.drain.cancel();
    }
}

/// Why a replica does not take part any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another replica divides the rigs into another number of shards.
    #[error("taking part with the other replicas: {0}")]
    Disagreement(String),
}

/// Starts the task that takes part in the division of the rigs, until all work has ended and
/// everything is handed over.
pub fn spawn(
    client: kube::Client,
    config: &Config,
    metrics: &Metrics,
    phases: Phases,
) -> (Shards, tokio::task::JoinHandle<Result<(), Error>>) {
    let times = Times::default();
    let times = Times { renew: jittered(times.renew * 19 / 20), ..times };
    let now = Instant::now();
    let member = Member::new(&config.identity, config.address, times, fastrand::u64(..), now);
    let (sender, state) = watch::channel(Arc::new(state(&member, now)));
    let running = Arc::new(Running::default());
    let shards = Shards::new(state, running.clone());
    let api = Api::namespaced(client, &config.namespace);
    let names = Names::new(&config.controller);
    let elector = Elector {
        api,
        names,
        member,
        objects: HashMap::new(),
        sender,
        running,
        relist: Arc::default(),
        metrics: metrics.clone(),
        draining: [None; SHARDS],
    };
    (shards, tokio::spawn(elector.run(phases)))
}

fn state(member: &Member, now: Instant) -> State {
    let valid_until = member.valid_until(now).unwrap_or(now);
    State { shares: member.shares(now), valid_until, others: member.others(now) }
}

/// What the Leases of a controller are called.
#[derive(Clone, Debug)]
struct Names {
    controller: String,
    ranks: Vec<String>,
    table: String,
}

impl Names {
    fn new(controller: &str) -> Self {
        let first = format!("gastown-{controller}");
        let rank = |number| if number == 0 { first.clone() } else { format!("{first}-{number}") };
        Self {
            controller: controller.to_owned(),
            ranks: (0..RANKS).map(rank).collect(),
            table: format!("{first}-shards"),
        }
    }

    fn place(&self, name: &str) -> Option<Place> {
        if name == self.table {
            return Some(Place::Table);
        }
        self.ranks.iter().position(|rank| rank == name).map(Place::Rank)
    }

    fn of(&self, place: Place) -> &str {
        match place {
            Place::Rank(number) => &self.ranks[number],
            Place::Table => &self.table,
        }
    }

    fn selector(&self) -> String {
        format!("{}={}", label::REPLICAS_OF, self.controller)
    }
}

/// What the watch shows.
enum Event {
    /// All Leases, at this version.
    Listed(u64, Vec<Lease>),
    /// A Lease as it is now, or as it was when it was deleted.
    Changed { lease: Box<Lease>, deleted: bool },
    /// Nothing else happened up to this version.
    UpTo(u64),
    /// A Lease was read apart.
    Read(Box<Lease>),
}

/// Lists and watches the Leases, forever. They have a label, but for one of a replica that knows no
/// shards: while rank 0 has none it is read by its name.
struct Watcher {
    api: Api<Lease>,
    names: Names,
    events: mpsc::Sender<Event>,
    relist: Arc<Notify>,
}

impl Watcher {
    async fn run(self) {
        loop {
            let began = Instant::now();
            if let Err(error) = self.list_and_watch().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the leases of the replicas cannot be watched; again in {RETRY:?}"
                );
                tokio::time::sleep(RETRY).await;
            } else if began.elapsed() < PAUSE {
                tokio::time::sleep(PAUSE).await;
            }
            if self.events.is_closed() {
                return;
            }
        }
    }

    async fn list_and_watch(&self) -> kube::Result<()> {
        let params = ListParams::default().labels(&self.names.selector());
        let listed = self.api.list(&params);
        let Ok(listed) = tokio::time::timeout(TIMEOUT, listed).await else { return Ok(()) };
        let listed = listed?;
        let mut at = listed.metadata.resource_version.clone().unwrap_or_default();
        let mut leases = listed.items;
        let is_first = |lease: &Lease| lease.name_any() == self.names.ranks[0];
        let mut has_first = leases.iter().any(is_first);
        if !has_first {
            leases.extend(self.read_first().await?);
        }
        self.send(Event::Listed(at.parse().unwrap_or_default(), leases)).await;
        let params = WatchParams::default().labels(&self.names.selector()).timeout(WATCH_SECONDS);
        loop {
            let mut events = self.api.watch(&params, &at).await?.boxed();
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = self.relist.notified() => return Ok(()),
                    () = tokio::time::sleep(RETRY), if !has_first => {
                        if let Some(first) = self.read_first().await? {
                            self.send(Event::Read(Box::new(first))).await;
                        }
                        continue;
                    }
                };
                let Some(event) = event else {
                    tokio::time::sleep(PAUSE).await;
                    break;
                };
                let event = match event? {
                    WatchEvent::Added(lease) | WatchEvent::Modified(lease) => {
                        has_first |= is_first(&lease);
                        Event::Changed { lease: Box::new(lease), deleted: false }
                    }
                    WatchEvent::Deleted(lease) => {
                        has_first &= !is_first(&lease);
                        Event::Changed { lease: Box::new(lease), deleted: true }
                    }
                    WatchEvent::Bookmark(mark) => {
                        at = mark.metadata.resource_version;
                        Event::UpTo(at.parse().unwrap_or_default())
                    }
                    // The version is too old.
                    WatchEvent::Error(_) => return Ok(()),
                };
                if let Event::Changed { lease, .. } = &event {
                    at = lease.resource_version().unwrap_or_default();
                }
                self.send(event).await;
            }
            if self.events.is_closed() {
                return Ok(());
            }
        }
    }

    async fn read_first(&self) -> kube::Result<Option<Lease>> {
        match tokio::time::timeout(TIMEOUT, self.api.get_opt(&self.names.ranks[0])).await {
            Ok(first) => first,
            Err(_) => Ok(None),
        }
    }

    async fn send(&self, event: Event) {
        // It is closed when the elector has ended.
        let _ = self.events.send(event).await;
    }
}

/// The task that takes part.
struct Elector {
    api: Api<Lease>,
    names: Names,
    member: Member,
    /// The Leases as last seen: what is not ours in them stays when they are written.
    objects: HashMap<Place, Lease>,
    sender: watch::Sender<Arc<State>>,
    running: Arc<Running>,
    relist: Arc<Notify>,
    metrics: Metrics,
    /// Since when nothing new begins on a shard of ours.
    draining: [Option<Instant>; SHARDS],
}

impl Elector {
    async fn run(mut self, phases: Phases) -> Result<(), Error> {
        let Phases { ready, drain, ended } = phases;
        tokio::select! {
            () = ready.cancelled() => {}
            () = ended.cancelled() => return Ok(()),
        }
        let (events, mut seen) = mpsc::channel(256);
        let (api, names) = (self.api.clone(), self.names.clone());
        let watcher = Watcher { api, names, events, relist: self.relist.clone() };
        let watcher = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(watcher.run()));
        let (mut is_leaving, mut last) = (false, None);
        loop {
            while let Ok(event) = seen.try_recv() {
                self.see(event);
            }
            let now = Instant::now();
            if drain.is_cancelled() && !is_leaving {
                is_leaving = true;
                self.member.leave();
            }
            if ended.is_cancelled() {
                last = last.or(Some(now + LAST_WORDS));
            }
            self.publish(now);
            if let Some(why) = self.member.disagreement(now) {
                return Err(Error::Disagreement(why));
            }
            if (ended.is_cancelled() && self.member.has_left()) || last.is_some_and(|at| at <= now)
            {
                break;
            }
            let mut write = self.member.decide(&self.running.idle(), now);
            if write.is_none() {
                // A shard that is drained from now on may be idle already: that is looked at after
                // nothing new begins on it.
                self.publish(now);
                write = self.member.decide(&self.running.idle(), now);
            }
            if let Some(write) = write {
                // What it hands over is not ours from now on, whenever the answer comes.
                self.publish(now);
                self.write(write).await;
                continue;
            }
            let next = self.member.next(now);
            let echo = self.member.unshown_since().map(|sent| sent + ECHO);
            tokio::select! {
                Some(event) = seen.recv() => self.see(event),
                () = self.running.idle.notified() => {}
                () = drain.cancelled(), if !is_leaving => {}
                () = ended.cancelled(), if last.is_none() => {}
                () = at(next.into_iter().chain(last).min()) => {}
                () = at(echo) => {
                    self.member.asked_again(Instant::now());
                    self.relist.notify_one();
                }
            }
        }
        drop(watcher);
        self.metrics.lease_held.set([], 0);
        self.metrics.shards_held.set([], 0);
        Ok(())
    }

    fn publish(&mut self, now: Instant) {
        let state = state(&self.member, now);
        let held = (0..SHARDS).filter(|shard| state.is_held(*shard)).count();
        self.metrics.lease_held.set([], i64::from(self.member.has_rank()));
        self.metrics.shards_held.set([], i64::try_from(held).unwrap_or_default());
        for (since, share) in self.draining.iter_mut().zip(&state.shares) {
            match share {
                Share::Draining(_) => drop(since.get_or_insert(now)),
                // It is not known who has it, or another one has.
                Share::Others(_) => {
                    if let Some(since) = since.take() {
                        let seconds = now.duration_since(since).as_secs_f64();
                        self.metrics.handovers.observe([], seconds, None);
                    }
                }
                Share::Ours(_) => *since = None,
            }
        }
        self.sender.send_if_modified(|present| {
            let differs = **present != state;
            if differs {
                if present.shares != state.shares {
                    let replica = self.member.name();
                    tracing::info!(
                        replica,
                        shards = held,
                        "the shards of this replica have changed"
                    );
                }
                *present = Arc::new(state);
            }
            differs
        });
    }

    fn see(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Listed(at, leases) => {
                let mut ranks = [const { None }; RANKS];
                let mut table = None;
                for lease in leases {
                    match self.names.place(&lease.name_any()) {
                        Some(Place::Rank(number)) => ranks[number] = Some(rank(&lease)),
                        Some(Place::Table) => table = Some(self::table(&lease)),
                        None => continue,
                    }
                    self.keep(lease);
                }
                self.member.listed(at, ranks, table, now);
            }
            Event::Changed { lease, deleted } => {
                let at = resource_version(lease.as_ref());
                let present = (!deleted).then_some(lease.as_ref());
                match self.names.place(&lease.name_any()) {
                    Some(Place::Rank(number)) => {
                        self.member.watched_rank(at, number, present.map(rank), now);
                    }
                    Some(Place::Table) => {
                        self.member.watched_table(at, present.map(self::table), now);
                    }
                    None => {}
                }
                if !deleted {
                    self.keep(*lease);
                }
            }
            Event::UpTo(at) => self.member.up_to(at),
            Event::Read(lease) => {
                match self.names.place(&lease.name_any()) {
                    Some(Place::Rank(number)) => {
                        self.member.watched_rank(0, number, Some(rank(&lease)), now);
                    }
                    Some(Place::Table) => {
                        self.member.watched_table(0, Some(self::table(&lease)), now);
                    }
                    None => {}
                }
                self.keep(*lease);
            }
        }
    }

    fn keep(&mut self, lease: Lease) {
        let Some(place) = self.names.place(&lease.name_any()) else { return };
        let known = self.objects.get(&place).map_or(0, resource_version);
        if resource_version(&lease) > known {
            self.objects.insert(place, lease);
        }
    }

    async fn write(&mut self, write: Write) {
        let lease = self.lease(&write);
        let sent = Instant::now();
        let params = PostParams::default();
        let answer = tokio::time::timeout(TIMEOUT, async {
            match write.expected {
                Some(_) => self.api.replace(&lease.name_any(), &params, &lease).await,
                None => self.api.create(&params, &lease).await,
            }
        })
        .await;
        let name = lease.name_any();
        let version = match answer {
            Ok(Ok(written)) => {
                let version = resource_version(&written);
                self.keep(written);
                Some(version)
            }
            // Another replica was faster, or somebody deleted the Lease: what is there is read again.
            Ok(Err(kube::Error::Api(status)))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                tracing::debug!(lease = name, "somebody else has written first");
                if status.is_already_exists() {
                    self.read(&name).await;
                }
                self.relist.notify_one();
                None
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    lease = name,
                    error = &error as &dyn std::error::Error,
                    "a lease could not be written"
                );
                None
            }
            Err(_) => {
                tracing::warn!(
                    lease = name,
                    "a lease could not be written: no answer in {TIMEOUT:?}"
                );
                None
            }
        };
        self.member.answered(&write, version, sent, Instant::now());
    }

    /// Reads a Lease by its name: one whose label somebody has taken away is not in any list.
    async fn read(&mut self, name: &str) {
        match tokio::time::timeout(TIMEOUT, self.api.get_opt(name)).await {
            Ok(Ok(Some(lease))) => self.see(Event::Read(Box::new(lease))),
            Ok(Err(error)) => {
                tracing::warn!(
                    lease = name,
                    error = &error as &dyn std::error::Error,
                    "a lease could not be read"
                );
            }
            // It is gone again, or there is no answer: the next list shows it.
            Ok(Ok(None)) | Err(_) => {}
        }
    }

    /// The Lease to write.
    fn lease(&self, write: &Write) -> Lease {
        let place = write.place();
        let present = self.objects.get(&place).filter(|_| write.expected.is_some());
        let mut lease = present.cloned().unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.names.of(place).to_owned()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        lease.metadata.managed_fields = None;
        lease.metadata.resource_version = write.expected.map(|version| version.to_string());
        let labels = lease.metadata.labels.get_or_insert_default();
        labels.insert(label::REPLICAS_OF.to_owned(), self.names.controller.clone());
        let annotations = lease.metadata.annotations.get_or_insert_default();
        match &write.value {
            Value::Rank(number, holder, leaves) => {
                describe(annotations, holder.as_ref(), *leaves);
                let spec = lease.spec.take().unwrap_or_default();
                lease.spec = Some(rank_spec(*number, holder.as_ref(), spec));
            }
            Value::Table(owners) => {
                annotations.insert(annotation::SHARDS.to_owned(), table_text(owners));
            }
        }
        lease
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What a rank shows of its holder beside its name. Each value names the holder, because a replica that
/// does not know the annotation leaves that of its predecessor.
fn describe(annotations: &mut BTreeMap<String, String>, holder: Option<&Replica>, leaves: bool) {
    let address = holder.and_then(|holder| Some(format!("{} {}", holder.name, holder.address?)));
    let shards = holder.map(|holder| format!("{} {SHARDS}", holder.name));
    let leaves = holder.filter(|_| leaves).map(|holder| format!("{} true", holder.name));
    for (key, value) in [
        (annotation::HOLDER_ADDRESS, address),
        (annotation::SHARDS, shards),
        (annotation::LEAVES, leaves),
    ] {
        match value {
            Some(value) => drop(annotations.insert(key.to_owned(), value)),
            None => drop(annotations.remove(key)),
        }
    }
}

fn rank_spec(number: usize, holder: Option<&Replica>, before: LeaseSpec) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    let holder = holder.map(|holder| holder.name.clone());
    let is_new = holder.is_some() && before.holder_identity != holder;
    let free = i32::try_from(Times::default().free.as_secs()).unwrap_or(FIRST_SECONDS);
    LeaseSpec {
        lease_duration_seconds: Some(if number == 0 { FIRST_SECONDS } else { free }),
        lease_transitions: Some(
            before.lease_transitions.map_or(0, |before| before.saturating_add(i32::from(is_new))),
        ),
        acquire_time: if is_new { Some(now.clone()) } else { before.acquire_time.clone() },
        renew_time: Some(now),
        holder_identity: holder,
        ..before
    }
}

fn rank(lease: &Lease) -> Rank {
    let name = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
    let name = name.filter(|name| !name.is_empty());
    let of_holder = |key: &str| {
        let (holder, value) = lease.annotations().get(key)?.rsplit_once(' ')?;
        (Some(holder) == name.as_deref()).then(|| value.to_owned())
    };
    let address = of_holder(annotation::HOLDER_ADDRESS).and_then(|value| value.parse().ok());
    let shards = of_holder(annotation::SHARDS).and_then(|value| value.parse().ok());
    let leaves = of_holder(annotation::LEAVES).is_some();
    let holder = name.map(|name| Replica { name, address });
    Rank { version: resource_version(lease), holder, shards, leaves }
}

fn table(lease: &Lease) -> Table {
    let text = lease.annotations().get(annotation::SHARDS);
    let owners = text.and_then(|text| table_from(text));
    let watched = lease.labels().contains_key(label::REPLICAS_OF);
    Table { version: resource_version(lease), owners, watched }
}

/// The shards of each owner, as JSON.
fn table_text(owners: &Owners) -> String {
    let mut of: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (shard, owner) in owners.iter().enumerate() {
        of.entry(owner).or_default().push(shard);
    }
    serde_json::to_string(&of).unwrap_or_default()
}

/// The owners in a text; none unless it names each shard once.
fn table_from(text: &str) -> Option<Owners> {
    let of: BTreeMap<String, Vec<usize>> = serde_json::from_str(text).ok()?;
    let mut owners: [Option<String>; SHARDS] = [const { None }; SHARDS];
    for (owner, shards) in of {
        for shard in shards {
            let slot = owners.get_mut(shard)?;
            if slot.replace(owner.clone()).is_some() {
                return None;
            }
        }
    }
    owners.iter().all(Option::is_some).then(|| owners.map(Option::unwrap_or_default))
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
