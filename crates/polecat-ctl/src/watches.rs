//! The watches, one function a kind. Each fills its store and the indices, and has reconciled what
//! a change concerns.

use std::sync::{Arc, OnceLock};

use gastown_api::names::{condition, label, reason};
use gastown_api::{BeadStore, MergeRequest, Polecat, Refinery, Rig, conditions};
use gastown_runtime::watch::{NoStatus, Trigger, Triggers, Watch, triggers};
use gastown_runtime::{Runtime, ours};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::claims;
use crate::context::{Shared, Watched, polecat_ref};
use crate::gather::bead_request;
use crate::metrics::PolecatMetrics;
use crate::pod::{self, AgentPod, owner_uid};

/// What is to be reconciled.
pub(crate) struct Queues {
    pub polecats: Triggers<Polecat>,
    pub pods: Triggers<AgentPod>,
    pub claims: Triggers<Lease>,
}

/// Starts all watches; they end with the runtime's drain.
pub(crate) fn start(runtime: &Runtime) -> (Watched, Shared, Queues) {
    let (polecat_trigger, polecat_queue) = triggers::<Polecat>();
    let (pod_trigger, pod_queue) = triggers::<AgentPod>();
    let (claim_trigger, claim_queue) = triggers::<Lease>();
    let shared = Shared::new(polecat_trigger, PolecatMetrics::new(&runtime.metrics));
    let polecats = polecats(runtime, &shared, &claim_trigger);
    let rigs = rigs(runtime, &shared);
    let refineries = refineries(runtime, &shared);
    let claims = claims(runtime, &shared, &claim_trigger);
    let pods = pods(runtime, &shared, &pod_trigger, &claim_trigger, &polecats);
    merge_requests(runtime, &shared);
    let bead_stores = bead_stores(runtime);
    let network_policies = network_policies(runtime, &shared);
    let stores =
        Watched { polecats, rigs, refineries, pods, bead_stores, claims, network_policies };
    let queues = Queues { polecats: polecat_queue, pods: pod_queue, claims: claim_queue };
    (stores, shared, queues)
}

/// Polecats. A deleted one releases its claim and its slot for others.
fn polecats(runtime: &Runtime, shared: &Shared, claim: &Trigger<Lease>) -> Store<Polecat> {
    let by_uid = shared.polecats_by_uid.clone();
    let is_gone = move |polecat: &Polecat| {
        let uid = polecat.metadata.uid.as_deref().unwrap_or_default();
        by_uid.count(uid) == 0
    };
    let is_gone_for_slots = is_gone.clone();
    let namespace = runtime.args.namespace.clone();
    let (admission, deliveries) = (shared.admission.clone(), shared.deliveries.clone());
    let (hashes, lives, metrics) =
        (shared.hashes.clone(), shared.lives.clone(), shared.metrics.clone());
    Watch::<Polecat>::all(runtime)
        .own(&shared.own_polecats)
        .index(&shared.polecats_by_uid, ResourceExt::uid)
        .index(&shared.polecats_by_rig, |polecat: &Polecat| [polecat.spec.rig.clone()])
        .index(&shared.polecats_by_claim, claims::name_for)
        .notify_self(&shared.trigger)
        .notify(claim, move |polecat: &Polecat| {
            let name = claims::name_for(polecat).filter(|_| is_gone(polecat))?;
            Some(ObjectRef::<Lease>::new(&name).within(&namespace))
        })
        .notify(&shared.trigger, move |polecat: &Polecat| {
            if !is_gone_for_slots(polecat) {
                return Vec::new();
            }
            let uid = polecat.uid().unwrap_or_default();
            deliveries.lock().remove(&uid);
            hashes.forget(&uid);
            lives.forget(&uid);
            metrics.forget(&uid);
            let next = admission.forget(&polecat.spec.rig, &uid);
            next.iter().filter_map(|key| polecat_ref(key)).collect()
        })
        .start()
}

/// Rigs; their status is not read. A change concerns all Polecats of the rig.
fn rigs(runtime: &Runtime, shared: &Shared) -> Store<Rig> {
    let polecats = shared.polecats_by_rig.clone();
    Watch::<Rig, NoStatus>::all(runtime)
        .notify(&shared.trigger, move |rig: &Rig| polecats.references(&rig.name_any()))
        .start()
}

/// Refineries; only the branch that one lands on is read. A change concerns the Polecats of the rig
/// that wait for a Refinery of their branch.
fn refineries(runtime: &Runtime, shared: &Shared) -> Store<Refinery> {
    let polecats = shared.polecats_by_rig.clone();
    Watch::<Refinery, NoStatus>::all(runtime)
        .notify(&shared.trigger, move |refinery: &Refinery| {
            let waits = |p: &Polecat| {
                let conditions = p.status.as_ref().map(|s| s.conditions.as_slice());
                conditions::find(conditions.unwrap_or_default(), condition::READY)
                    .is_some_and(|c| c.reason == reason::WRONG_BRANCH)
            };
            references(&polecats.filter(&refinery.spec.rig_ref, waits))
        })
        .start()
}

