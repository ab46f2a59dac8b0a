//! The watches: what is cached of each kind, and which Refineries a change concerns.

use std::sync::{Arc, OnceLock};

use gastown_api::names::condition;
use gastown_api::{GateRun, MergeRequest, Polecat, PolecatSpec, PolecatStatus, Refinery, Rig};
use gastown_runtime::own_writes::OwnWrites;
use gastown_runtime::watch::{self, NoStatus, Trigger, Triggers, Trim, Watch};
use gastown_runtime::{Runtime, ours};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt as _};

use crate::context::{Stores, is_merged};
use crate::gate;
use crate::record::RequestRecord;

/// Starts all watches.
pub(crate) fn start(runtime: &Runtime) -> (Stores, Triggers<Refinery>) {
    let (trigger, triggers) = watch::triggers::<Refinery>();
    let known = Known::default();
    let refineries = refineries(runtime, &trigger, &known);
    let rigs = rigs(runtime, &trigger, &known);
    let requests = requests(runtime, &trigger, &known);
    let polecats = polecats(runtime, &trigger, &known, &requests);
    let own_runs = Arc::<OwnWrites<GateRun>>::default();
    let gate_runs = gate_runs(runtime, &trigger, &own_runs);
    let jobs = jobs(runtime, &trigger, &gate_runs);
    let pods = pods(runtime, &trigger, &jobs, &gate_runs);
    let policies = policies(runtime, &trigger);
    let stores =
        Stores { refineries, requests, polecats, rigs, gate_runs, own_runs, jobs, pods, policies };
    (stores, triggers)
}

/// The Refineries in the cache, for the watches that map changes to them. The watch of the
/// Refineries itself needs them too, so the store is set after it was started.
#[derive(Clone, Default)]
struct Known(Arc<OnceLock<Store<Refinery>>>);

impl Known {
    /// References to the Refineries for which `wanted` holds.
    fn references(&self, wanted: impl Fn(&Refinery) -> bool) -> Vec<ObjectRef<Refinery>> {
        let all = self.0.get().map(Store::state).unwrap_or_default();
        all.iter().filter(|r| wanted(r)).map(|r| ObjectRef::from_obj(r.as_ref())).collect()
    }

    /// References to the Refineries for the rig and the branch of a request.
    fn for_request(&self, request: &MergeRequest) -> Vec<ObjectRef<Refinery>> {
        let (rig, target) = (&request.spec.rig_ref, &request.spec.target_branch);
        self.references(|r| r.spec.rig_ref == *rig && r.spec.target_branch == *target)
    }
}

/// A Refinery that comes or goes changes the roles of the others of its branch.
fn refineries(runtime: &Runtime, trigger: &Trigger<Refinery>, known: &Known) -> Store<Refinery> {
    let map = {
        let known = known.clone();
        move |changed: &Refinery| {
            let target = &changed.spec.target_branch;
            let mut references = vec![ObjectRef::from_obj(changed)];
            references.extend(known.references(|r| r.spec.target_branch == *target));
            references
        }
    };
    let store = Watch::<Refinery>::all(runtime).notify(trigger, map).start();
    let _ = known.0.set(store.clone());
    store
}

fn rigs(runtime: &Runtime, trigger: &Trigger<Refinery>, known: &Known) -> Store<Rig> {
    let known = known.clone();
    let map = move |rig: &Rig| {
        let name = rig.name_any();
        known.references(|r| r.spec.rig_ref == name)
    };
    Watch::<Rig, NoStatus>::all(runtime).notify(trigger, map).start()
}

fn requests(runtime: &Runtime, trigger: &Trigger<Refinery>, known: &Known) -> Store<MergeRequest> {
    let known = known.clone();
    let map = move |request: &MergeRequest| known.for_request(request);
    Watch::<MergeRequest>::all(runtime).notify(trigger, map).start()
}

