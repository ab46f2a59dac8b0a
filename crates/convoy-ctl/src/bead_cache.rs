//! What beadstore-ctl says of beads: asked by id, and told when a store has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use gastown_api::{Convoy, ConvoyPhase};
use gastown_core::convoy::{BeadFact, Dependency};
use gastown_proto::v1;
use gastown_runtime::grpc::{self, Remote};
use gastown_runtime::watch::Trigger;
use gastown_runtime::{Runtime, RuntimeArgs, jittered};
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use tonic::{Code, Status};

/// One attempt of a call.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a call is tried before the convoy says that the store cannot be asked.
const TRIES: u32 = 2;
/// How many beads a convoy and what it depends on may be.
const MOST: usize = 20_000;
/// The wait before a lost stream is opened again, doubled each time up to the second.
const REOPEN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// The longest task that the schema takes.
const TASK: usize = 131_072;

/// Revisions of a store, as they come.
pub type Revisions = BoxStream<'static, Result<v1::StoreRevision, Status>>;

/// Where beads are read.
pub trait BeadSource: Send + Sync + 'static {
    /// Beads by id; one that the store does not hold is not in the answer.
    fn get(&self, rig: String, ids: Vec<String>) -> BoxFuture<'_, Result<Vec<v1::Bead>, Status>>;

    /// The present revision of the rig's store, and each new one.
    fn watch(&self, rig: String) -> BoxFuture<'_, Result<Revisions, Status>>;
}

/// Beads as beadstore-ctl serves them.
pub struct Served {
    remote: Remote,
}

impl Served {
    /// `endpoint` is `https://host:port`.
    pub fn new(endpoint: &str, args: &RuntimeArgs) -> Self {
        Self { remote: Remote::new(endpoint, &args.tls_dir, &args.token_file, DEADLINE) }
    }

    fn client(&self) -> Result<v1::beads_client::BeadsClient<grpc::AuthChannel>, Status> {
        let channel =
            self.remote.channel().map_err(|error| Status::unavailable(format!("{error}")))?;
        Ok(v1::beads_client::BeadsClient::new(channel).max_decoding_message_size(64 << 20))
    }
}

impl BeadSource for Served {
    fn get(&self, rig: String, ids: Vec<String>) -> BoxFuture<'_, Result<Vec<v1::Bead>, Status>> {
        Box::pin(async move {
            let call = || async {
                let request = v1::GetBeadsRequest { rig: rig.clone(), ids: ids.clone() };
                self.client()?.get(request).await
            };
            Ok(grpc::retry(TRIES, call).await?.into_inner().beads)
        })
    }

    fn watch(&self, rig: String) -> BoxFuture<'_, Result<Revisions, Status>> {
        Box::pin(async move {
            Ok(self.client()?.watch(v1::WatchBeadsRequest { rig }).await?.into_inner().boxed())
        })
    }
}

/// What is known of a convoy's beads.
#[derive(Debug, Default)]
pub struct Known {
    /// The convoy's beads, and what they depend on.
    pub facts: BTreeMap<String, BeadFact>,
    /// What is to be done for each of the convoy's own.
    pub tasks: BTreeMap<String, String>,
}

/// A rig's store: whether its stream is open, and how many revisions came.
#[derive(Default)]
struct Followed {
    open: AtomicBool,
    revisions: AtomicU64,
}

struct Kept {
    revision: u64,
    tracked: Vec<String>,
    known: Arc<Known>,
}

/// Asks for beads, remembers answers while the store has not changed, and triggers convoys when it
/// has.
pub struct Beads {
    runtime: Runtime,
    source: Arc<dyn BeadSource>,
    convoys: Store<Convoy>,
    trigger: Trigger<Convoy>,
    followed: Mutex<HashMap<String, Arc<Followed>>>,
    kept: Mutex<HashMap<String, Kept>>,
}

impl Beads {
    /// Nothing is asked yet.
    pub fn new(
        runtime: &Runtime,
        source: Arc<dyn BeadSource>,
        convoys: Store<Convoy>,
        trigger: Trigger<Convoy>,
    ) -> Arc<Self> {
        let (followed, kept) = (Mutex::default(), Mutex::default());
        Arc::new(Self { runtime: runtime.clone(), source, convoys, trigger, followed, kept })
    }

    /// The beads of a convoy, or why they cannot be known. Follows the rig's store from now on.
    pub async fn of(self: &Arc<Self>, convoy: &Convoy, rig: &str) -> Result<Arc<Known>, String> {
        let followed = self.follow(rig);
        let uid = convoy.uid().unwrap_or_default();
        // Before the question: what changes while it is answered is asked again.
        let revision = followed.revisions.load(Ordering::SeqCst);
        if followed.open.load(Ordering::SeqCst)
            && let Some(kept) = self.kept.lock().get(&uid).filter(|kept| {
                kept.revision == revision && kept.tracked == convoy.spec.tracked_beads
            })
        {
            return Ok(kept.known.clone());
        }
        let known = Arc::new(
            self.ask(rig, &convoy.spec.tracked_beads).await.map_err(|status| why(&status))?,
        );
        let kept =
            Kept { revision, tracked: convoy.spec.tracked_beads.clone(), known: known.clone() };
        let mut all = self.kept.lock();
        all.insert(uid, kept);
        if all.len() > self.convoys.len() {
            let present: BTreeSet<String> =
                self.convoys.state().iter().filter_map(|convoy| convoy.uid()).collect();
            all.retain(|uid, _| present.contains(uid));
        }
        Ok(known)
    }

