//! What every part of the controller shares: caches, stores and clients.

use std::sync::Arc;

use gastown_api::{BeadStore, MergeRequest, Refinery, Rig};
use gastown_core::beads::Claim;
use gastown_escalations::Escalations;
use gastown_runtime::Runtime;
use gastown_runtime::own_writes::OwnWrites;
use gastown_runtime::pace::Pace;
use gastown_runtime::places::Places;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::connection::{self, ConnectError, Connection};
use crate::http::intent_store::Annotations;
use crate::store::{StoreHandle, Stores};
use crate::validate::{self, Role, ValidBeadStore};

pub(crate) struct Context {
    pub runtime: Runtime,
    pub bead_stores: Store<BeadStore>,
    pub rigs: Store<Rig>,
    pub refineries: Store<Refinery>,
    pub requests: Store<MergeRequest>,
    /// The Leases of claims, in the release namespace.
    pub claims: Store<Lease>,
    pub escalations: Arc<Escalations>,
    /// The contents of the stores.
    pub stores: Stores,
    /// Where readings and edits wait, by the host of the store.
    pub remotes: Places,
    /// How often the counts of a BeadStore are written.
    pub pace: Pace,
    /// This process's writes of BeadStores.
    pub own: Arc<OwnWrites<BeadStore>>,
}

/// A BeadStore that serves its rig.
pub(crate) struct ActiveStore {
    pub object: Arc<BeadStore>,
    pub valid: Box<ValidBeadStore>,
    pub handle: Arc<StoreHandle>,
}

impl Context {
    /// The role of a BeadStore.
    pub(crate) fn role(&self, store: &BeadStore) -> Role {
        let rig = self.rigs.get(&ObjectRef::<Rig>::new(&store.spec.rig_ref));
        validate::role(
            store,
            &self.bead_stores.state(),
            rig.as_deref(),
            &self.refineries.state(),
            &self.rigs.state(),
        )
    }

    /// The handle of a BeadStore that is active.
    pub(crate) fn active(&self, object: Arc<BeadStore>, valid: Box<ValidBeadStore>) -> ActiveStore {
        let term = self.runtime.shards.held(&valid.rig);
        let handle = self.stores.handle(&object.uid().unwrap_or_default(), term);
        ActiveStore { object, valid, handle }
    }

    /// A connection to a store; `held` are the claims of its rig that are held now.
    pub(crate) async fn connect(
        &self,
        active: &ActiveStore,
        held: Vec<Claim>,
    ) -> Result<Connection, ConnectError> {
        let client = &self.runtime.client;
        connection::connect(client, &active.object, &active.valid, || {
            Arc::new(Annotations {
                client: client.clone(),
                store: BeadStore::clone(&active.object),
                requests: self.requests.clone(),
                held,
            })
        })
        .await
    }
}
