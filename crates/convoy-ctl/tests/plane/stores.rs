//! Bead stores in memory, in place of beadstore-ctl.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use convoy_ctl::{BeadSource, Revisions};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use gastown_proto::v1;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;

/// The store of one rig: its beads, or why they cannot be read.
type FakeStore = std::result::Result<BTreeMap<String, v1::Bead>, Status>;

/// The numbers of revisions, by rig.
type Sent = BTreeMap<String, u64>;

/// The stores that beadstore-ctl would serve, by rig, and the numbers of their revisions.
pub(crate) struct FakeStores {
    stores: Mutex<HashMap<String, FakeStore>>,
    revisions: watch::Sender<Sent>,
}

impl Default for FakeStores {
    fn default() -> Self {
        Self { stores: Mutex::default(), revisions: watch::Sender::new(Sent::new()) }
    }
}

pub(crate) static STORES: LazyLock<Arc<FakeStores>> = LazyLock::new(Arc::default);

impl FakeStores {
    /// Sets what the store of a rig holds, or why it cannot be read.
    pub(crate) fn put(&self, rig: &str, beads: std::result::Result<Vec<v1::Bead>, Status>) {
        let beads =
            beads.map(|beads| beads.into_iter().map(|bead| (bead.id.clone(), bead)).collect());
        self.stores.lock().insert(rig.to_owned(), beads);
        self.revisions.send_modify(|all| *all.entry(rig.to_owned()).or_default() += 1);
    }
}

impl BeadSource for FakeStores {
    fn get(
        &self,
        rig: String,
        ids: Vec<String>,
    ) -> BoxFuture<'_, std::result::Result<Vec<v1::Bead>, Status>> {
        let result = match self.stores.lock().get(&rig) {
            None => Err(Status::failed_precondition("NoStore: this rig has no store")),
            Some(store) => store
                .clone()
                .map(|beads| ids.iter().filter_map(|id| beads.get(id).cloned()).collect()),
        };
        Box::pin(async move { result })
    }

    fn watch(&self) -> BoxFuture<'_, std::result::Result<Revisions, Status>> {
        let start = (self.revisions.subscribe(), Sent::new());
        let next = |(mut all, mut sent): (watch::Receiver<Sent>, Sent)| async move {
            loop {
                let newer = all.borrow_and_update().clone().into_iter();
                if let Some((rig, number)) = newer.into_iter().find(|(r, n)| sent.get(r) != Some(n))
                {
                    sent.insert(rig.clone(), number);
                    let revision =
                        v1::StoreRevision { rig, number, ..v1::StoreRevision::default() };
                    return Some((Ok(revision), (all, sent)));
                }
                all.changed().await.ok()?;
            }
        };
        let revisions: Revisions = futures::stream::unfold(start, next).boxed();
        Box::pin(async move { Ok(revisions) })
    }
}

/// A bead that is open, and ready unless it waits for others.
pub(crate) fn bead(id: &str, blockers: &[&str]) -> v1::Bead {
    let edge =
        |on: &&str| v1::BeadDependency { depends_on: (*on).to_owned(), kind: "blocks".into() };
    v1::Bead {
        id: id.into(),
        title: format!("Do {id}"),
        description: "Well.".into(),
        status: "open".into(),
        priority: 1,
        issue_type: "task".into(),
        created_at: "2026-01-02T03:04:05Z".into(),
        ready: blockers.is_empty(),
        blocked: !blockers.is_empty(),
        dependencies: blockers.iter().map(edge).collect(),
        ..v1::Bead::default()
    }
}