/// References to objects.
fn references(polecats: &[Arc<Polecat>]) -> Vec<ObjectRef<Polecat>> {
    polecats.iter().map(|polecat| ObjectRef::from_obj(polecat.as_ref())).collect()
}

/// Claims on beads. A change concerns all Polecats that need the claim.
fn claims(runtime: &Runtime, shared: &Shared, claim: &Trigger<Lease>) -> Store<Lease> {
    let by_claim = shared.polecats_by_claim.clone();
    Watch::<Lease>::namespaced(runtime, &runtime.args.namespace)
        .labels(claims::SELECTOR)
        .own(&shared.own_claims)
        .index(&shared.claims_by_holder, |lease: &Lease| [claims::holder(lease).to_owned()])
        .notify_self(claim)
        .notify(&shared.trigger, move |lease: &Lease| by_claim.references(&lease.name_any()))
        .start()
}

/// Agents' pods. A change concerns the pod's Polecat, and, where that is gone, its claims.
fn pods(
    runtime: &Runtime,
    shared: &Shared,
    pod: &Trigger<AgentPod>,
    claim: &Trigger<Lease>,
    polecats: &Store<Polecat>,
) -> Store<AgentPod> {
    let (polecats, claims) = (polecats.clone(), shared.claims_by_holder.clone());
    let cell = Arc::<OnceLock<Store<AgentPod>>>::default();
    let (kept, sightings) = (cell.clone(), shared.sightings.clone());
    let store = Watch::<AgentPod>::all(runtime)
        .labels(label::POLECAT)
        .own(&shared.own_pods)
        .index(&shared.pods_by_polecat, |pod: &AgentPod| owner_uid(pod).map(str::to_owned))
        .notify(&shared.trigger, move |pod: &AgentPod| {
            let gone = kept.get().is_some_and(|store| {
                let now = store.get(&ObjectRef::from_obj(pod));
                now.is_none_or(|kept| kept.uid() != pod.uid())
            });
            if gone {
                sightings.forget(&pod.uid().unwrap_or_default());
            }
            owner(pod)
        })
        .notify(pod, |pod: &AgentPod| [ObjectRef::from_obj(pod)])
        .notify(claim, move |pod: &AgentPod| {
            let orphan = owner(pod).is_none_or(|at| polecats.get(&at).is_none());
            let held = owner_uid(pod).filter(|_| orphan).map(|uid| claims.of(uid));
            let held = held.unwrap_or_default();
            held.iter().map(|lease| ObjectRef::from_obj(lease.as_ref())).collect::<Vec<_>>()
        })
        .start();
    // set before anything can be deleted: the list comes first
    let _ = cell.set(store.clone());
    store
}

/// The Polecat of a pod, by name.
fn owner(pod: &AgentPod) -> Option<ObjectRef<Polecat>> {
    let owner = ours::controller::<Polecat>(pod)?;
    Some(ObjectRef::new(&owner.name).within(&pod.namespace()?))
}

/// MergeRequests. A change concerns the Polecat that made it, and those that wait for its bead.
fn merge_requests(runtime: &Runtime, shared: &Shared) {
    let by_claim = shared.polecats_by_claim.clone();
    Watch::<MergeRequest>::all(runtime)
        .index(&shared.requests_by_polecat, |request: &MergeRequest| {
            request.spec.polecat_ref.as_ref().map(|author| author.uid.clone())
        })
        .index(&shared.requests_by_claim, claims::name_of)
        .notify(&shared.trigger, move |request: &MergeRequest| {
            request.spec.polecat_ref.as_ref().map(|author| {
                ObjectRef::<Polecat>::new(&author.name)
                    .within(&request.namespace().unwrap_or_default())
            })
        })
        .notify(&shared.trigger, move |request: &MergeRequest| {
            let claim = claims::name_of(request).filter(|_| !bead_request(request).is_to_land());
            claim.map(|claim| by_claim.references(&claim)).unwrap_or_default()
        })
        .start();
}

/// BeadStores; only whether a rig has one is read.
fn bead_stores(runtime: &Runtime) -> Store<BeadStore> {
    Watch::<BeadStore, NoStatus>::all(runtime).start()
}

/// Network policies of agents' pods. One that somebody changes or deletes is written again by any
/// Polecat of its rig in the namespace.
fn network_policies(runtime: &Runtime, shared: &Shared) -> Store<NetworkPolicy> {
    let polecats = shared.polecats_by_rig.clone();
    Watch::<NetworkPolicy>::all(runtime)
        .labels(pod::POLICIES)
        .notify(&shared.trigger, move |policy: &NetworkPolicy| {
            let rig = &ours::controller::<Rig>(policy)?.name;
            let namespace = policy.namespace();
            let any = polecats.find(rig, |polecat| polecat.namespace() == namespace);
            any.map(|polecat| ObjectRef::from_obj(polecat.as_ref()))
        })
        .start()
}
