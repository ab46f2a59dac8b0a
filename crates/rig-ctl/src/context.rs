//! What the controller holds.

use std::sync::Arc;

use gastown_api::{BeadStore, Convoy, Polecat, Refinery, Rig, Witness};
use gastown_runtime::Runtime;
use gastown_runtime::index::Index;
use gastown_runtime::own_writes::OwnWrites;
use gastown_runtime::pace::Pace;
use kube::runtime::reflector::Store;

/// What a reconcile reads and writes through.
pub(crate) struct Context {
    pub(crate) runtime: Runtime,
    pub(crate) refineries: Store<Refinery>,
    pub(crate) witnesses: Store<Witness>,
    pub(crate) bead_stores: Store<BeadStore>,
    /// Polecats by their Rig.
    pub(crate) polecats: Index<Polecat>,
    /// Convoys by their Rig.
    pub(crate) convoys: Index<Convoy>,
    /// Limits how often a status is written only because counts changed.
    pub(crate) pace: Pace,
    /// This process's writes of Rigs.
    pub(crate) own: Arc<OwnWrites<Rig>>,
}
