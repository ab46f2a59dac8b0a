//! What the controller holds, and small lookups in it.

use std::sync::Arc;

use gastown_api::{BeadStore, Convoy, MergeRequest, Polecat, Rig};
use gastown_runtime::Runtime;
use gastown_runtime::own_writes::OwnWrites;
use gastown_runtime::pace::Pace;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::bead_cache::BeadCache;
use crate::rig_locks::RigLocks;
use crate::worked::Worked;

/// What a reconcile reads and writes through.
pub(crate) struct Context {
    pub(crate) runtime: Runtime,
    pub(crate) rigs: Store<Rig>,
    pub(crate) bead_stores: Store<BeadStore>,
    pub(crate) polecats: Store<Polecat>,
    /// Polecats that were created and that the watch has not shown yet.
    pub(crate) own_polecats: Arc<OwnWrites<Polecat>>,
    pub(crate) requests: Store<MergeRequest>,
    pub(crate) beads: Arc<BeadCache>,
    pub(crate) convoys: Store<Convoy>,
    pub(crate) worked: Worked,
    /// Held while a Rig's free slots are counted and filled.
    pub(crate) rig_locks: RigLocks,
    /// Limits how often a status is written only because beads moved on.
    pub(crate) pace: Pace,
    /// This process's writes of Convoys.
    pub(crate) own: Arc<OwnWrites<Convoy>>,
}

impl Context {
    /// The Polecats that are `wanted`, with those that were created and that the watch has not
    /// shown yet: without them two reconciles in a row would fill the same slot.
    pub(crate) fn polecats(&self, wanted: impl Fn(&Polecat) -> bool) -> Vec<Arc<Polecat>> {
        // Own writes first: one that the watch shows meanwhile is in the store then.
        let own = self.own_polecats.unseen(&wanted, |_| false);
        let mut all = self.polecats.state_filter(&wanted);
        let is_unseen =
            |own: &Arc<Polecat>| self.polecats.get(&ObjectRef::from_obj(own.as_ref())).is_none();
        all.extend(own.into_iter().filter(is_unseen));
        all
    }
}
