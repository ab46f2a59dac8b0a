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

/// The store of one rig: its beads, or why they cannot be read, and the number of its revision.
struct FakeStore {
    beads: std::result::Result<BTreeMap<String, v1::Bead>, Status>,
    revision: watch::Sender<u64>,
}

/// The stores that beadstore-ctl would serve, by rig.
#[derive(Default)]
pub(crate) struct FakeStores(Mutex<HashMap<String, FakeStore>>);

pub(crate) static STORES: LazyLock<Arc<FakeStores>> = LazyLock::new(Arc::default);

impl FakeStores {
    /// Sets what the store of a rig holds, or why it cannot be read.
    pub(crate) fn put(&self, rig: &str, beads: std::result::Result<Vec<v1::Bead>, Status>) {
        let mut stores = self.0.lock();
        let beads =
            beads.map(|beads| beads.into_iter().map(|bead| (bead.id.clone(), bead)).collect());
        match stores.get_mut(rig) {
            Some(store) => {
                store.beads = beads;
                store.revision.send_modify(|number| *number += 1);
            }
            None => drop(
                stores.insert(rig.to_owned(), FakeStore { beads, revision: watch::channel(1).0 }),
            ),
        }
    }
}

impl BeadSource for FakeStores {
    fn get(
        &self,
        rig: String,
        ids: Vec<String>,
    ) -> BoxFuture<'_, std::result::Result<Vec<v1::Bead>, Status>> {
        let result = match self.0.lock().get(&rig) {
            None => Err(Status::failed_precondition("NoStore: this rig has no store")),
            Some(store) => store
                .beads
                .clone()
                .map(|beads| ids.iter().filter_map(|id| beads.get(id).cloned()).collect()),
        };
        Box::pin(async move { result })
    }

    fn watch(&self, rig: String) -> BoxFuture<'_, std::result::Result<Revisions, Status>> {
        let result = match self.0.lock().get(&rig) {
            None => Err(Status::failed_precondition("NoStore: this rig has no store")),
            Some(store) => {
                let mut revisions = store.revision.subscribe();
                revisions.mark_changed();
                let next = |mut revisions: watch::Receiver<u64>| async move {
                    revisions.changed().await.ok()?;
                    let number = *revisions.borrow_and_update();
                    Some((number, revisions))
                };
                let revision = move |number| {
                    Ok(v1::StoreRevision {
                        rig: rig.clone(),
                        number,
                        ..v1::StoreRevision::default()
                    })
                };
                Ok(futures::stream::unfold(revisions, next).map(revision).boxed())
            }
        };
        Box::pin(async move { result })
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
