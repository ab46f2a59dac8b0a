//! The watches, one function a kind. Each fills its store and the indices, and has reconciled what
//! a change concerns.

use std::sync::{Arc, OnceLock};

use gastown_api::names::{condition, label, reason};
use gastown_api::{BeadStore, MergeRequest, Polecat, Refinery, Rig, conditions};
use gastown_runtime::watch::{Trigger, Triggers, Watch, triggers};
use gastown_runtime::{Runtime, ours};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::claims;
use crate::context::{Shared, Watched, polecat_ref};
use crate::gather::bead_request;
use crate::index::Index;
use crate::pod::{self, owner_uid};

/// What is to be reconciled.
pub(crate) struct Queues {
    pub polecats: Triggers<Polecat>,
    pub pods: Triggers<Pod>,
    pub claims: Triggers<Lease>,
}

/// Starts all watches; they end with the runtime's drain.
pub(crate) fn start(runtime: &Runtime) -> (Watched, Shared, Queues) {
    let (polecat_trigger, polecat_queue) = triggers::<Polecat>();
    let (pod_trigger, pod_queue) = triggers::<Pod>();
    let (claim_trigger, claim_queue) = triggers::<Lease>();
    let shared = Shared::new(polecat_trigger);
    let polecats = polecats(runtime, &shared, &claim_trigger);
    let rigs = rigs(runtime, &shared, &polecats);
    let refineries = refineries(runtime, &shared, &polecats);
    let claims = claims(runtime, &shared, &claim_trigger, &polecats);
    let pods = pods(runtime, &shared, &pod_trigger, &claim_trigger, &polecats, &claims);
    let merge_requests = merge_requests(runtime, &shared, &polecats);
    let bead_stores = bead_stores(runtime);
    let network_policies = network_policies(runtime, &shared, &polecats);
    let stores = Watched {
        polecats,
        rigs,
        refineries,
        pods,
        merge_requests,
        bead_stores,
        claims,
        network_policies,
    };
    let queues = Queues { polecats: polecat_queue, pods: pod_queue, claims: claim_queue };
    (stores, shared, queues)
}

/// Polecats. A deleted one releases its claim and its slot for others.
fn polecats(runtime: &Runtime, shared: &Shared, claim: &Trigger<Lease>) -> Store<Polecat> {
    let cell = Arc::<OnceLock<Store<Polecat>>>::default();
    let (for_claims, for_slots) = (cell.clone(), cell.clone());
    let (by_claim, namespace) = (shared.polecats_by_claim.clone(), runtime.args.namespace.clone());
    let (admission, deliveries) = (shared.admission.clone(), shared.deliveries.clone());
    let store = Watch::<Polecat>::all(runtime)
        .notify_self(&shared.trigger)
        .notify(claim, move |polecat: &Polecat| {
            let name = claims::name_for(polecat)?;
            let Some(store) = without(&for_claims, polecat) else {
                by_claim.add(&name, polecat);
                return None;
            };
            // takes the deleted one out
            drop(by_claim.of(&name, store));
            Some(ObjectRef::<Lease>::new(&name).within(&namespace))
        })
        .notify(&shared.trigger, move |polecat: &Polecat| {
            if without(&for_slots, polecat).is_none() {
                return Vec::new();
            }
            let uid = polecat.uid().unwrap_or_default();
            deliveries.lock().remove(&uid);
            let next = admission.forget(&polecat.spec.rig, &uid);
            next.iter().filter_map(|key| polecat_ref(key)).collect()
        })
        .start();
    // set before anything can be deleted: the list comes first
    let _ = cell.set(store.clone());
    store
}

/// The store, if the Polecat is not in it any more.
fn without<'a>(
    store: &'a OnceLock<Store<Polecat>>,
    polecat: &Polecat,
) -> Option<&'a Store<Polecat>> {
    store.get().filter(|store| {
        store.get(&ObjectRef::from_obj(polecat)).is_none_or(|kept| kept.uid() != polecat.uid())
    })
}

/// Rigs; their status is not read. A change concerns all Polecats of the rig.
fn rigs(runtime: &Runtime, shared: &Shared, polecats: &Store<Polecat>) -> Store<Rig> {
    let polecats = polecats.clone();
    Watch::<Rig>::all(runtime)
        .trim(|rig: &mut Rig| rig.status = None)
        .notify(&shared.trigger, move |rig: &Rig| {
            let name = rig.name_any();
            let all = polecats.state();
            let of_rig = all.iter().filter(|p| p.spec.rig == name);
            of_rig.map(|p| ObjectRef::from_obj(p.as_ref())).collect::<Vec<_>>()
        })
        .start()
}

/// Refineries; only the branch that one lands on is read. A change concerns the Polecats of the rig
/// that wait for a Refinery of their branch.
fn refineries(runtime: &Runtime, shared: &Shared, polecats: &Store<Polecat>) -> Store<Refinery> {
    let polecats = polecats.clone();
    Watch::<Refinery>::all(runtime)
        .trim(|refinery: &mut Refinery| refinery.status = None)
        .notify(&shared.trigger, move |refinery: &Refinery| {
            let waits = |p: &Polecat| {
                let conditions = p.status.as_ref().map(|s| s.conditions.as_slice());
                conditions::find(conditions.unwrap_or_default(), condition::READY)
                    .is_some_and(|c| c.reason == reason::WRONG_BRANCH)
            };
            let all = polecats.state();
            let of_rig = all.iter().filter(|p| p.spec.rig == refinery.spec.rig_ref && waits(p));
            of_rig.map(|p| ObjectRef::from_obj(p.as_ref())).collect::<Vec<_>>()
        })
        .start()
}

