//! Watches: one function for each kind, with the map from a changed object to the BeadStores that
//! depend on it.

use std::sync::{Arc, OnceLock};

use gastown_api::names::{annotation, label};
use gastown_api::{BeadStore, MergeRequest, Refinery, Rig};
use gastown_runtime::Runtime;
use gastown_runtime::watch::{NoStatus, Trigger, Trim, Watch};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};

/// The BeadStores of a rig. [`bead_stores`] fills it, and the maps of all kinds use it.
#[derive(Clone, Default)]
pub(crate) struct OfRig(Arc<OnceLock<Store<BeadStore>>>);

impl OfRig {
    fn get(&self, rig: &str) -> Vec<ObjectRef<BeadStore>> {
        let Some(stores) = self.0.get() else { return Vec::new() };
        let stores = stores.state_filter(|store| store.spec.rig_ref == rig);
        stores.iter().map(|store| ObjectRef::from_obj(store.as_ref())).collect()
    }
}

/// Watches BeadStores. One that appears or goes changes the roles of the others of its rig.
pub(crate) fn bead_stores(
    runtime: &Runtime,
    trigger: &Trigger<BeadStore>,
    of_rig: &OfRig,
) -> Store<BeadStore> {
    let siblings = of_rig.clone();
    let map = move |changed: &BeadStore| {
        let mut refs = siblings.get(&changed.spec.rig_ref);
        refs.push(ObjectRef::from_obj(changed));
        refs
    };
    let stores = Watch::<BeadStore>::all(runtime).notify(trigger, map).start();
    let _ = of_rig.0.set(stores.clone());
    stores
}

/// Watches Rigs.
pub(crate) fn rigs(runtime: &Runtime, trigger: &Trigger<BeadStore>, of_rig: &OfRig) -> Store<Rig> {
    let of_rig = of_rig.clone();
    Watch::<Rig, NoStatus>::all(runtime)
        .notify(trigger, move |rig| of_rig.get(&rig.name_any()))
        .start()
}

/// Watches Refineries, whose target branches are never written.
pub(crate) fn refineries(
    runtime: &Runtime,
    trigger: &Trigger<BeadStore>,
    of_rig: &OfRig,
) -> Store<Refinery> {
    let of_rig = of_rig.clone();
    Watch::<Refinery, NoStatus>::all(runtime)
        .notify(trigger, move |refinery| of_rig.get(&refinery.spec.rig_ref))
        .start()
}

/// Watches MergeRequests, whose landings close beads.
pub(crate) fn requests(
    runtime: &Runtime,
    trigger: &Trigger<BeadStore>,
    of_rig: &OfRig,
) -> Store<MergeRequest> {
    let of_rig = of_rig.clone();
    let map = move |request: &MergeRequest| {
        let has_bead = request.spec.bead_id.as_ref().is_some_and(|bead| !bead.is_empty());
        if has_bead { of_rig.get(&request.spec.rig_ref) } else { Vec::new() }
    };
    Watch::<MergeRequest, OfBead>::all(runtime).notify(trigger, map).start()
}

/// Watches the Leases of claims, in the release namespace.
pub(crate) fn claims(
    runtime: &Runtime,
    trigger: &Trigger<BeadStore>,
    of_rig: &OfRig,
) -> Store<Lease> {
    let of_rig = of_rig.clone();
    let map = move |lease: &Lease| {
        let rig = lease.annotations().get(annotation::CLAIM_RIG);
        rig.map(|rig| of_rig.get(rig)).unwrap_or_default()
    };
    let selector = format!("{}=true", label::CLAIM);
    Watch::<Lease>::namespaced(runtime, &runtime.args.namespace)
        .labels(&selector)
        .notify(trigger, map)
        .start()
}

/// Keeps of a MergeRequest what decides about its bead.
#[derive(Clone, Debug)]
struct OfBead;

impl Trim<MergeRequest> for OfBead {
    fn trim(request: &mut MergeRequest) {
        if let Some(annotations) = request.metadata.annotations.as_mut() {
            annotations.retain(|key, _| key == annotation::BEAD_CLOSED);
        }
        if let Some(status) = request.status.as_mut() {
            status.attempts.clear();
            status.conditions.clear();
        }
    }
}