    /// The beads, what they depend on, what that depends on, and so on.
    async fn ask(&self, rig: &str, tracked: &[String]) -> Result<Known, Status> {
        let mut known = Known::default();
        let mut asked: BTreeSet<String> = tracked.iter().cloned().collect();
        let mut next: Vec<String> = asked.iter().cloned().collect();
        while !next.is_empty() {
            let beads = self.source.get(rig.to_owned(), std::mem::take(&mut next)).await?;
            for bead in beads {
                // A server that answers what nobody asked is not followed there.
                if !asked.contains(&bead.id) {
                    continue;
                }
                let (id, task, fact) = (bead.id.clone(), task(&bead), fact(bead));
                // What a closed bead waited for holds nobody any more.
                let needed = |dependency: &&Dependency| {
                    !fact.is_closed() && (dependency.blocks() || dependency.is_parent())
                };
                for dependency in fact.dependencies.iter().filter(needed) {
                    if asked.len() >= MOST {
                        return Err(Status::failed_precondition(format!(
                            "TooManyBeads: the convoy depends on more than {MOST} beads"
                        )));
                    }
                    if asked.insert(dependency.on.clone()) {
                        next.push(dependency.on.clone());
                    }
                }
                known.tasks.insert(id.clone(), task);
                known.facts.insert(id, fact);
            }
        }
        let tracked: BTreeSet<&String> = tracked.iter().collect();
        known.tasks.retain(|id, _| tracked.contains(id));
        Ok(known)
    }

    fn follow(self: &Arc<Self>, rig: &str) -> Arc<Followed> {
        let mut all = self.followed.lock();
        if let Some(followed) = all.get(rig) {
            return followed.clone();
        }
        let followed = Arc::new(Followed::default());
        all.insert(rig.to_owned(), followed.clone());
        let (beads, rig, task) = (self.clone(), rig.to_owned(), followed.clone());
        tokio::spawn(async move {
            let stop = beads.runtime.stop.clone();
            tokio::select! {
                () = beads.listen(&rig, &task) => {}
                () = stop.cancelled() => {}
            }
        });
        followed
    }

    /// Keeps the stream of a rig open as long as a convoy needs it.
    async fn listen(&self, rig: &str, followed: &Followed) {
        let mut wait = REOPEN.0;
        loop {
            match self.source.watch(rig.to_owned()).await {
                Ok(mut revisions) => {
                    while let Some(revision) = revisions.next().await {
                        let Ok(revision) = revision else { break };
                        tracing::debug!(rig, revision = revision.number, "the store has changed");
                        wait = REOPEN.0;
                        followed.revisions.fetch_add(1, Ordering::SeqCst);
                        followed.open.store(true, Ordering::SeqCst);
                        self.notify(rig).await;
                    }
                }
                Err(status) => {
                    tracing::debug!(rig, code = ?status.code(), "the store cannot be followed")
                }
            }
            if followed.open.swap(false, Ordering::SeqCst) {
                tracing::info!(rig, "the stream of the rig's beads is lost");
                self.notify(rig).await;
            }
            if self.of_rig(rig).is_empty() {
                self.followed.lock().remove(rig);
                return;
            }
            tokio::time::sleep(jittered(wait)).await;
            wait = (wait * 2).min(REOPEN.1);
        }
    }

    /// Convoys of the rig that are not over.
    fn of_rig(&self, rig: &str) -> Vec<ObjectRef<Convoy>> {
        let open = |convoy: &Convoy| {
            let phase = convoy.status.as_ref().and_then(|status| status.phase);
            convoy.spec.rig_ref.as_deref() == Some(rig) && phase != Some(ConvoyPhase::Complete)
        };
        self.convoys
            .state_filter(open)
            .iter()
            .map(|convoy| ObjectRef::from_obj(convoy.as_ref()))
            .collect()
    }

    async fn notify(&self, rig: &str) {
        for convoy in self.of_rig(rig) {
            self.trigger.send(convoy).await;
        }
    }
}

/// What a refusal means, in the same words each time that it comes.
fn why(status: &Status) -> String {
    match status.code() {
        Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated => {
            status.message().to_owned()
        }
        Code::DeadlineExceeded | Code::Cancelled => {
            "beadstore-ctl does not answer in time".to_owned()
        }
        Code::Unavailable => "beadstore-ctl cannot be reached".to_owned(),
        code => format!("beadstore-ctl answers {code:?}: {}", status.message()),
    }
}

/// What the agent is asked to do.
fn task(bead: &v1::Bead) -> String {
    let text = if bead.description.trim().is_empty() {
        bead.title.clone()
    } else {
        format!("{}\n\n{}", bead.title, bead.description)
    };
    text.chars().take(TASK).collect()
}

fn fact(bead: v1::Bead) -> BeadFact {
    BeadFact {
        status: bead.status,
        priority: bead.priority,
        created: bead.created_at.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second),
        kind: bead.issue_type,
        assignee: bead.assignee,
        blocked: bead.blocked,
        ready: bead.ready,
        dependencies: bead
            .dependencies
            .into_iter()
            .map(|edge| Dependency { on: edge.depends_on, kind: edge.kind })
            .collect(),
    }
}