/// Claims on beads. A change concerns all Polecats that need the claim.
fn claims(
    runtime: &Runtime,
    shared: &Shared,
    claim: &Trigger<Lease>,
    polecats: &Store<Polecat>,
) -> Store<Lease> {
    let (by_claim, polecats) = (shared.polecats_by_claim.clone(), polecats.clone());
    Watch::<Lease>::namespaced(runtime, &runtime.args.namespace)
        .labels(claims::SELECTOR)
        .own(&shared.own_claims)
        .notify_self(claim)
        .notify(&shared.trigger, move |lease: &Lease| {
            needing(&lease.name_any(), &by_claim, &polecats)
        })
        .start()
}

/// The Polecats that need a claim.
fn needing(
    claim: &str,
    by_claim: &Index<Polecat>,
    polecats: &Store<Polecat>,
) -> Vec<ObjectRef<Polecat>> {
    by_claim.of(claim, polecats).iter().map(|p| ObjectRef::from_obj(p.as_ref())).collect()
}

/// Agents' pods. A change concerns the pod's Polecat, and, where that is gone, its claims.
fn pods(
    runtime: &Runtime,
    shared: &Shared,
    pod: &Trigger<Pod>,
    claim: &Trigger<Lease>,
    polecats: &Store<Polecat>,
    claims: &Store<Lease>,
) -> Store<Pod> {
    let by_polecat = shared.pods_by_polecat.clone();
    let (polecats, claims) = (polecats.clone(), claims.clone());
    let cell = Arc::<OnceLock<Store<Pod>>>::default();
    let (kept, sightings) = (cell.clone(), shared.sightings.clone());
    let store = Watch::<Pod>::all(runtime)
        .labels(label::POLECAT)
        .own(&shared.own_pods)
        .notify(&shared.trigger, move |pod: &Pod| {
            let gone = kept.get().is_some_and(|store| {
                let now = store.get(&ObjectRef::from_obj(pod));
                now.is_none_or(|kept| kept.uid() != pod.uid())
            });
            if gone {
                sightings.forget(&pod.uid().unwrap_or_default());
            }
            by_polecat.add(owner_uid(pod)?, pod);
            owner(pod)
        })
        .notify(pod, |pod: &Pod| [ObjectRef::from_obj(pod)])
        .notify(claim, move |pod: &Pod| {
            let orphan = owner(pod).is_none_or(|at| polecats.get(&at).is_none());
            let uid = owner_uid(pod).filter(|_| orphan);
            uid.map(|uid| claims::held_by(uid, &claims)).unwrap_or_default()
        })
        .start();
    // set before anything can be deleted: the list comes first
    let _ = cell.set(store.clone());
    store
}

/// The Polecat of a pod, by name.
fn owner(pod: &Pod) -> Option<ObjectRef<Polecat>> {
    let owner = ours::controller::<Polecat>(pod)?;
    Some(ObjectRef::new(&owner.name).within(&pod.namespace()?))
}

/// MergeRequests. A change concerns the Polecat that made it, and those that wait for its bead.
fn merge_requests(
    runtime: &Runtime,
    shared: &Shared,
    polecats: &Store<Polecat>,
) -> Store<MergeRequest> {
    let by_polecat = shared.requests_by_polecat.clone();
    let (requests_by_claim, polecats_by_claim) =
        (shared.requests_by_claim.clone(), shared.polecats_by_claim.clone());
    let polecats = polecats.clone();
    Watch::<MergeRequest>::all(runtime)
        .notify(&shared.trigger, move |request: &MergeRequest| {
            request.spec.polecat_ref.as_ref().map(|author| {
                by_polecat.add(&author.uid, request);
                ObjectRef::<Polecat>::new(&author.name)
                    .within(&request.namespace().unwrap_or_default())
            })
        })
        .notify(&shared.trigger, move |request: &MergeRequest| {
            let Some(claim) = claims::name_of(request) else { return Vec::new() };
            requests_by_claim.add(&claim, request);
            if bead_request(request).is_to_land() {
                return Vec::new();
            }
            needing(&claim, &polecats_by_claim, &polecats)
        })
        .start()
}

/// BeadStores; only whether a rig has one is read.
fn bead_stores(runtime: &Runtime) -> Store<BeadStore> {
    Watch::<BeadStore>::all(runtime).trim(|store: &mut BeadStore| store.status = None).start()
}

/// Network policies of agents' pods. One that somebody changes or deletes is written again by any
/// Polecat of its rig in the namespace.
fn network_policies(
    runtime: &Runtime,
    shared: &Shared,
    polecats: &Store<Polecat>,
) -> Store<NetworkPolicy> {
    let polecats = polecats.clone();
    Watch::<NetworkPolicy>::all(runtime)
        .labels(pod::POLICIES)
        .notify(&shared.trigger, move |policy: &NetworkPolicy| {
            let rig = &ours::controller::<Rig>(policy)?.name;
            let namespace = policy.namespace();
            let any = polecats.find(|p| p.spec.rig == *rig && p.namespace() == namespace);
            any.map(|polecat| ObjectRef::from_obj(polecat.as_ref()))
        })
        .start()
}
