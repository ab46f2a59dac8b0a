//! What the controller holds, and small lookups in it.

use std::sync::Arc;

use gastown_api::{BeadStore, Convoy, Polecat, Rig};
use gastown_runtime::Runtime;
use gastown_runtime::own_writes::OwnWrites;
use gastown_runtime::pace::Pace;
use gastown_runtime::telemetry::Lives;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::bead_cache::BeadCache;
use crate::indices::{Indices, bead_key, is_active};
use crate::metrics::ConvoyMetrics;
use crate::rig_locks::RigLocks;
use crate::waiting::Waiting;
use crate::worked::Worked;

/// What a reconcile reads and writes through.
pub(crate) struct Context {
    pub(crate) runtime: Runtime,
    pub(crate) rigs: Store<Rig>,
    pub(crate) bead_stores: Store<BeadStore>,
    pub(crate) polecats: Store<Polecat>,
    pub(crate) indices: Indices,
    /// Polecats that were created and that the watch has not shown yet.
    pub(crate) own_polecats: Arc<OwnWrites<Polecat>>,
    /// The Convoys that wait for a slot of their Rig.
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) beads: Arc<BeadCache>,
    pub(crate) convoys: Store<Convoy>,
    pub(crate) worked: Worked,
    /// Held while a Rig's free slots are counted and filled.
    pub(crate) rig_locks: RigLocks,
    /// Limits how often a status is written only because beads moved on.
    pub(crate) pace: Pace,
    /// This process's writes of Convoys.
    pub(crate) own: Arc<OwnWrites<Convoy>>,
    /// The spans that were exported.
    pub(crate) lives: Lives,
    /// What is counted.
    pub(crate) metrics: ConvoyMetrics,
}

impl Context {
    /// The Polecats of a bead, with those that were created and that the watch has not shown yet:
    /// without them two reconciles in a row would fill the same slot.
    pub(crate) fn polecats(&self, rig: Option<&str>, bead: &str) -> Vec<Arc<Polecat>> {
        // Own writes first: one that the watch shows meanwhile is in the store then.
        let own = self.unseen(|polecat| {
            rig.is_none_or(|rig| polecat.spec.rig == rig)
                && polecat.spec.bead_id.as_deref() == Some(bead)
        });
        let mut all = self.indices.polecats_by_bead.of(&bead_key(rig, bead));
        all.extend(own);
        all
    }

    /// How many Polecats of a Rig are at work or want to be, with those that the watch has not shown yet.
    pub(crate) fn active(&self, rig: &str) -> usize {
        let is_active = |polecat: &Polecat| polecat.spec.rig == rig && is_active(polecat);
        let own = self.unseen(is_active).len();
        own + self.indices.active_by_rig.count(rig)
    }

    /// Polecats that were created, and that the watch has not shown yet.
    fn unseen(&self, wanted: impl Fn(&Polecat) -> bool) -> Vec<Arc<Polecat>> {
        let mut own = self.own_polecats.unseen(wanted, |_| false);
        own.retain(|own| self.polecats.get(&ObjectRef::from_obj(own.as_ref())).is_none());
        own
    }
}