/// Only a Polecat whose request has landed and that does not have the condition `Merged` triggers a
/// reconcile.
fn polecats(
    runtime: &Runtime,
    trigger: &Trigger<Refinery>,
    known: &Known,
    requests: &Store<MergeRequest>,
) -> Store<Polecat> {
    let (known, requests) = (known.clone(), requests.clone());
    let map = move |polecat: &Polecat| {
        let Some(uid) = polecat.uid().filter(|_| !is_merged(polecat)) else { return Vec::new() };
        let is_of_it = |r: &MergeRequest| r.spec.polecat_ref.as_ref().is_some_and(|p| p.uid == uid);
        let landed = requests.find(|r| is_of_it(r) && RequestRecord::of(r).has_landed());
        landed.map(|r| known.for_request(&r)).unwrap_or_default()
    };
    Watch::<Polecat, Merged>::all(runtime).notify(trigger, map).start()
}

/// Leaves of a Polecat its condition `Merged`, and what it saved beside its work.
#[derive(Clone, Debug)]
struct Merged;

impl Trim<Polecat> for Merged {
    fn trim(polecat: &mut Polecat) {
        polecat.spec = PolecatSpec::of_rig(std::mem::take(&mut polecat.spec.rig));
        polecat.metadata.annotations = None;
        polecat.metadata.labels = None;
        if let Some(mut status) = polecat.status.take() {
            status.conditions.retain(|c| c.type_ == condition::MERGED);
            polecat.status = Some(PolecatStatus {
                conditions: status.conditions,
                saved: status.saved,
                ..PolecatStatus::default()
            });
        }
    }
}

fn gate_runs(
    runtime: &Runtime,
    trigger: &Trigger<Refinery>,
    own: &Arc<OwnWrites<GateRun>>,
) -> Store<GateRun> {
    Watch::<GateRun>::all(runtime).own(own).notify(trigger, parent::<Refinery>).start()
}

fn jobs(runtime: &Runtime, trigger: &Trigger<Refinery>, gate_runs: &Store<GateRun>) -> Store<Job> {
    let runs = gate_runs.clone();
    let map = move |job: &Job| refinery_of(job, &runs);
    Watch::<Job>::all(runtime).labels(gate::SELECTOR).notify(trigger, map).start()
}

fn pods(
    runtime: &Runtime,
    trigger: &Trigger<Refinery>,
    jobs: &Store<Job>,
    gate_runs: &Store<GateRun>,
) -> Store<Pod> {
    let (jobs, runs) = (jobs.clone(), gate_runs.clone());
    let map = move |pod: &Pod| refinery_of(jobs.get(&parent::<Job>(pod)?)?.as_ref(), &runs);
    Watch::<Pod, NoSpec>::all(runtime).labels(gate::SELECTOR).notify(trigger, map).start()
}

/// Keeps what became of a pod.
#[derive(Clone, Debug)]
struct NoSpec;

impl Trim<Pod> for NoSpec {
    fn trim(pod: &mut Pod) {
        pod.spec = None;
    }
}

/// A policy that somebody changes or deletes is written again.
fn policies(runtime: &Runtime, trigger: &Trigger<Refinery>) -> Store<NetworkPolicy> {
    let map = |policy: &NetworkPolicy| parent::<Refinery>(policy);
    Watch::<NetworkPolicy>::all(runtime).labels(gate::SELECTOR).notify(trigger, map).start()
}

/// The Refinery of the run that a Job is of.
fn refinery_of(job: &Job, runs: &Store<GateRun>) -> Option<ObjectRef<Refinery>> {
    let run = runs.get(&parent::<GateRun>(job)?)?;
    parent(run.as_ref())
}

/// The controller that an object names, if it is of this kind.
fn parent<P: Resource<DynamicType = ()>>(child: &impl Resource) -> Option<ObjectRef<P>> {
    let namespace = child.meta().namespace.clone().unwrap_or_default();
    let owner = ours::controller::<P>(child)?;
    Some(ObjectRef::new(&owner.name).within(&namespace))
}
